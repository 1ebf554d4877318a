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
TABLE = Path("/run/mymachines/table-2")
"""Where the shim looks: only for what runs inside a private /run."""

TYPES = {
    "machines": "struct machine_record",
    "details": "struct detail_record",
    "addresses": "struct address_record",
    "extents": "struct extent_record",
    "name_keys": "uint32_t",
    "address_keys": "uint32_t",
    "uid_ranges": "struct range_record",
    "gid_ranges": "struct range_record",
}

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

    @property
    def is_plain(self) -> bool:
        return self.family == socket.AF_INET and not self.flags & lib.ADDRESS_SCOPED


@dataclass(frozen=True)
class Machine:
    name: str
    label: str = ""
    alias: str = ""
    addresses: Sequence[Address] = ()
    uids: Sequence[Extent] = ()
    gids: Sequence[Extent] = ()


WEB = Machine(
    name="web",
    alias="www.example",
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
LONG = Machine(
    name="A-name-that-is-among-the-details",
    label="a-name-that-1",
    addresses=[Address(f"10.0.1.{last}") for last in range(5)],
    uids=[(0, 5 << 20, 65536)],
    gids=[(0, 5 << 20, 65536)],
)
MACHINES = [WEB, DOTTED, VM, LINK_LOCAL, LONG]


def _power_of_two(at_least: int) -> int:
    return 1 << max(at_least - 1, 0).bit_length()


def _add_key(keys: Any, hashed: int, machine: int, kind: int = 0) -> None:
    at = hashed % len(keys)
    while keys[at] != 0:
        at = (at + 1) % len(keys)
    keys[at] = hashed >> 24 << 24 | machine << 2 | kind


class _Sections:
    """The sections of one slot, filled machine by machine."""

    def __init__(self, machines: Sequence[Machine]) -> None:
        names = sum(1 + bool(m.alias) + bool(m.label) for m in machines)
        addresses = sum(len(m.addresses) for m in machines)
        uids, gids = sum(len(m.uids) for m in machines), sum(len(m.gids) for m in machines)
        counts = {
            "machines": 1 + len(machines),
            "details": 1 + len(machines),
            "addresses": 1 + addresses,
            "extents": 1 + uids + gids,
            "name_keys": _power_of_two(names + 1),
            "address_keys": _power_of_two(addresses + 1),
            "uid_ranges": uids,
            "gid_ranges": gids,
        }
        self.records = {name: ffi.new(f"{TYPES[name]}[]", count) for name, count in counts.items()}
        self.used = dict.fromkeys(("addresses", "extents"), 1)
        self.ranges: dict[str, list[tuple[int, int, int, int]]] = {"uid": [], "gid": []}
        for number, machine in enumerate(machines, start=1):
            self._add(number, machine)
        for kind, ranges in self.ranges.items():
            for record, (host, length, inside, number) in zip(
                self.records[f"{kind}_ranges"], sorted(ranges), strict=True
            ):
                record.host_first, record.length, record.inside_first, record.machine = host, length, inside, number

    def as_long_as_used(self) -> dict[str, bytes]:
        """The bytes of each section. Of the pools, that is record 0 and those in use."""
        whole = {name: bytes(ffi.buffer(records)) for name, records in self.records.items()}
        for pool in ("addresses", "extents"):
            whole[pool] = whole[pool][: self.used[pool] * ffi.sizeof(TYPES[pool])]
        return whole

    def _take(self, section: str) -> int:
        self.used[section] += 1
        return self.used[section] - 1

    def _add(self, number: int, machine: Machine) -> None:
        record, details = self.records["machines"][number], self.records["details"][number]
        (record if len(machine.name) < 32 else details).name = machine.name.encode()
        details.label, details.alias = machine.label.encode(), machine.alias.encode()
        for kind, name in ((lib.NAME_MACHINE, machine.name), (lib.NAME_ALIAS, machine.alias),
                           (lib.NAME_LABEL, machine.label)):
            folded = name.lower().encode()
            if folded:
                _add_key(self.records["name_keys"], lib.table_hash_name(folded, len(folded)), number, kind)
        self._add_addresses(number, machine.addresses)
        self._add_extents(number, "uid", machine.uids)
        self._add_extents(number, "gid", machine.gids)

    def _add_addresses(self, number: int, addresses: Sequence[Address]) -> None:
        record, rest = self.records["machines"][number], list(addresses)
        for address in rest:
            if address.flags & lib.ADDRESS_REVERSE:
                _add_key(self.records["address_keys"], lib.table_hash_address(address.family, address.packed), number)
        while rest and rest[0].is_plain and record.inet_count < 3:
            address = rest.pop(0)
            ffi.memmove(record.inet + 4 * record.inet_count, address.packed, 4)
            record.inet_reverse |= (address.flags == lib.ADDRESS_REVERSE) << record.inet_count
            record.inet_count += 1
        for address in reversed(rest):
            index = self._take("addresses")
            more = self.records["addresses"][index]
            more.next, more.family = record.more_addresses, address.family
            more.scope_id, more.flags = address.scope_id, address.flags
            ffi.memmove(more.bytes, address.packed, len(address.packed))
            record.more_addresses = index

    def _add_extents(self, number: int, kind: str, extents: Sequence[Extent]) -> None:
        record, details = self.records["machines"][number], self.records["details"][number]
        for inside, host, length in extents:
            self.ranges[kind].append((host, length, inside, number))
            if record.extent_kinds == 0:
                record.inside_first, record.length, record.host_first = inside, length, host
            if (record.inside_first, record.length, record.host_first) == (inside, length, host):
                record.extent_kinds |= lib.EXTENT_OF_UIDS if kind == "uid" else lib.EXTENT_OF_GIDS
                continue
            index = self._take("extents")
            extent = self.records["extents"][index]
            extent.inside_first, extent.host_first, extent.length = inside, host, length
            extent.next = getattr(details, f"more_{kind}_extents")
            setattr(details, f"more_{kind}_extents", index)


def slot_bytes(machines: Sequence[Machine]) -> bytes:
    """A slot that holds the machines, as long as needed."""
    sections = _Sections(machines)
    header = ffi.new("struct slot_header *")
    body = b""
    for name, content in sections.as_long_as_used().items():
        section = getattr(header, name)
        section.offset = ffi.sizeof("struct slot_header") + len(body)
        section.capacity = len(content) // ffi.sizeof(TYPES[name])
        body += content
    return bytes(ffi.buffer(header)) + body


def table_bytes(machines: Sequence[Machine] = MACHINES, *, done: int = 0, layout: int = lib.TABLE_LAYOUT) -> bytearray:
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
