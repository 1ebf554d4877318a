# SPDX-License-Identifier: MIT
"""What is told of a machine when asked for, whichever way the request comes: os-release, addresses, UID shift."""

import os

from resolver.core.errors import (
    MachineError,
    NoOSRelease,
    NoPrivateNetworking,
    NoSuchMachine,
    NotAvailable,
    NotSupported,
    NoUIDShift,
)
from resolver.core.machine import Address, Machine, MachineClass
from resolver.guest import read
from resolver.guest.os_release import parse_os_release
from resolver.guest.readers import Readers
from resolver.host.process import Namespace, NoSuchProcess, Process

_SCOPE_HOST = 254  # RT_SCOPE_HOST (rtnetlink(7)): loopback's own; it and RT_SCOPE_NOWHERE lead nowhere from outside


class GuestFiles:
    """Reads guests' files, for one event loop. To be closed."""

    def __init__(self) -> None:
        self._readers = Readers()

    def close(self) -> None:
        self._readers.close()

    async def os_release(self, process: Process) -> dict[str, str]:
        """The os-release of the guest whose leader this is.

        NoOSRelease where it has none; NotAvailable where it cannot be read, or not in readers.DEADLINE_SECONDS;
        NoSuchMachine where the leader has exited. The caller keeps the process until then.
        """
        try:
            answer = await self._readers.read(process)
        except NoSuchProcess:
            raise _gone(process) from None
        if process.exited():
            raise NoSuchMachine("its leader has just exited")
        return _parse(answer)

    async def os_release_of(self, machine: Machine) -> dict[str, str]:
        """The same for a machine; of .host, the host's own. NotSupported for a VM: its files are nobody's to read."""
        if machine.machine_class is MachineClass.HOST:
            return host_os_release()
        _only_of_containers(machine)
        with _leader(machine) as process:
            return await self.os_release(process)


def host_os_release() -> dict[str, str]:
    """The host's own. The same errors."""
    # Nobody but root lays out the host's files: they are read here, and quicker than anybody could be asked.
    return _parse(read.answer(os.getpid()))


def addresses_of(machine: Machine) -> tuple[Address, ...]:
    """Its addresses but for loopback's, by family, scope and interface. Those of the host itself are not told.

    NoPrivateNetworking where it has the host's network; NotSupported for a VM of which the host has seen none.
    """
    if machine.machine_class is MachineClass.HOST:
        return ()
    if machine.machine_class is not MachineClass.VM:
        with _leader(machine) as process:
            if _shares(process, "net"):
                raise NoPrivateNetworking(f"machine {machine.name} has the host's network")
    elif not machine.addresses:
        raise NotSupported("this virtual machine's addresses are not known")
    return tuple(sorted((address for address in machine.addresses if address.scope < _SCOPE_HOST),
                        key=lambda address: (address.family, address.scope, address.ifindex)))


def uid_shift_of(machine: Machine) -> int:
    """The host's uid of 0 inside; 0 where it has the host's ids. NoUIDShift where no one number says it all.

    It says it all where 65536 ids and more, users and groups alike, are moved by the same number. NotSupported for a
    VM.
    """
    if machine.machine_class is MachineClass.HOST:
        return 0
    _only_of_containers(machine)
    shift = machine.uid_map.shift()
    if shift is not None and shift == machine.gid_map.shift():
        return shift
    if not machine.uid_map and not machine.gid_map:
        with _leader(machine) as process:
            if _shares(process, "user"):
                return 0
    raise NoUIDShift(f"machine {machine.name} has more than one UID shift, or none yet")


def _parse(answer: bytes) -> dict[str, str]:
    kind, rest = answer[:1], answer[1:]
    if kind == b"0":
        raise NoOSRelease("there is no os-release file")
    if kind == b"!":
        raise NotAvailable(f"os-release cannot be read: {rest.decode(errors='replace')}")
    return parse_os_release(rest)


def _only_of_containers(machine: Machine) -> None:
    if machine.machine_class is not MachineClass.CONTAINER:
        raise NotSupported("this is told of containers alone")


def _leader(machine: Machine) -> Process:
    try:
        return Process.from_identity(machine.leader)
    except NoSuchProcess:
        raise NoSuchMachine("its leader has just exited") from None


def _shares(process: Process, kind: Namespace) -> bool:
    try:
        return process.shares_namespace(kind)
    except NoSuchProcess:
        raise _gone(process) from None


def _gone(process: Process) -> MachineError:
    """What it means that /proc/PID/ns or root is not there: the process has exited, or its first thread alone has."""
    if process.exited():
        return NoSuchMachine("its leader has just exited")
    return NotAvailable("its leader's first thread has exited, and with it the way to look")
