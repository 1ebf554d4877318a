# SPDX-License-Identifier: MIT
"""A table with as many machines as you like, written by the daemon's own writer, and no daemon."""

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from resolver.core.addresses import AF_INET, AF_INET6
from resolver.core.idmap import Extent, IdMap
from resolver.core.machine import ChosenAddress, Machine, MachineClass, ProcessId
from resolver.core.registry import Registry
from resolver.table.writer import TableWriter
from tests.bench.peers import inside
from tests.lab import TestHost

BASE = 1 << 20
IDS = 65536


def uid(machine: int, user: int = 1000) -> int:
    return BASE + machine * IDS + user


def addresses(machine: int) -> list[str]:
    return [f"10.{n}.{machine >> 8}.{machine & 255}" for n in range(3)]


Chosen = tuple[ChosenAddress, ...]


def three(machine: int) -> Chosen:
    return tuple(ChosenAddress(AF_INET, ipaddress.ip_address(text).packed) for text in addresses(machine))


def one(machine: int) -> Chosen:
    return three(machine)[:1]


def with_link_local(machine: int) -> Chosen:
    """As systemd-nspawn's containers have them."""
    link_local = ipaddress.ip_address(f"fe80::{machine >> 8:x}:{machine & 255:x}").packed
    return *one(machine), ChosenAddress(AF_INET6, link_local, scope_id=machine + 2, scoped=True, reverse=False)


@contextmanager
def table_host(machines: int, chosen: Callable[[int], Chosen] = three) -> Iterator[TestHost]:
    """Machines m0, m1, ... with 65536 ids and these addresses each, where the host's shim reads them."""
    with TestHost(hosts="files mymachines") as host:
        directory = inside(host, "/run/mymachines")
        directory.mkdir()
        registry = Registry()
        writer = TableWriter(str(directory / "table-2"), registry)
        for number in range(machines):
            ids = IdMap((Extent(0, BASE + number * IDS, IDS),))
            registry.add(Machine(f"m{number}", MachineClass.CONTAINER, ProcessId(number + 2), uid_map=ids, gid_map=ids,
                                 chosen=chosen(number)))
        writer.reset()
        try:
            yield host
        finally:
            writer.close(unlink=True)
