# SPDX-License-Identifier: MIT
"""The connection: without a bus, over a bus's restart, with a bus that hangs, and a name that is another's."""

import asyncio
import logging
import time

import pytest

from resolver.dbus import connection as connection_module
from resolver.dbus.connection import BUS, BUS_PATH, DISCONNECTED, NO_ANSWER, BusError, Connection
from resolver.dbus.transport import unix_addresses
from tests.dbus.bus import Bus
from tests.dbus.world import client, connected, mock_service, run, until

NAME = "org.freedesktop.machine1"


async def until_owned(connection: Connection, owned: bool = True) -> None:
    await until(lambda: connection.owns_name is owned)


@pytest.mark.parametrize(("address", "paths"), [
    ("unix:path=/run/dbus/system_bus_socket", ["/run/dbus/system_bus_socket"]),
    ("unix:path=/a%20b,guid=0123;unix:abstract=/x", ["/a b", "\0/x"]),
    ("tcp:host=localhost,port=1;unix:path=/a", ["/a"]),
    ("", []), (";;:", []), ("unix:tmpdir=/x", []), ("unix:path", []),
])
def test_addresses(address: str, paths: list[str]) -> None:
    assert unix_addresses(address) == paths


def test_without_a_bus_there_is_one_line_in_the_log(no_bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        connection = Connection(NAME, no_bus.address)
        begin = time.monotonic()
        await connection.start()
        assert time.monotonic() - begin < 1
        await asyncio.sleep(0.5)  # attempts, which are to be silent
        with pytest.raises(BusError) as error:
            await connection.call(BUS, BUS_PATH, BUS, "GetId")
        assert error.value.name == DISCONNECTED
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        no_bus.start()
        await until_owned(connection)
        await connection.close()

    run(test())


def test_it_is_back_after_the_bus_restarts(bus: Bus) -> None:
    async def test() -> None:
        connection = Connection(NAME, bus.address)
        await connection.start()
        assert connection.owns_name
        for _ in range(3):
            bus.stop()
            await until_owned(connection, False)
            with pytest.raises(BusError):
                await connection.call(BUS, BUS_PATH, BUS, "GetId")
            bus.start()
            await until_owned(connection)
            assert len((await connection.call(BUS, BUS_PATH, BUS, "GetId")).body[0]) == 32
        await connection.close()

    run(test())


def test_who_waits_for_an_answer_learns_that_the_bus_is_gone(bus: Bus) -> None:
    async def test() -> None:
        connection = Connection(NAME, bus.address)
        await connection.start()
        async with mock_service(bus, "org.example.Mute", lambda _: None):
            waiting = asyncio.create_task(connection.call("org.example.Mute", "/x", "org.example.Mute", "Ask"))
            await asyncio.sleep(0.05)
            begin = time.monotonic()
            bus.stop()
            with pytest.raises(BusError) as error:
                await waiting
            assert error.value.name == DISCONNECTED
            assert time.monotonic() - begin < 5
        await connection.close()

    run(test())


def test_who_does_not_answer_is_waited_for_so_long(bus: Bus) -> None:
    async def test() -> None:
        connection = Connection(NAME, bus.address)
        await connection.start()
        async with mock_service(bus, "org.example.Mute", lambda _: None):
            with pytest.raises(BusError) as error:
                await connection.call("org.example.Mute", "/x", "org.example.Mute", "Ask", seconds=0.1)
            assert error.value.name == NO_ANSWER
        await connection.close()

    run(test())


def test_a_bus_that_hangs_keeps_no_start(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "START_SECONDS", 0.2)
    bus.freeze()

    async def test() -> None:
        connection = Connection(NAME, bus.address)
        begin = time.monotonic()
        await connection.start()
        assert time.monotonic() - begin < 2
        await connection.close()

    run(test())


def test_a_name_that_is_anothers_is_ours_when_they_go(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        connection = Connection(NAME, bus.address)
        async with connected(bus.address) as other:
            await other.request_name(NAME)
            await connection.start()
            assert not connection.owns_name
            assert "Another program is org.freedesktop.machine1" in caplog.text
        await until_owned(connection)
        await connection.close()

    run(test())


def test_a_lie_about_the_name_is_not_believed(bus: Bus) -> None:
    """Anybody may send a signal to anybody."""
    from dbus_fast import Message

    async def test() -> None:
        connection = Connection(NAME, bus.address)
        await connection.start()
        async with client(bus) as liar:
            for destination in (None, NAME):
                lie = Message.new_signal(BUS_PATH, BUS, "NameLost", "s", [NAME])
                lie.destination = destination
                await liar.bus.send(lie)
            await connection.call(BUS, BUS_PATH, BUS, "GetId")
            assert await liar.call("GetNameOwner", "s", NAME, destination=BUS, path=BUS_PATH, interface=BUS)
            assert connection.owns_name
        await connection.close()

    run(test())


def test_without_an_address_it_is_the_environments(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)

    async def test() -> None:
        connection = Connection(NAME)
        await connection.start()
        assert connection.owns_name
        await connection.close()

    run(test())
