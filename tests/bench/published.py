# SPDX-License-Identifier: MIT
"""A table with as many machines as you like, written by the daemon's own writer, and no daemon."""

from collections.abc import Iterator
from contextlib import contextmanager

from resolver.core.addresses import AF_INET
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


@contextmanager
def table_host(machines: int, *, three_addresses: bool = True) -> Iterator[TestHost]:
    """Machines m0, m1, ... with 65536 ids and three addresses each, or one, where the host's shim reads them."""
    with TestHost(hosts="files mymachines") as host:
        directory = inside(host, "/run/mymachines")
        directory.mkdir()
        registry = Registry()
        writer = TableWriter(str(directory / "table-2"), registry)
        for number in range(machines):
            ids = IdMap((Extent(0, BASE + number * IDS, IDS),))
            chosen = tuple(ChosenAddress(AF_INET, bytes(map(int, text.split(".")))) for text in addresses(number))
            registry.add(Machine(f"m{number}", MachineClass.CONTAINER, ProcessId(number + 2), uid_map=ids, gid_map=ids,
                                 chosen=chosen if three_addresses else chosen[:1]))
        writer.reset()
        try:
            yield host
        finally:
            writer.close(unlink=True)
