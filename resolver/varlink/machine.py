# SPDX-License-Identifier: MIT
"""io.systemd.Machine: requests as dicts in, the manager's answers as dicts out."""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from resolver.authority import Subject
from resolver.core.errors import (
    InvalidArgument,
    NoOSRelease,
    NoPrivateNetworking,
    NoSuchMachine,
    NotAvailable,
    NotSupported,
    NoUIDShift,
)
from resolver.core.idmap import HOST_ID_FIRST, ID_LAST, IdMap
from resolver.core.machine import Machine, MachineClass, ProcessId
from resolver.core.registration import Registration
from resolver.core.users import IdAnswer
from resolver.entering import Entering
from resolver.guest.metadata import GuestFiles, addresses_of, uid_shift_of
from resolver.manager import Manager
from resolver.varlink.at_once import as_they_come
from resolver.varlink.call import Call, Reply
from resolver.varlink.errors import VarlinkError, expected_more
from resolver.varlink.interface import Interface, load_interface
from resolver.varlink.service import ends_with_caller

NAME = "io.systemd.Machine"

ASKED_AT_ONCE = 32
"""Machines of one List whose metadata is acquired at the same time: who hangs delays himself, and these few at most."""

_MISSING = (NoPrivateNetworking, NoOSRelease, NoUIDShift, NotAvailable, NotSupported)
"""What `graceful` leaves out."""

_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class MachineInterface:
    """The methods, by their names in the interface."""

    def __init__(self, manager: Manager, entering: Entering) -> None:
        self._manager = manager
        self._entering = entering

    async def do_register(self, call: Call) -> dict[str, Any]:
        """Answered when every reader can see the machine."""
        fields = call.parameters
        request = Registration(
            name=fields["name"],
            machine_class=_class(fields["class"]),
            leader=_leader(fields),
            service=fields.get("service") or "",
            id=_id(fields.get("id")),
            root_directory=fields.get("rootDirectory") or "",
            network_interfaces=tuple(fields.get("ifIndices") or ()),
            vsock_cid=fields.get("vSockCid"),
            ssh_address=fields.get("sshAddress") or "",
            ssh_private_key_path=fields.get("sshPrivateKeyPath") or "",
            control_address=fields.get("controlAddress") or "",
        )
        if fields.get("allocateUnit"):
            await self._manager.create(request, (), _subject(call))
        else:
            await self._manager.register(request, _subject(call))
        return {}

    async def do_unregister(self, call: Call) -> dict[str, Any]:
        await self._manager.unregister(*_which(call), _subject(call))
        return {}

    async def do_terminate(self, call: Call) -> dict[str, Any]:
        await self._manager.terminate(*_which(call), _subject(call))
        return {}

    async def do_kill(self, call: Call) -> dict[str, Any]:
        await self._manager.kill(*_which(call), call.parameters.get("whom"), call.parameters["signal"],
                                 _subject(call))
        return {}

    async def do_list(self, call: Call) -> AsyncIterator[dict[str, Any]]:
        """One machine by name or pid; with neither, every machine, for which the caller must say more."""
        name, process = _which(call)
        if name is not None or process is not None:
            yield await self._fields(self._manager.find(name, process).machine, call)
        elif call.more:
            # A copy: machines come and go while replies are sent. With .host there is always one.
            machines = [entry.machine for entry in (self._manager.host, *self._manager.registry)]
            async for fields in self._all_fields(machines, call):
                yield fields
        else:
            raise expected_more()

    async def do_map_from(self, call: Call) -> dict[str, Any]:
        """Ids of the host for ids inside a container."""
        uid, gid = _ids(call)
        machine = self._manager.find(*_which(call)).machine
        if machine.machine_class is not MachineClass.CONTAINER:
            raise NotSupported("ids are mapped for containers alone")
        return _present({"uid": _from(machine.uid_map, uid, "NoSuchUser"),
                         "gid": _from(machine.gid_map, gid, "NoSuchGroup")})

    async def do_map_to(self, call: Call) -> dict[str, Any]:
        """The container that has these ids of the host, and which they are inside."""
        uid, gid = _ids(call)
        registry = self._manager.registry
        user = _to(registry.user_by_id, uid, "UserInHostRange", "NoSuchUser")
        group = _to(registry.group_by_id, gid, "GroupInHostRange", "NoSuchGroup")
        if user is not None and group is not None and user.machine != group.machine:
            raise NoSuchMachine(f"uid {uid} is of {user.machine}, gid {gid} of {group.machine}")
        found = user or group
        return _present({"uid": user and user.inside_id, "gid": group and group.inside_id,
                         "machineName": found and found.machine})

    async def do_open(self, call: Call) -> Reply:
        """A terminal; its descriptor goes with the reply."""
        fields, subject = call.parameters, _subject(call)
        entry = self._manager.find(*_which(call))
        mode = fields["mode"]
        if fields.get("user") == "":
            raise InvalidArgument("user", "is empty")
        if mode == "shell":
            terminal = await self._entering.open_shell(
                entry, fields.get("user") or "", fields.get("path") or "", fields.get("args") or (),
                fields.get("environment") or (), subject)
        else:
            for field in ("user", "path", "args", "environment"):
                if fields.get(field):
                    raise InvalidArgument(field, "is for shells")
            open_ = self._entering.open_login if mode == "login" else self._entering.open_pty
            terminal = await open_(entry, subject)
        return Reply({"ptyFileDescriptor": 0, "ptyPath": terminal.path}, (terminal.descriptor,))

    async def do_open_root_directory(self, call: Call) -> Reply:
        """The descriptor goes with the reply."""
        entry = self._manager.find(*_which(call))
        return Reply({"fileDescriptor": 0}, (await self._entering.open_root_directory(entry, _subject(call)),))

    async def do_bind_mount(self, call: Call) -> dict[str, Any]:
        fields = call.parameters
        await self._entering.bind_mount(
            self._manager.find(*_which(call)), fields["source"], fields.get("destination") or "",
            read_only=bool(fields.get("readOnly")), make=bool(fields.get("mkdir")), subject=_subject(call))
        return {}

    @ends_with_caller
    async def do_copy_from(self, call: Call) -> dict[str, Any]:
        fields = call.parameters
        await self._entering.copy_from(
            self._manager.find(*_which(call)), fields["source"], fields.get("destination") or "",
            replace=bool(fields.get("replace")), subject=_subject(call))
        return {}

    @ends_with_caller
    async def do_copy_to(self, call: Call) -> dict[str, Any]:
        fields = call.parameters
        await self._entering.copy_to(
            self._manager.find(*_which(call)), fields["source"], fields.get("destination") or "",
            replace=bool(fields.get("replace")), subject=_subject(call))
        return {}

    async def _all_fields(self, machines: Sequence[Machine], call: Call) -> AsyncIterator[dict[str, Any]]:
        """Where metadata is acquired: of ASKED_AT_ONCE at a time, first told who answers first."""
        if _wanted_metadata(call) == "no":
            for machine in machines:
                yield await self._fields(machine, call)
            return
        # Who has ended meanwhile is left out.
        async for fields in as_they_come(machines, lambda machine: self._fields(machine, call), ASKED_AT_ONCE,
                                         (NoSuchMachine,)):
            yield fields

    async def _fields(self, machine: Machine, call: Call) -> dict[str, Any]:
        """The machine as List gives it to this caller."""
        metadata = _wanted_metadata(call)
        if metadata != "no":
            machine = await self._manager.settled(machine)
        fields = machine_fields(machine, key_path=call.caller.uid in (0, machine.owner))
        if metadata == "no":
            return fields
        if machine.machine_class is MachineClass.VM and metadata == "yes":
            raise NotAvailable("a virtual machine does not tell")
        for name, acquire in _METADATA.items():
            try:
                value = await acquire(self._manager.guest, machine)
            except _MISSING:
                if metadata == "yes":
                    raise
            else:
                if value is not None:
                    fields[name] = value
        return fields


def machine_interface() -> Interface:
    """The interface. A process may be given by its number alone, as libsystemd's services take it too."""
    takes_process = ("Unregister", "Terminate", "Kill", "List", "MapFrom", "Open", "OpenRootDirectory",
                     "BindMount", "CopyFrom", "CopyTo")
    return load_interface(NAME, normalize={
        **{method: _number_to_process("pid") for method in takes_process},
        "Register": _number_to_process("leaderProcessId")})


def _number_to_process(field: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def normalize(parameters: dict[str, Any]) -> dict[str, Any]:
        number = parameters.get(field)
        # To Python True is a number as well; to JSON it is none.
        is_number = isinstance(number, int) and not isinstance(number, bool)
        return {**parameters, field: {"pid": number}} if is_number else parameters

    return normalize


def machine_fields(machine: Machine, key_path: bool) -> dict[str, Any]:
    """What is known of a machine. `key_path`: with the path of the ssh key, for root and the owner alone."""
    leader = machine.leader
    return _present({
        "name": machine.name,
        "class": machine.machine_class.value,
        "id": machine.id.hex() if machine.id else None,
        "service": machine.service or None,
        "leader": _present({"pid": leader.pid, "pidfdId": leader.pidfd_id, "bootId": leader.boot_id}),
        "rootDirectory": machine.root_directory or None,
        "unit": machine.unit or None,
        "timestamp": {"realtime": machine.realtime, "monotonic": machine.monotonic},
        "vSockCid": machine.vsock_cid,
        "sshAddress": machine.ssh_address or None,
        "sshPrivateKeyPath": machine.ssh_private_key_path or None if key_path else None,
        "controlAddress": machine.control_address or None,
    })


async def _addresses(_guest: GuestFiles, machine: Machine) -> list[dict[str, Any]] | None:
    return [{"ifindex": address.ifindex, "family": address.family, "address": list(address.packed)}
            for address in addresses_of(machine)] or None


async def _os_release(guest: GuestFiles, machine: Machine) -> list[str] | None:
    return [f"{key}={value}" for key, value in (await guest.os_release_of(machine)).items()] or None


async def _uid_shift(_guest: GuestFiles, machine: Machine) -> int:
    return uid_shift_of(machine)


_METADATA: Mapping[str, Callable[[GuestFiles, Machine], Any]] = {
    "addresses": _addresses, "OSRelease": _os_release, "UIDShift": _uid_shift}
"""In systemd-machined's order, for the first that cannot be had is the error."""


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _class(text: str) -> MachineClass:
    try:
        return MachineClass(text)
    except ValueError:
        raise InvalidArgument("class", f"{text!r} is none of container, vm") from None


def _id(text: str | None) -> bytes | None:
    if not text:
        return None
    if not _ID.fullmatch(text):
        raise InvalidArgument("id", "is no 128 bit id in hexadecimal digits")
    number = bytes.fromhex(text.replace("-", ""))
    return number if any(number) else None  # all zeros means that there is none (sd-id128(3), SD_ID128_NULL)


def _leader(fields: dict[str, Any]) -> ProcessId | None:
    by_id, pid = _process(fields.get("leaderProcessId")), fields.get("leader")
    if by_id is None:
        return None if pid is None else ProcessId(pid)
    if pid is not None and pid != by_id.pid:
        raise InvalidArgument("leader", f"{pid} is not the process of leaderProcessId")
    return by_id


def _process(fields: dict[str, Any] | None) -> ProcessId | None:
    if fields is None:
        return None
    boot_id = (fields.get("bootId") or "").replace("-", "").lower()
    return ProcessId(fields["pid"], fields.get("pidfdId"), boot_id=boot_id or None)


def _subject(call: Call) -> Subject:
    caller = call.caller
    assert caller is not None  # the server always says who
    return Subject(caller.uid, caller.pid, caller.pidfd,
                   interactive=bool(call.parameters.get("allowInteractiveAuthentication")))


def _wanted_metadata(call: Call) -> str:
    return call.parameters.get("acquireMetadata") or "no"


def _which(call: Call) -> tuple[str | None, ProcessId | None]:
    return call.parameters.get("name"), _process(call.parameters.get("pid"))


def _ids(call: Call) -> tuple[int | None, int | None]:
    uid, gid = call.parameters.get("uid"), call.parameters.get("gid")
    for field, number in (("uid", uid), ("gid", gid)):
        if number is not None and not 0 <= number <= ID_LAST:
            raise InvalidArgument(field, f"{number} is no id")
    if uid is None and gid is None:
        raise InvalidArgument("uid", "uid or gid must be given")
    return uid, gid


def _from(ids: IdMap, inside: int | None, missing: str) -> int | None:
    if inside is None:
        return None
    host = ids.to_host(inside)
    if host is None:
        raise VarlinkError(f"{NAME}.{missing}")
    return host


def _to(look_up: Callable[[int], IdAnswer | None], host: int | None, of_host: str, missing: str) -> IdAnswer | None:
    if host is None:
        return None
    if host < HOST_ID_FIRST:
        raise VarlinkError(f"{NAME}.{of_host}")
    answer = look_up(host)
    if answer is None:
        raise VarlinkError(f"{NAME}.{missing}")
    return answer
