# SPDX-License-Identifier: MIT
"""resolver.units.Units by org.freedesktop.systemd1 (org.freedesktop.systemd1(5))."""

import asyncio
from collections.abc import Mapping, Sequence

from dbus_fast import Message, Variant

from resolver.core.errors import (
    AccessDenied,
    InvalidArgument,
    MachineError,
    MachineExists,
    NotAvailable,
    NotSupported,
)
from resolver.dbus.connection import BUS, DISCONNECTED, BusError, Connection
from resolver.units import UnitProperty

SYSTEMD = "org.freedesktop.systemd1"
PATH = "/org/freedesktop/systemd1"
MANAGER = f"{SYSTEMD}.Manager"

JOB_SECONDS = 30.0
"""For a scope to start. There is no program to wait for: it takes milliseconds, and seconds while systemd reloads."""

TASKS_MAX = 16384
"""Of a machine whose registrant says nothing else: what machined gives."""

_NO_SYSTEMD = (DISCONNECTED, f"{BUS}.Error.ServiceUnknown", f"{BUS}.Error.NameHasNoOwner")

_ERRORS: Mapping[str, type[MachineError]] = {
    **dict.fromkeys(_NO_SYSTEMD, NotSupported),
    # A unit that systemd does not know, as in a container whose control groups are its own affair: the machine's
    # processes are there all the same, and the manager signals them itself.
    f"{SYSTEMD}.NoSuchUnit": NotSupported,
    f"{SYSTEMD}.UnitExists": MachineExists,
    f"{BUS}.Error.AccessDenied": AccessDenied,
}
"""All others mean that systemd could not do it now: NotAvailable."""

_UNKNOWN_PROPERTY = f"{BUS}.Error.PropertyReadOnly"  # what systemd says of a property that it does not know
_REFUSED_PROPERTY = (_UNKNOWN_PROPERTY, f"{BUS}.Error.InvalidArgs", "System.Error.EINVAL",
                     "System.Error.ENXIO", "System.Error.EBADMSG")
"""Unknown, of a value that it cannot have; the last two: of another type, in 257 and before."""

_NO_PROCESS = f"{BUS}.Error.UnixProcessIdUnknown"


class Systemd:
    """The service manager on the other end of the bus, if there is one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def start_scope(self, name: str, pid: int, description: str, properties: Sequence[UnitProperty],
                          pidfd: int | None = None) -> None:
        """See Units. With `pidfd` the process cannot be another one by then, where systemd knows that (254)."""
        try:
            owner = await self._connection.owner_of(SYSTEMD)
        except BusError as error:
            raise _translated(error) from None
        finished: asyncio.Queue[Message] = asyncio.Queue()
        with self._connection.signals(owner, PATH, MANAGER, "JobRemoved", finished.put_nowait):
            job = await self._start(name, pid, description, properties, pidfd)
            try:
                async with asyncio.timeout(JOB_SECONDS):
                    result = await _job_result(finished, job)
            except TimeoutError:
                raise NotAvailable(f"systemd has not started {name} in {JOB_SECONDS:g} s") from None
        if result != "done":
            raise NotAvailable(f"systemd could not start {name}: {result}")

    async def stop(self, unit: str) -> None:
        try:
            # "fail", as machined says it: a job that is under way for the unit is not thrown away.
            await self._connection.call(SYSTEMD, PATH, MANAGER, "StopUnit", "ss", [unit, "fail"])
        except BusError as error:
            raise _translated(error) from None

    async def _start(self, name: str, pid: int, description: str, properties: Sequence[UnitProperty],
                     pidfd: int | None) -> str:
        by_number = UnitProperty("PIDs", "au", [pid])
        by_descriptor = UnitProperty("PIDFDs", "ah", [0])
        try:
            if pidfd is not None:
                try:
                    return await self._call(name, description, by_descriptor, properties, [pidfd])
                except BusError as error:
                    if error.name != _UNKNOWN_PROPERTY or "PIDFDs" not in str(error):
                        raise
            return await self._call(name, description, by_number, properties, [])
        except BusError as error:
            if error.name in _REFUSED_PROPERTY:
                raise InvalidArgument("scope_properties", str(error)) from None
            if error.name == _NO_PROCESS:
                raise InvalidArgument("leader", str(error)) from None
            raise _translated(error) from None

    async def _call(self, name: str, description: str, process: UnitProperty, properties: Sequence[UnitProperty],
                    descriptors: list[int]) -> str:
        # Those that the registrant gives come last, and win. No AddRef, which machined sets to read the unit's end:
        # the leader's pidfd tells that here, and a unit that is held would keep its name from the next machine.
        chosen = [UnitProperty("Slice", "s", "machine.slice"), UnitProperty("Description", "s", description), process,
                  UnitProperty("Delegate", "b", True), UnitProperty("CollectMode", "s", "inactive-or-failed"),
                  UnitProperty("TasksMax", "t", TASKS_MAX), *properties]
        reply = await self._connection.call(
            SYSTEMD, PATH, MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))",
            [name, "fail", [[item.name, Variant(item.signature, item.value)] for item in chosen], []], descriptors)
        return str(reply.body[0])


async def _job_result(finished: "asyncio.Queue[Message]", job: str) -> str:
    # JobRemoved(u id, o job, s unit, s result). It may have come before the reply that told of the job.
    while True:
        message = await finished.get()
        if message.signature == "uoss" and message.body[1] == job:
            return str(message.body[3])


def _translated(error: BusError) -> MachineError:
    if error.name in _NO_SYSTEMD:
        return NotSupported("units are systemd's, which does not run here")
    return _ERRORS.get(error.name, NotAvailable)(f"systemd says: {error}")
