# SPDX-License-Identifier: MIT
"""io.systemd.Machine: requests as dicts in, the manager's answers as dicts out."""

import re
from collections.abc import AsyncIterator, Callable
from typing import Any

from resolver.authority import Subject
from resolver.core.errors import InvalidArgument, NoSuchMachine, NotSupported
from resolver.core.machine import Machine, MachineClass, ProcessId
from resolver.core.registration import Registration
from resolver.manager import Manager
from resolver.varlink.call import Call
from resolver.varlink.errors import expected_more
from resolver.varlink.interface import Interface, load_interface

NAME = "io.systemd.Machine"

_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class MachineInterface:
    """The methods, by their names in the interface."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    async def do_register(self, call: Call) -> dict[str, Any]:
        """Answered when every reader can see the machine."""
        fields = call.parameters
        if fields.get("allocateUnit"):
            raise NotSupported("units are allocated by systemd, which is not asked here")
        await self._manager.register(Registration(
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
        ), _subject(call))
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
        metadata = call.parameters.get("acquireMetadata") or "no"
        name, process = _which(call)
        if name is not None or process is not None:
            machines = [self._manager.find(name, process).machine]
        elif call.more:
            machines = [entry.machine for entry in self._manager.registry]
        else:
            raise expected_more()
        if metadata == "yes":
            # All that is asked for, or an error: and what the guest's os-release says is not read here yet.
            raise NotSupported("metadata is given with 'graceful' alone")
        if not machines:
            raise NoSuchMachine("no machine is registered")  # Varlink has no empty stream of replies
        uid = call.caller.uid
        for machine in machines:
            yield machine_fields(machine, key_path=uid in (0, machine.owner), metadata=metadata == "graceful")


def machine_interface() -> Interface:
    """The interface. A process may be given by its number alone, as libsystemd's services take it too."""
    takes_process = ("Unregister", "Terminate", "Kill", "List")
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


def machine_fields(machine: Machine, key_path: bool, metadata: bool) -> dict[str, Any]:
    """A machine as List gives it. `key_path`: with the path of the ssh key, for root and the owner alone."""
    leader = machine.leader
    fields: dict[str, Any] = {
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
    }
    if metadata:
        fields["addresses"] = [
            {"ifindex": a.ifindex, "family": a.family, "address": list(a.packed)} for a in machine.addresses] or None
        fields["UIDShift"] = machine.uid_map.shift()
    return _present(fields)


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


def _which(call: Call) -> tuple[str | None, ProcessId | None]:
    return call.parameters.get("name"), _process(call.parameters.get("pid"))
