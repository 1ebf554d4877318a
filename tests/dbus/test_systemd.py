# SPDX-License-Identifier: MIT
"""Asking systemd for units, which is a mock here: it answers what the test says. tests/host has the real one."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from dbus_fast import Message
from dbus_fast.aio import MessageBus

from resolver.core.errors import InvalidArgument, MachineError, MachineExists, NotAvailable, NotSupported
from resolver.dbus import systemd
from resolver.dbus.connection import Connection
from resolver.dbus.systemd import MANAGER, PATH, SYSTEMD, Systemd
from resolver.units import UnitProperty
from tests.dbus.bus import Bus
from tests.dbus.world import Failed, World, client, connected, mock_service, run, variant

JOB = "/org/freedesktop/systemd1/job/7"
NO_PIDFDS = "Cannot set property PIDFDs, or unknown property."


def job_removed(job: str, result: str) -> Message:
    return Message.new_signal(PATH, MANAGER, "JobRemoved", "uoss", [7, job, "machine-web.scope", result])


def pid_of(pidfd: int) -> int:
    lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))


class MockSystemd:
    """Starts scopes by saying so; what it was asked for is in `asked`."""

    def __init__(self, result: str | None = "done", error: tuple[str, str] | None = None, knows_pidfds: bool = True,
                 early: bool = False) -> None:
        self.asked: list[tuple[str, list[Any], dict[str, Any]]] = []
        self.connection: MessageBus | None = None
        self._result = result
        self._error = error
        self._knows_pidfds = knows_pidfds
        self._early = early

    async def __call__(self, message: Message) -> Message | None:
        assert self.connection is not None
        properties = {name: value.value for name, value in message.body[2]} if len(message.body) > 2 else {}
        for index in properties.get("PIDFDs", []):
            properties["pids"] = [pid_of(message.unix_fds[index])]
        for descriptor in message.unix_fds:
            os.close(descriptor)
        self.asked.append((message.member or "", message.body, properties))
        if self._error is not None:
            return Message.new_error(message, *self._error)
        if "PIDFDs" in properties and not self._knows_pidfds:
            return Message.new_error(message, "org.freedesktop.DBus.Error.PropertyReadOnly", NO_PIDFDS)
        reply = Message.new_method_return(message, "o", [JOB])
        end = [job_removed("/org/freedesktop/systemd1/job/6", "failed")]
        if self._result is not None and message.member == "StartTransientUnit":
            end.append(job_removed(JOB, self._result))
        for each in [*end, reply] if self._early else [reply, *end]:
            await self.connection.send(each)
        return None


@pytest.fixture
def leader() -> Iterator[int]:
    process = subprocess.Popen(["sleep", "60"])
    yield process.pid
    process.kill()
    process.wait()


@asynccontextmanager
async def units(bus: Bus, mock: MockSystemd | None) -> AsyncIterator[Systemd]:
    connection = Connection("org.freedesktop.machine1", bus.address)
    await connection.start()
    try:
        if mock is None:
            yield Systemd(connection)
        else:
            async with mock_service(bus, SYSTEMD, mock) as mock.connection:
                yield Systemd(connection)
    finally:
        await connection.close()


@pytest.mark.parametrize("early", [False, True])
def test_a_scope_starts_with_what_machined_gives_it(bus: Bus, leader: int, early: bool) -> None:
    async def test() -> None:
        mock = MockSystemd(early=early)
        async with units(bus, mock) as systemd_units:
            await systemd_units.start_scope("machine-web.scope", leader, "Container web",
                                            [UnitProperty("TasksMax", "t", 5), UnitProperty("IPAddressDeny", "a(iayu)",
                                                                                            [[2, b"\0\0\0\0", 0]])])
        ((member, body, properties),) = mock.asked
        assert (member, body[:2], body[3]) == ("StartTransientUnit", ["machine-web.scope", "fail"], [])
        assert properties == {
            "Slice": "machine.slice", "Description": "Container web", "PIDs": [leader], "Delegate": True,
            "CollectMode": "inactive-or-failed", "TasksMax": 5, "IPAddressDeny": [(2, b"\0\0\0\0", 0)]}
        names = [name for name, _ in body[2]]
        assert names.count("TasksMax") == 2  # systemd takes them in their order: the caller's is the last

    run(test())


@pytest.mark.parametrize("knows", [True, False])
def test_a_process_is_named_by_its_pidfd_where_systemd_knows_that(bus: Bus, leader: int, knows: bool) -> None:
    async def test() -> None:
        mock = MockSystemd(knows_pidfds=knows)
        pidfd = os.pidfd_open(leader)
        try:
            async with units(bus, mock) as systemd_units:
                await systemd_units.start_scope("machine-web.scope", leader, "Container web", [
                    UnitProperty("TasksMax", "t", 5)], pidfd)
        finally:
            os.close(pidfd)
        assert mock.asked[0][2]["pids"] == [leader]
        if knows:
            assert "PIDs" not in mock.asked[0][2]
        else:
            # The caller's properties are there the second time, too.
            assert mock.asked[1][2]["PIDs"] == [leader]
            assert mock.asked[1][2]["TasksMax"] == 5
        assert len(mock.asked) == (1 if knows else 2)

    run(test())


@pytest.mark.parametrize(("error", "meaning"), [
    (("org.freedesktop.systemd1.UnitExists", "Unit machine-web.scope already exists."), MachineExists),
    (("org.freedesktop.DBus.Error.PropertyReadOnly", "Cannot set property Nome, or unknown property."),
     InvalidArgument),
    (("org.freedesktop.DBus.Error.InvalidArgs", "Expected t"), InvalidArgument),
    (("System.Error.ENXIO", "Unexpected message contents"), InvalidArgument),
    (("org.freedesktop.DBus.Error.UnixProcessIdUnknown", "No such process"), InvalidArgument),
    (("org.freedesktop.DBus.Error.NoMemory", "No memory"), NotAvailable),
])
def test_a_scope_that_is_refused(bus: Bus, leader: int, error: tuple[str, str], meaning: type[MachineError]) -> None:
    async def test() -> None:
        async with units(bus, MockSystemd(error=error)) as systemd_units:
            with pytest.raises(meaning, match=error[1]):
                await systemd_units.start_scope("machine-web.scope", leader, "", [])

    run(test())


def test_a_scope_that_does_not_start(bus: Bus, leader: int) -> None:
    async def test() -> None:
        async with units(bus, MockSystemd("failed")) as systemd_units:
            with pytest.raises(NotAvailable, match="failed"):
                await systemd_units.start_scope("machine-web.scope", leader, "", [])

    run(test())


def test_a_job_that_never_ends(bus: Bus, leader: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "JOB_SECONDS", 0.3)

    async def test() -> None:
        async with units(bus, MockSystemd(None)) as systemd_units:
            with pytest.raises(NotAvailable, match=r"0\.3 s"):
                await systemd_units.start_scope("machine-web.scope", leader, "", [])

    run(test())


def test_a_signal_that_is_not_systemds_ends_no_job(bus: Bus, leader: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "JOB_SECONDS", 1.0)

    async def test() -> None:
        mock = MockSystemd(None)
        async with units(bus, mock) as systemd_units, connected(bus.address) as liar:
            starting = asyncio.create_task(systemd_units.start_scope("machine-web.scope", leader, "", []))
            while not starting.done():
                # To everybody, and to us alone, which no match rule keeps away.
                for destination in (None, "org.freedesktop.machine1"):
                    lie = job_removed(JOB, "done")
                    lie.destination = destination
                    await liar.send(lie)
                await asyncio.sleep(0.02)
            with pytest.raises(NotAvailable):
                await starting

    run(test())


def test_a_unit_is_stopped(bus: Bus) -> None:
    async def test() -> None:
        mock = MockSystemd()
        async with units(bus, mock) as systemd_units:
            await systemd_units.stop("machine-web.scope")
        assert mock.asked == [("StopUnit", ["machine-web.scope", "fail"], {})]

    run(test())


@pytest.mark.parametrize(("error", "meaning"), [
    (("org.freedesktop.systemd1.NoSuchUnit", "Unit machine-web.scope not loaded."), NotSupported),
    (("org.freedesktop.systemd1.TransactionIsDestructive", "Destructive"), NotAvailable),
])
def test_a_unit_that_is_not_stopped(bus: Bus, error: tuple[str, str], meaning: type[MachineError]) -> None:
    async def test() -> None:
        async with units(bus, MockSystemd(error=error)) as systemd_units:
            with pytest.raises(meaning, match=error[1]):
                await systemd_units.stop("machine-web.scope")

    run(test())


def test_without_systemd_units_are_not_supported(bus: Bus, leader: int) -> None:
    async def test() -> None:
        async with units(bus, None) as systemd_units:
            with pytest.raises(NotSupported):
                await systemd_units.start_scope("machine-web.scope", leader, "", [])
            with pytest.raises(NotSupported):
                await systemd_units.stop("machine-web.scope")

    run(test())


def test_without_a_bus_units_are_not_supported(no_bus: Bus, leader: int) -> None:
    async def test() -> None:
        async with units(no_bus, None) as systemd_units:
            with pytest.raises(NotSupported):
                await systemd_units.start_scope("machine-web.scope", leader, "", [])
            with pytest.raises(NotSupported):
                await systemd_units.stop("machine-web.scope")

    run(test())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_machine_is_created_in_its_scope(bus: Bus, tmp_path: Path) -> None:
    """As libvirt and LXC do it."""
    async def test() -> None:
        mock = MockSystemd()
        async with World(bus, tmp_path) as world, client(bus) as caller, \
                mock_service(bus, SYSTEMD, mock) as mock.connection:
            leader = world.leader()
            path = await caller.call(
                "CreateMachineWithNetwork", "sayssusaia(sv)", "q-1", bytes(range(16)), "libvirt-qemu", "vm", leader,
                "", [4], [("Slice", variant("s", "machine.slice")), ("Before", variant("as", ["libvirtd.service"]))])
            assert await caller.get(path, "Class") == "vm"
            ((_, body, properties),) = mock.asked
            assert body[0] == r"machine-q\x2d1.scope"
            assert properties["Before"] == ["libvirtd.service"]
            assert properties["Description"] == "Virtual Machine q-1"
            assert properties.get("pids", properties.get("PIDs")) == [leader]

    run(test())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_machine_whose_scope_is_refused_is_not_there(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        mock = MockSystemd(error=("org.freedesktop.DBus.Error.PropertyReadOnly", "unknown property."))
        async with World(bus, tmp_path) as world, client(bus) as caller, \
                mock_service(bus, SYSTEMD, mock) as mock.connection:
            with pytest.raises(Failed) as failed:
                await caller.call("CreateMachine", "sayssusa(sv)", "web", b"", "", "container", world.leader(), "",
                                  [("Nome", variant("s", "x"))])
            assert failed.value.name == "DBus.Error.InvalidArgs"
            assert len(world.registry) == 0

    run(test())
