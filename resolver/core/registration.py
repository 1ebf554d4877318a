# SPDX-License-Identifier: MIT
"""What a container manager says when it registers a machine, before any of it is believed."""

from dataclasses import dataclass

from resolver.core.errors import InvalidArgument
from resolver.core.machine import MachineClass, ProcessId

SERVICE_MAX = 255
"""Characters of the registering service's name: what a file name holds, it is kept in a line of its own."""

PATH_MAX = 4096
"""Octets of a path, its final zero included (linux/limits.h)."""

INTERFACES_MAX = 128
"""Host-side interfaces of one machine; systemd-nspawn gives a handful."""

VSOCK_CID_FIRST = 3
"""0 to 2 mean hypervisor, local and host (vsock(7))."""
VSOCK_CID_ANY = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Registration:
    """A request to register. Without `leader` the caller is the leader."""

    name: str
    machine_class: MachineClass
    leader: ProcessId | None = None
    service: str = ""
    id: bytes | None = None
    root_directory: str = ""
    network_interfaces: tuple[int, ...] = ()
    vsock_cid: int | None = None
    ssh_address: str = ""
    ssh_private_key_path: str = ""
    control_address: str = ""

    def check(self) -> None:
        """InvalidArgument where a value can never be right. The name is checked with the host's own, elsewhere."""
        if self.machine_class is MachineClass.HOST:
            raise InvalidArgument("class", "host is this host's own and cannot be registered")
        if self.leader is not None and self.leader.pid <= 1:
            raise InvalidArgument("leader", f"process {self.leader.pid} can be no machine's leader")
        if len(self.service) > SERVICE_MAX or not self.service.isprintable():
            raise InvalidArgument("service", f"is more than {SERVICE_MAX} characters, or not printable")
        if self.id is not None and len(self.id) != 16:
            raise InvalidArgument("id", "is no 128 bit id")
        _check_path("rootDirectory", self.root_directory)
        _check_path("sshPrivateKeyPath", self.ssh_private_key_path)
        for field, address in (("sshAddress", self.ssh_address), ("controlAddress", self.control_address)):
            if not address.isprintable() or len(address) > SERVICE_MAX:
                raise InvalidArgument(field, f"is more than {SERVICE_MAX} characters, or not printable")
        if len(self.network_interfaces) > INTERFACES_MAX:
            raise InvalidArgument("ifIndices", f"are more than {INTERFACES_MAX}")
        if not all(0 < index < 2**31 for index in self.network_interfaces):
            raise InvalidArgument("ifIndices", "hold a number that is no interface's")
        if self.vsock_cid is not None and not VSOCK_CID_FIRST <= self.vsock_cid < VSOCK_CID_ANY:
            raise InvalidArgument("vSockCid", f"{self.vsock_cid} is no guest's")


def _check_path(field: str, path: str) -> None:
    if not path:
        return
    # A lone surrogate, which JSON can spell, is no character of any path.
    if not path.startswith("/") or "\0" in path or len(path.encode(errors="replace")) >= PATH_MAX or any(
            "\ud800" <= character <= "\udfff" for character in path):
        raise InvalidArgument(field, f"is no absolute path of less than {PATH_MAX} octets")
    if ".." in path.split("/"):
        raise InvalidArgument(field, "leads through '..'")
