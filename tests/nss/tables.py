# SPDX-License-Identifier: MIT
"""Tables crafted by hand, straight from the grammar in nss_module/table.h, for tests of the reader.

Not the daemon's writer: that one has room to spare and changes slots in place. Here each section is just as long as
needed, so that a reader who goes one record too far is out of it.
"""

import ipaddress
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resolver._table import ffi, lib

HEADER = struct.Struct("=8s8I")
TABLE = Path("/run/mymachines/table-1")
"""Where the shim looks: only for what runs inside a private /run."""

Extent = tuple[int, int, int]  # as in uid_map: inside, on the host, ids


@dataclass(frozen=True)
class Address:
    text: str
    scope_id: int = 0
    flags: int = lib.ADDRESS_REVERSE

    @property
    def family(self) -> int:
        return int(socket.AF_INET6 if ":" in self.text else socket.AF_INET)

    @property
    def packed(self) -> bytes:
        return ipaddress.ip_address(self.text).packed


@dataclass(frozen=True)
class Machine:
    name: str
    label: str = ""
    aliases: Sequence[str] = ()
    addresses: Sequence[Address] = ()
    uids: Sequence[Extent] = ()
    gids: Sequence[Extent] = ()


WEB = Machine(
    name="web",
    aliases=["www.example"],
    addresses=[Address("10.0.0.2"), Address("fd00::2"), Address("fe80::2", scope_id=7, flags=lib.ADDRESS_SCOPED)],
    uids=[(0, 1 << 20, 65536), (100_000, 1 << 24, 1)],
    gids=[(0, 2 << 20, 65536)],
)
DOTTED = Machine(
    name="Db.example.org",
    label="db-417",
    addresses=[Address("10.0.0.3")],
    uids=[(0, 3 << 20, 65536)],
    gids=[(0, 3 << 20, 65536)],
)
VM = Machine(name="vm-1")
LINK_LOCAL = Machine(name="shy", addresses=[Address("fe80::9", scope_id=3, flags=lib.ADDRESS_SCOPED)])
MACHINES = [WEB, DOTTED, VM, LINK_LOCAL]


def _power_of_two(at_least: int) -> int:
    return 1 << max(at_least - 1, 0).bit_length()


def _chain(buckets: Any, records: Any, index: int, next_field: str) -> None:
    bucket = records[index].hash & (len(buckets) - 1)
    setattr(records[index], next_field, buckets[bucket])
    buckets[bucket] = index


class _Pools:
    """The sections of one slot, filled machine by machine."""

    def __init__(self, machines: Sequence[Machine]) -> None:
        names = sum(1 + len(m.aliases) + bool(m.label) for m in machines)
        addresses = sum(len(m.addresses) for m in machines)
        uids, gids = sum(len(m.uids) for m in machines), sum(len(m.gids) for m in machines)
        self.sections = {
            "machines": ffi.new("struct machine_record[]", 1 + len(machines)),
            "names": ffi.new("struct name_record[]", 1 + names),
            "name_buckets": ffi.new("uint32_t[]", _power_of_two(names)),
            "addresses": ffi.new("struct address_record[]", 1 + addresses),
            "address_buckets": ffi.new("uint32_t[]", _power_of_two(addresses)),
            "extents": ffi.new("struct extent_record[]", 1 + uids + gids),
            "uid_ranges": ffi.new("struct range_record[]", uids),
            "gid_ranges": ffi.new("struct range_record[]", gids),
        }
        self.used = dict.fromkeys(self.sections, 1)
        self.ranges: dict[str, list[tuple[int, int, int, int]]] = {"uid": [], "gid": []}
        for number, machine in enumerate(machines, start=1):
            self._add(number, machine)
        for kind, ranges in self.ranges.items():
            for record, (host, length, inside, number) in zip(
                self.sections[f"{kind}_ranges"], sorted(ranges), strict=True
            ):
                record.host_first, record.length, record.inside_first, record.machine = host, length, inside, number

    def _take(self, section: str) -> int:
        self.used[section] += 1
        return self.used[section] - 1

    def _add(self, number: int, machine: Machine) -> None:
        record = self.sections["machines"][number]
        record.name = machine.name.encode()
        record.label = machine.label.encode()
        self._add_name(number, machine.name, lib.NAME_MACHINE)
        for alias in machine.aliases:
            self._add_name(number, alias, lib.NAME_ALIAS)
        if machine.label:
            self._add_name(number, machine.label, lib.NAME_LABEL)
        for address in reversed(machine.addresses):
            record.first_address = self._add_address(number, address, record.first_address)
        for kind, extents in (("uid", machine.uids), ("gid", machine.gids)):
            for inside, host, length in extents:
                index = self._take("extents")
                extent = self.sections["extents"][index]
                extent.inside_first, extent.host_first, extent.length = inside, host, length
                extent.next = getattr(record, f"first_{kind}_extent")
                setattr(record, f"first_{kind}_extent", index)
                self.ranges[kind].append((host, length, inside, number))

    def _add_name(self, number: int, name: str, kind: int) -> None:
        index = self._take("names")
        record = self.sections["names"][index]
        folded = name.lower().encode()
        record.hash = lib.table_hash_name(folded, len(folded))
        record.kind, record.machine, record.name = kind, number, folded
        _chain(self.sections["name_buckets"], self.sections["names"], index, "next")

    def _add_address(self, number: int, address: Address, following: int) -> int:
        index = self._take("addresses")
        record = self.sections["addresses"][index]
        record.machine, record.next, record.family = number, following, address.family
        record.scope_id, record.flags = address.scope_id, address.flags
        ffi.memmove(record.bytes, address.packed, len(address.packed))
        record.hash = lib.table_hash_address(address.family, address.packed)
        if address.flags & lib.ADDRESS_REVERSE:
            _chain(self.sections["address_buckets"], self.sections["addresses"], index, "next_in_bucket")
        return index


def slot_bytes(machines: Sequence[Machine]) -> bytes:
    """A slot that holds the machines, as long as needed."""
    pools = _Pools(machines)
    header = ffi.new("struct slot_header *")
    body = b""
    for name, records in pools.sections.items():
        section = getattr(header, name)
        section.offset, section.capacity = ffi.sizeof("struct slot_header") + len(body), len(records)
        body += bytes(ffi.buffer(records))
    header.uid_range_count, header.gid_range_count = len(pools.ranges["uid"]), len(pools.ranges["gid"])
    return bytes(ffi.buffer(header)) + body


def table_bytes(machines: Sequence[Machine] = MACHINES, *, done: int = 0, layout: int = 1) -> bytearray:
    """A whole file. The slot that `done` does not name is empty."""
    slot = slot_bytes(machines)
    slot_size = -(-len(slot) // lib.TABLE_PAGE) * lib.TABLE_PAGE
    size = lib.TABLE_PAGE + 2 * slot_size
    offsets = [lib.TABLE_PAGE, lib.TABLE_PAGE + slot_size]
    table = bytearray(size)
    HEADER.pack_into(table, 0, b"mymachin", layout, size, *offsets, slot_size, done, done, 0)
    table[offsets[done & 1] : offsets[done & 1] + len(slot)] = slot
    return table


def publish(path: Path, table: bytes | bytearray) -> Path:
    """Put the file at its path as the daemon does: whole, by rename, mode 0644."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(table)
    new.chmod(0o644)
    os.rename(new, path)
    return path
