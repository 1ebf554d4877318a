# SPDX-License-Identifier: MIT
"""Who floods the bus, or sends what is large or cannot be read, keeps nobody from an answer."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from dbus_fast import Message, MessageFlag

from resolver.core.machine import Machine, MachineClass, ProcessId
from resolver.dbus.paths import MACHINES, MANAGER
from resolver.dbus.reader import MESSAGE_MAX
from tests.dbus.bus import Bus
from tests.dbus.world import MANAGER_INTERFACE, NO_ID, Failed, World, client, run

FLOOD_SECONDS = 2.0
TURN_SECONDS = 0.5
"""By when others have their turn: ten times what was promised, for test machines are slow and shared."""

FLOOD = """
import socket, sys, time
from dbus_fast import Message, MessageFlag
def octets(**fields):
    return bytes(Message(path="/x", interface="org.freedesktop.DBus", serial=1, **fields)._marshall(False))
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
sock.sendall(b"\\0AUTH EXTERNAL\\r\\nDATA\\r\\nBEGIN\\r\\n")
sock.sendall(octets(destination="org.freedesktop.DBus", member="Hello"))
calls = octets(destination="org.freedesktop.machine1", member="Ping", flags=MessageFlag.NO_REPLY_EXPECTED) * 200
print("flooding", flush=True)
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    sock.sendall(calls)
"""


def test_a_flood_leaves_others_their_turn(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        async with World(bus, tmp_path) as world:
            calls = 0
            answer = world.connection.on_call

            def count(received: object) -> None:
                nonlocal calls
                calls += 1
                answer(received)  # type: ignore[arg-type]

            world.connection.on_call = count
            flood = await asyncio.create_subprocess_exec(
                sys.executable, "-c", FLOOD, str(bus.socket), str(FLOOD_SECONDS), stdout=asyncio.subprocess.PIPE)
            assert flood.stdout is not None
            assert await asyncio.wait_for(flood.stdout.readline(), 10) == b"flooding\n"
            longest, last = 0.0, loop.time()
            while flood.returncode is None:
                await asyncio.sleep(0)
                longest, last = max(longest, loop.time() - last), loop.time()
            await flood.wait()
            assert calls > 1000
            assert longest < TURN_SECONDS

    run(test())


def test_what_is_too_long_or_nested_is_refused_and_the_next_answered(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        async with World(bus, tmp_path), client(bus) as caller:
            with pytest.raises(Failed) as failed:
                await caller.call("GetMachine", "ay", bytes(MESSAGE_MAX))
            assert failed.value.name == "DBus.Error.InvalidArgs"
            assert "longer than" in failed.value.text
            with pytest.raises(Failed) as failed:
                await caller.call("GetMachine", "as", ["x"] * 100000)
            assert failed.value.name == "DBus.Error.InvalidArgs"
            assert "values" in failed.value.text
            assert await caller.call("GetMachine", "s", ".host")

    run(test())


def test_descriptors_that_nobody_asked_for_are_closed(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        async with World(bus, tmp_path), client(bus) as caller:
            reading, writing = os.pipe()
            for member in ("GetMachine", "NoSuch"):
                with pytest.raises(Failed):
                    await caller.call(member, "h", 0, fds=[writing] * 4)
            await caller.bus.send(Message("org.freedesktop.machine1", MANAGER, MANAGER_INTERFACE, "NoSuch",
                                          flags=MessageFlag.NO_REPLY_EXPECTED, signature="h", body=[0],
                                          unix_fds=[writing]))
            await caller.call("GetMachine", "s", ".host")
            os.close(writing)
            os.set_blocking(reading, False)
            assert os.read(reading, 1) == b""  # nobody else has it open
            os.close(reading)

    run(test())


def test_ten_thousand_machines(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        async with World(bus, tmp_path) as world, client(bus) as caller:
            for number in range(10000):
                world.registry.add(Machine(f"m{number}", MachineClass.CONTAINER, ProcessId(10**6 + number), id=NO_ID))
            listed = await caller.call("ListMachines")
            assert len(listed) == 10001
            assert listed[-1] == ("m9999", "container", "", f"{MACHINES}/m9999")
            told = await caller.call("Introspect", path=MACHINES, interface="org.freedesktop.DBus.Introspectable")
            assert told.count("<node name=") == 10001
            assert await caller.get(f"{MACHINES}/m777", "Name") == "m777"

    run(test())
