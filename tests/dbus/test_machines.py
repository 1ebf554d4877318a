# SPDX-License-Identifier: MIT
"""Machines over the bus: looking, registering, changing, and each error by the name that machined gives it."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dbus_fast import Message

from resolver.core.idmap import Extent, IdMap
from resolver.core.machine import Address
from resolver.dbus.paths import MACHINES, MANAGER
from resolver.dbus.server import NAME
from tests.dbus.bus import Bus
from tests.dbus.world import (
    MACHINE_INTERFACE,
    MANAGER_INTERFACE,
    NO_ID,
    Failed,
    World,
    client,
    run,
    until,
    variant,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

INVALID = "DBus.Error.InvalidArgs"
NO_MACHINE = "machine1.NoSuchMachine"
UNSUPPORTED = "DBus.Error.NotSupported"
GONE = 2**22 + 1  # more than any process has (PID_MAX_LIMIT, linux/threads.h)


async def give_web(world: World) -> None:
    """A container with maps and addresses of its own, as if the kernel had told of them."""
    await world.register("web")
    machine = world.manager.find("web", None).machine
    ids = IdMap((Extent(0, 700000, 65536),))
    world.registry.update(replace(machine, uid_map=ids, gid_map=ids))


def test_machines_are_listed_and_found(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        async with World(bus, tmp_path) as world, client(bus) as caller:
            leader = world.leader()
            path = await caller.call("RegisterMachine", "sayssus", "web-1", NO_ID, "test", "container", leader, "/srv")
            assert path == f"{MACHINES}/web_2d1"
            assert await caller.call("ListMachines") == [
                (".host", "host", "", f"{MACHINES}/_2ehost"), ("web-1", "container", "test", path)]
            assert await caller.call("GetMachine", "s", "web-1") == path
            assert await caller.call("GetMachineByPID", "u", leader) == path
            assert await caller.get(path, "Id") == b""
            await caller.call("UnregisterMachine", "s", "web-1")
            assert len(await caller.call("ListMachines")) == 1

    run(test())


@pytest.mark.parametrize(("member", "signature", "body", "error"), [
    ("GetMachine", "s", ["nosuch"], NO_MACHINE),
    ("GetMachine", "s", [""], NO_MACHINE),
    ("GetMachine", "s", ["ah@??.hmm"], NO_MACHINE),
    ("GetMachine", "u", [3], INVALID),
    ("GetMachine", "", [], INVALID),
    ("GetMachineByPID", "u", [1], "machine1.NoMachineForPID"),
    ("GetMachineByPID", "u", [0], "machine1.NoMachineForPID"),
    ("GetMachineByPID", "u", [GONE], "machine1.NoMachineForPID"),
    ("GetMachineByPID", "u", [2**32 - 1], "machine1.NoMachineForPID"),
    ("GetMachineAddresses", "s", ["nosuch"], NO_MACHINE),
    ("GetMachineAddresses", "s", ["web"], "machine1.NoPrivateNetworking"),
    ("GetMachineOSRelease", "s", ["nosuch"], NO_MACHINE),
    ("GetMachineUIDShift", "s", [""], NO_MACHINE),
    ("GetMachineSSHInfo", "s", ["web"], "DBus.Error.FileNotFound"),
    ("KillMachine", "ssi", ["nosuch", "leader", 15], NO_MACHINE),
    ("KillMachine", "ssi", ["web", "leaderx", 15], INVALID),
    ("KillMachine", "ssi", ["web", "leader", 0], INVALID),
    ("KillMachine", "ssi", ["web", "leader", 65], INVALID),
    ("KillMachine", "ssi", ["web", "leader", -3], INVALID),
    ("KillMachine", "ssi", [".host", "leader", 0], INVALID),
    ("KillMachine", "ssi", [".host", "leader", 15], UNSUPPORTED),
    ("TerminateMachine", "s", ["nosuch"], NO_MACHINE),
    ("TerminateMachine", "s", [".host"], UNSUPPORTED),
    ("UnregisterMachine", "s", ["nosuch"], NO_MACHINE),
    ("UnregisterMachine", "s", [".host"], UNSUPPORTED),  # machined lets its own host go
    ("MapFromMachineUser", "su", ["nosuch", 0], NO_MACHINE),
    ("MapFromMachineUser", "su", ["web", 65536], "machine1.NoSuchUserMapping"),
    ("MapFromMachineGroup", "su", ["web", 65536], "machine1.NoSuchUserMapping"),
    ("MapFromMachineUser", "su", ["web", 2**32 - 1], INVALID),
    ("MapFromMachineUser", "su", ["web", 65535], INVALID),
    ("MapFromMachineUser", "su", [".host", 0], INVALID),
    ("MapToMachineUser", "u", [0], "machine1.NoSuchUserMapping"),
    ("MapToMachineGroup", "u", [0], "machine1.NoSuchGroupMapping"),
    ("MapToMachineUser", "u", [699999], "machine1.NoSuchUserMapping"),
    ("MapToMachineGroup", "u", [699999], "machine1.NoSuchGroupMapping"),
    ("MapToMachineGroup", "u", [2**32 - 1], INVALID),
    ("GetImage", "s", ["nosuch"], "machine1.NoSuchImage"),
    ("OpenMachinePTY", "s", ["nosuch"], "machine1.NoSuchMachine"),
    ("OpenMachineShell", "sssasas", ["web", "-root", "", [], []], INVALID),
    ("OpenMachineShell", "sssasas", ["web", "ro:ot", "", [], []], INVALID),
    ("OpenMachineShell", "sssasas", ["web", "", "bin/sh", [], []], INVALID),
    ("OpenMachineShell", "sssasas", ["web", "", "/bin/sh", [], ["NAME"]], INVALID),
    ("OpenMachineShell", "sssasas", ["web", "", "/bin/sh", ["x" * 70000], []], INVALID),
    ("BindMountMachine", "sssbb", ["web", "relative", "", False, False], INVALID),
    ("BindMountMachine", "sssbb", ["web", "/tmp", "/a/../b", False, False], INVALID),
    ("BindMountMachine", "sssbb", [".host", "/tmp", "", False, False], UNSUPPORTED),
    ("CopyFromMachine", "sss", [".host", "/etc/hosts", ""], UNSUPPORTED),
    ("CopyToMachineWithFlags", "ssst", ["web", "/etc/hosts", "", 2], INVALID),
    ("CopyToMachine", "sss", ["web", "etc/hosts", ""], INVALID),
    ("CopyFromMachine", "sss", ["web", "/nowhere", "/tmp/nowhere"], "DBus.Error.FileNotFound"),
    ("CopyFromMachine", "sss", ["web", "/etc/hosts", ""], "DBus.Error.FileExists"),
    ("CloneImage", "ssb", ["nosuch", "b", False], "machine1.NoSuchImage"),
    ("CloneImage", "ssb", [".host", "a/b", False], INVALID),
    ("RemoveImage", "s", [".host"], "System.Error.EROFS"),
    ("CleanPool", "s", ["some"], INVALID),
    ("NoSuchMethod", "", [], "DBus.Error.UnknownMethod"),
])
def test_errors(bus: Bus, tmp_path: Path, member: str, signature: str, body: list[Any], error: str) -> None:
    async def test() -> None:
        async with World(bus, tmp_path) as world, client(bus) as caller:
            await give_web(world)
            with pytest.raises(Failed) as failed:
                await caller.call(member, signature, *body)
            assert failed.value.name == error
            assert failed.value.text

    run(test())


@pytest.mark.parametrize(("change", "error"), [
    ({"name": ""}, INVALID), ({"name": "a_b"}, INVALID), ({"name": ".host"}, INVALID), ({"name": "web"},
                                                                                         "machine1.MachineExists"),
    ({"name": "WEB"}, "machine1.MachineExists"), ({"id": b"123"}, INVALID), ({"class": "host"}, INVALID),
    ({"class": "bogus"}, INVALID), ({"leader": 1}, INVALID), ({"leader": GONE}, INVALID),
    ({"root": "relative"}, INVALID), ({"root": "/a/../b"}, INVALID), ({"interfaces": [0]}, INVALID),
    ({"interfaces": [-1]}, INVALID), ({"service": "two\nlines"}, INVALID),
], ids=str)
def test_registrations_that_are_refused(bus: Bus, tmp_path: Path, change: dict[str, Any], error: str) -> None:
    async def test() -> None:
        async with World(bus, tmp_path) as world, client(bus) as caller:
            await world.register("web")
            said = {"name": "new", "id": NO_ID, "service": "test", "class": "container", "leader": world.leader(),
                    "root": "", "interfaces": [], **change}
            with pytest.raises(Failed) as failed:
                await caller.call("RegisterMachineWithNetwork", "sayssusai", *said.values())
            assert failed.value.name == error
            assert len(world.registry) == 1

    run(test())


def test_ids_are_mapped_both_ways(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        async with World(bus, tmp_path) as world, client(bus) as caller:
            await give_web(world)
            assert await caller.call("GetMachineUIDShift", "s", "web") == 700000
            assert await caller.call("MapFromMachineUser", "su", "web", 5) == 700005
            assert await caller.call("MapFromMachineGroup", "su", "web", 6) == 700006
            assert await caller.call("MapToMachineUser", "u", 700005) == ["web", f"{MACHINES}/web", 5]
            assert await caller.call("MapToMachineGroup", "u", 700006) == ["web", f"{MACHINES}/web", 6]
            # In the host's own user namespace every id is the host's.
            await world.register("plain")
            assert await caller.call("GetMachineUIDShift", "s", "plain") == 0
            assert await caller.call("MapFromMachineUser", "su", "plain", 7) == 7

    run(test())


def test_what_a_guest_says_is_made_fit_for_the_bus(bus: Bus, tmp_path: Path) -> None:
    """The bus hangs up on who sends it a NUL or what is no UTF-8: a guest's file is not to do that to the daemon."""
    async def test() -> None:
        async with World(bus, tmp_path) as world, client(bus) as caller:
            await world.register("web")
            world.os_release = {"ID": "deb\0ian", "NAME": "\udcff", "PRETTY_NAME": "Größe"}
            assert await caller.call("GetMachineOSRelease", "s", "web") == {
                "ID": "deb?ian", "NAME": "?", "PRETTY_NAME": "Größe"}
            assert await caller.call("GetOSRelease", path=f"{MACHINES}/web", interface=MACHINE_INTERFACE) == {
                "ID": "deb?ian", "NAME": "?", "PRETTY_NAME": "Größe"}

    run(test())


def test_addresses_are_of_machines_with_a_network(bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with World(bus, tmp_path) as world, client(bus) as caller:
            await world.register("web")
            # The namespace is the host's: as if it were not.
            monkeypatch.setattr("resolver.guest.metadata._shares", lambda *_: False)
            machine = world.manager.find("web", None).machine
            world.registry.update(replace(machine, addresses=(
                Address(10, bytes(range(16)), 2), Address(2, bytes([10, 0, 0, 1]), 2),
                Address(2, bytes([127, 0, 0, 1]), 1, scope=254))))
            assert await caller.call("GetMachineAddresses", "s", "web") == [
                (2, bytes([10, 0, 0, 1])), (10, bytes(range(16)))]

    run(test())


def test_machines_come_and_go_with_a_signal(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        async with World(bus, tmp_path) as world, client(bus) as follower, client(bus) as caller:
            await follower.match("sender='org.freedesktop.machine1',interface='org.freedesktop.machine1.Manager'")
            for name in ("web", "db-1"):
                leader = world.leader()
                path = await caller.call("RegisterMachine", "sayssus", name, NO_ID, "test", "container", leader, "")
                assert await follower.next_signal() == ("MachineNew", [name, path])
                world.end(leader)
                assert await follower.next_signal() == ("MachineRemoved", [name, path])
            assert len(world.registry) == 0

    run(test())


def test_a_signal_reaches_the_leader(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        async with World(bus, tmp_path) as world, client(bus) as follower, client(bus) as caller:
            await follower.match("interface='org.freedesktop.machine1.Manager'")
            path = await world.register("web")
            assert (await follower.next_signal())[0] == "MachineNew"
            await caller.call("Kill", "si", "leader", 9, path=path, interface=MACHINE_INTERFACE)
            assert (await follower.next_signal())[0] == "MachineRemoved"

    run(test())


def test_later_clients_register_by_properties(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        async with World(bus, tmp_path) as world, client(bus) as caller:
            leader = world.leader()
            pidfd = os.pidfd_open(leader)
            try:
                path = await caller.call("RegisterMachineEx", "sa(sv)", "web", [
                    ("Class", variant("s", "vm")), ("LeaderPIDFD", variant("h", 0)), ("VSockCID", variant("u", 9)),
                    ("SSHAddress", variant("s", "vsock/9")), ("SSHPrivateKeyPath", variant("s", "/run/key")),
                    ("NetworkInterfaces", variant("ai", [3])), ("Id", variant("ay", bytes(range(16)))),
                    ("Service", variant("s", "test")), ("RootDirectory", variant("s", "/srv"))], fds=[pidfd])
            finally:
                os.close(pidfd)
            assert await caller.get(path, "Leader") == leader
            assert await caller.get(path, "VSockCID") == 9
            assert await caller.call("GetMachineSSHInfo", "s", "web") == ["vsock/9", "/run/key"]

    run(test())


@pytest.mark.parametrize(("properties", "pass_pidfd", "why"), [
    ([("Nome", variant("s", "x"))], False, "Nome"), ([("Class", variant("u", 1))], False, "Class of type u"),
    ([("Class", variant("s", "vm")), ("Class", variant("s", "vm"))], False, "twice"),
    ([("LeaderPID", variant("u", 77))], False, "together"), ([("LeaderPIDFDID", variant("t", 77))], False, "together"),
    ([("LeaderPIDFD", variant("h", 0))], False, "no descriptor 0"),
    ([("LeaderPIDFD", variant("h", 9))], True, "no descriptor 9"),
    ([("LeaderPIDFD", variant("h", 0)), ("LeaderPID", variant("u", 1))], True, "not the process"),
    ([("LeaderPIDFD", variant("h", 0)), ("LeaderPIDFDID", variant("t", 1))], True, "not the process"),
], ids=str)
def test_properties_that_are_refused(bus: Bus, tmp_path: Path, properties: list[Any], pass_pidfd: bool,
                                     why: str) -> None:
    async def test() -> None:
        async with World(bus, tmp_path) as world, client(bus) as caller:
            pidfd = os.pidfd_open(world.leader())
            try:
                with pytest.raises(Failed) as failed:
                    await caller.call("RegisterMachineEx", "sa(sv)", "web", properties,
                                      fds=[pidfd] if pass_pidfd else [])
            finally:
                os.close(pidfd)
            assert failed.value.name == INVALID
            assert why in failed.value.text
            assert len(world.registry) == 0

    run(test())


def test_who_waits_keeps_nobody(bus: Bus, tmp_path: Path) -> None:
    """A guest that hangs delays the call about it alone, and no more than so many of one connection wait."""
    from resolver.dbus.objects import CALLS_BY_SENDER

    async def test() -> None:
        async with World(bus, tmp_path) as world, client(bus) as waiting, client(bus) as caller:
            await world.register("hangs")
            calls = [asyncio.create_task(waiting.call("GetMachineOSRelease", "s", "hangs"))
                     for _ in range(CALLS_BY_SENDER + 1)]
            done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED, timeout=10)
            with pytest.raises(Failed) as failed:
                await done.pop()
            assert failed.value.name == "DBus.Error.LimitsExceeded"
            assert await caller.call("GetMachine", "s", "hangs")
            # What needs no waiting is answered on that connection, too.
            assert await waiting.call("GetMachine", "s", "hangs")
            world.hang.set()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert results.count({"ID": "debian"}) == CALLS_BY_SENDER
            assert await waiting.call("GetMachineOSRelease", "s", "hangs")

    run(test())


def test_what_needs_no_reply_is_done(bus: Bus, tmp_path: Path) -> None:
    from dbus_fast import Message, MessageFlag

    async def test() -> None:
        async with World(bus, tmp_path) as world, client(bus) as caller:
            await world.register("web")
            await caller.match("interface='org.freedesktop.machine1.Manager'")
            for member, signature, body in (("GetMachine", "s", ["web"]), ("NoSuch", "", []),
                                            ("UnregisterMachine", "s", ["web"])):
                await caller.bus.send(Message("org.freedesktop.machine1", MANAGER, "org.freedesktop.machine1.Manager",
                                              member, flags=MessageFlag.NO_REPLY_EXPECTED, signature=signature,
                                              body=body))
            assert (await caller.next_signal())[0] == "MachineRemoved"

    run(test())


def test_another_user_may_look_and_not_change(bus: Bus, tmp_path: Path) -> None:
    service = ("org.freedesktop.machine1", MANAGER, "org.freedesktop.machine1.Manager")

    async def test() -> None:
        async with World(bus, tmp_path) as world:
            await world.register("web")
            machine = world.manager.find("web", None).machine
            world.registry.update(replace(machine, ssh_address="vsock/1", ssh_private_key_path="/run/key"))

            async def say(*arguments: str) -> Any:
                return await asyncio.to_thread(bus.busctl, *arguments, uid=65534)

            for arguments in (["GetMachine", "s", "web"], ["ListMachines"]):
                looked = await say("call", *service, *arguments)
                assert looked.returncode == 0, looked.stderr
            for arguments in (["KillMachine", "ssi", "web", "leader", "9"], ["TerminateMachine", "s", "web"],
                              ["UnregisterMachine", "s", "web"], ["GetMachineSSHInfo", "s", "web"],
                              ["OpenMachineRootDirectory", "s", "web"], ["OpenMachineRootDirectory", "s", ".host"],
                              *([f"OpenMachine{what}", "s", name] for what in ("PTY", "Login")
                                for name in ("web", ".host")),
                              ["OpenMachineShell", "sssasas", "web", "", "", "0", "0"],
                              ["OpenMachineShell", "sssasas", ".host", "", "", "0", "0"],
                              ["BindMountMachine", "sssbb", "web", "/etc", "/mnt", "false", "false"],
                              *([f"Copy{way}Machine", "sss", "web", "/etc/hosts", str(tmp_path / "copy")]
                                for way in ("From", "To")),
                              ["RegisterMachine", "sayssus", "new", "0", "", "container", str(world.leader()), ""]):
                changed = await say("call", *service, *arguments)
                # busctl says it in these words where the bus's policy does, and in ours where the daemon does.
                assert any(words in changed.stderr for words in (
                    "Access denied", "only root may", "polkit", "is told to")), (arguments, changed.stderr)
            shown = await say("introspect", "org.freedesktop.machine1", f"{MACHINES}/web")
            assert ".SSHAddress" in shown.stdout
            assert "/run/key" not in shown.stdout
            assert [entry.machine.name for entry in world.registry] == ["web"]

    run(test())


@pytest.mark.parametrize("name", ["web", ".host"])
def test_a_root_directory_is_given(bus: Bus, tmp_path: Path, name: str) -> None:
    async def test() -> None:
        async with World(bus, tmp_path) as world, client(bus) as caller:
            await world.register("web")
            reply = await caller.bus.call(Message(NAME, MANAGER, MANAGER_INTERFACE, "OpenMachineRootDirectory",
                                                  signature="s", body=[name]))
            assert (reply.body, len(reply.unix_fds)) == ([0], 1)
            [root] = reply.unix_fds
            try:
                assert os.path.samestat(os.fstat(root), os.stat("/"))
                assert "etc" in os.listdir(root)
                os.close(os.open("etc", os.O_RDONLY | os.O_DIRECTORY, dir_fd=root))
            finally:
                os.close(root)

    run(test())


def test_the_caller_is_the_leader_where_none_is_named(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        async with World(bus, tmp_path) as world:
            # Its own connection, so that the bus sees its process: it prints its number and waits to be killed.
            called = await asyncio.create_subprocess_exec(
                "sh", "-c", f"exec busctl --address={bus.address} --timeout=60 call org.freedesktop.machine1 {MANAGER} "
                "org.freedesktop.machine1.Manager RegisterMachine sayssus web 0 test container 0 ''",
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
            out, err = await asyncio.wait_for(called.communicate(), 20)
            assert out.decode().strip() == f'o "{MACHINES}/web"', err
            # busctl has ended, and with it the machine whose leader it was.
            await until(lambda: not len(world.registry))

    run(test())


@pytest.mark.parametrize("path", [MANAGER, f"{MACHINES}/web"])
def test_a_copy_is_given_up_when_its_caller_leaves(bus: Bus, tmp_path: Path, path: str) -> None:
    """A gigabyte takes longer than that; nothing is left of it."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for number in range(3000):
        (source / str(number)).write_text("x")

    async def test() -> None:
        async with World(bus, tmp_path) as world:
            await world.register("web")
            async with client(bus) as caller:
                name, arguments = ("CopyTo", ()) if path != MANAGER else ("CopyToMachine", ("web",))
                interface = MACHINE_INTERFACE if path != MANAGER else MANAGER_INTERFACE
                await caller.bus.send(Message(NAME, path, interface, name, signature="s" * (len(arguments) + 2),
                                              body=[*arguments, str(source), str(target / "copy")]))
                await until(lambda: any(target.iterdir()))
            await until(lambda: not any(target.iterdir()))

    run(test())
