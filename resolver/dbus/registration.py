# SPDX-License-Identifier: MIT
"""What a client of the bus says of a machine to register, as the core's values."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dbus_fast import Variant

from resolver.core.errors import InvalidArgument
from resolver.core.machine import MachineClass, ProcessId
from resolver.core.registration import Registration
from resolver.dbus.errors import invalid_args
from resolver.host.process import NoSuchProcess, Process
from resolver.units import UnitProperty

_PROPERTIES: Mapping[str, str] = {
    "Id": "ay", "Service": "s", "Class": "s", "LeaderPID": "u", "LeaderPIDFD": "h", "LeaderPIDFDID": "t",
    "RootDirectory": "s", "NetworkInterfaces": "ai", "VSockCID": "u", "SSHAddress": "s", "SSHPrivateKeyPath": "s",
}
"""Of RegisterMachineEx and CreateMachineEx (systemd 259), with their signatures."""


def from_arguments(name: str, machine_id: bytes, service: str, class_name: str, leader: int, root: str,
                   interfaces: Sequence[int] = ()) -> Registration:
    """The arguments of RegisterMachineWithNetwork. `leader` 0 is the caller."""
    return Registration(name=name, machine_class=_class(class_name), leader=ProcessId(leader) if leader else None,
                        service=service, id=_id(machine_id), root_directory=root, network_interfaces=tuple(interfaces))


def from_properties(name: str, properties: Sequence[tuple[str, Variant]],
                    descriptor: Callable[[int], int]) -> Registration:
    """The arguments of RegisterMachineEx. `descriptor` gives the one that a value of type h stands for."""
    said: dict[str, Any] = {}
    for key, value in properties:
        if _PROPERTIES.get(key) != value.signature:
            raise invalid_args(f"Property {key} of type {value.signature} is not known")
        if key in said:
            raise invalid_args(f"Property {key} is there twice")
        said[key] = value.value
    return Registration(
        name=name, machine_class=_class(said.get("Class", "")), leader=_leader(said, descriptor),
        service=said.get("Service", ""), id=_id(said.get("Id", b"")), root_directory=said.get("RootDirectory", ""),
        network_interfaces=tuple(said.get("NetworkInterfaces", ())), vsock_cid=said.get("VSockCID"),
        ssh_address=said.get("SSHAddress", ""), ssh_private_key_path=said.get("SSHPrivateKeyPath", ""))


def unit_properties(properties: Sequence[tuple[str, Variant]]) -> list[UnitProperty]:
    """A scope's properties, as the caller gave them."""
    return [UnitProperty(key, value.signature, value.value) for key, value in properties]


def _leader(said: Mapping[str, Any], descriptor: Callable[[int], int]) -> ProcessId | None:
    pid, pidfd_id = said.get("LeaderPID"), said.get("LeaderPIDFDID")
    if "LeaderPIDFD" not in said:
        if pid is None and pidfd_id is None:
            return None  # the caller
        if pid is None or not pidfd_id:
            raise invalid_args("LeaderPID and LeaderPIDFDID go together: a number alone may be another process's")
        return ProcessId(pid, pidfd_id)
    try:
        with Process.from_pidfd(os.dup(descriptor(said["LeaderPIDFD"]))) as process:
            leader = process.identity()
    except (NoSuchProcess, ValueError) as error:
        raise InvalidArgument("LeaderPIDFD", str(error)) from None
    if pid not in (None, leader.pid) or pidfd_id not in (None, leader.pidfd_id):
        raise invalid_args("LeaderPID or LeaderPIDFDID is not the process of LeaderPIDFD")
    return leader


def _class(text: str) -> MachineClass:
    if not text:
        return MachineClass.CONTAINER  # what no class means to machined
    try:
        return MachineClass(text)
    except ValueError:
        raise InvalidArgument("class", f"{text!r} is none of container, vm") from None


def _id(octets: bytes) -> bytes | None:
    # None, or zeros, mean that there is none (sd-id128(3), SD_ID128_NULL).
    return bytes(octets) if any(octets) or len(octets) not in (0, 16) else None
