# SPDX-License-Identifier: MIT
"""A machine, as it was registered and as it is known to be."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from resolver.core.idmap import IdMap


class MachineClass(StrEnum):
    """What org.freedesktop.machine1 calls Class. `host` is the host itself and cannot be registered."""

    CONTAINER = "container"
    VM = "vm"
    HOST = "host"

    @property
    def label(self) -> str:
        """As people read it."""
        return {"container": "Container", "vm": "Virtual Machine", "host": "Host"}[self.value]


class ProcessId(NamedTuple):
    """A process that cannot be taken for another one that got its number later.

    `pidfd_id` is the inode number of its pidfd (pidfs, Linux 6.9), else None. `start_time` stands in for it in older
    kernels: field 22 of /proc/PID/stat, in clock ticks since boot (proc_pid_stat(5)). It counts only together with
    `boot_id` (/proc/sys/kernel/random/boot_id, 32 hexadecimal digits).
    """

    pid: int
    pidfd_id: int | None = None
    start_time: int | None = None
    boot_id: str | None = None


class AddressSource(StrEnum):
    """Who says that an address is the machine's."""

    GUEST = "guest"
    """The interfaces inside, as their kernel lists them."""
    NEIGHBOUR = "neighbour"
    """The host's own neighbour table: it has talked to the machine there."""
    LEASE = "lease"
    """A DHCP server on this host."""


class Address(NamedTuple):
    """An address of a machine.

    `family` is AF_INET or AF_INET6 in Linux' numbers, `packed` 4 or 16 bytes in network order, `scope` RT_SCOPE_*
    (rtnetlink(7)), `flags` IFA_F_* (linux/if_addr.h). `ifindex` is the interface: inside, where the guest's list is the
    source, else the host's, behind which it was seen.
    """

    family: int
    packed: bytes
    ifindex: int
    scope: int = 0
    flags: int = 0
    source: AddressSource = AddressSource.GUEST


class ChosenAddress(NamedTuple):
    """An address that look-ups give.

    `scope_id` is the host's interface index to reach it through, 0 where routing tells. A `scoped` one is of no use
    without it. A `reverse` one is answered for reverse look-ups, where no other machine had it first.
    """

    family: int
    packed: bytes
    scope_id: int = 0
    scoped: bool = False
    reverse: bool = True


@dataclass(frozen=True, slots=True)
class Machine:
    """One container or VM.

    `id` is the machine id, 16 bytes. `network_interfaces` are the host-side interface indices that were registered
    (NETIF). `owner` is the uid of who registered it. Timestamps are of the registration, in microseconds of
    CLOCK_REALTIME and CLOCK_MONOTONIC. `control_address` is where the manager of a VM takes requests about it (systemd
    261 has it). Maps are empty where the machine shares the host's user namespace. `alias` is another
    name, as a key, that it would have for look-ups of hosts; see Entry.
    """

    name: str
    machine_class: MachineClass
    leader: ProcessId
    service: str = ""
    id: bytes | None = None
    root_directory: str = ""
    network_interfaces: tuple[int, ...] = ()
    unit: str = ""
    owner: int = 0
    realtime: int = 0
    monotonic: int = 0
    vsock_cid: int | None = None
    ssh_address: str = ""
    ssh_private_key_path: str = ""
    control_address: str = ""
    uid_map: IdMap = field(default_factory=IdMap)
    gid_map: IdMap = field(default_factory=IdMap)
    addresses: tuple[Address, ...] = ()
    chosen: tuple[ChosenAddress, ...] = ()
    alias: str = ""
