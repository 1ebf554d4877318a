# SPDX-License-Identifier: MIT
"""All machines at once, in an empty slot: as it would be if they came one by one, in two thirds of the time.

The records of each section are gathered as tuples, whose fields are in the order of nss_module/table.h, and handed to
cffi in one piece.
"""

from collections.abc import Iterable

from resolver._table import lib
from resolver.core.idmap import Extent
from resolver.core.machine import ChosenAddress
from resolver.core.names import name_key
from resolver.core.registry import Entry
from resolver.table.slot import Slot
from resolver.table.use import Place, Pool, Use

AT_ONCE = 256
"""Machines that are handed over in one piece: tuples of ten thousand would take megabytes."""


def names_of(entry: Entry) -> list[tuple[int, str]]:
    """The names by which look-ups find a machine, each with its enum name_kind."""
    names = [(lib.NAME_MACHINE, name_key(entry.machine.name))]
    if entry.label:
        names.append((lib.NAME_LABEL, entry.label))
    if entry.alias:
        names.append((lib.NAME_ALIAS, entry.alias))
    return names


def address_flags(address: ChosenAddress) -> int:
    """enum address_flags."""
    return lib.ADDRESS_SCOPED * address.scoped | lib.ADDRESS_REVERSE * address.reverse


def write_all(slot: Slot, use: Use, entries: Iterable[Entry]) -> None:
    """Into a slot that is empty, of which nothing is in use yet, and where there is room."""
    whole = _Whole(slot, use)
    for entry in entries:
        whole.add(entry)
    whole.finish()


class _Records:
    """Of one section, from record 1 on, each after the other."""

    def __init__(self, field: str, pool: Pool) -> None:
        self.gathered: list[tuple[object, ...]] = []
        self._field = field
        self._pool = pool
        self._first = 1

    def next(self) -> int:
        """The index of the one that is gathered next."""
        return self._first + len(self.gathered)

    def write(self, slot: Slot) -> None:
        slot.fill(self._field, self._first, self.gathered)
        self._pool.take_first(len(self.gathered))
        self._first = self.next()
        self.gathered.clear()


class _Whole:
    def __init__(self, slot: Slot, use: Use) -> None:
        self._slot = slot
        self._use = use
        self._machines = _Records("machines", use.machines)
        self._names = _Records("names", use.names)
        self._addresses = _Records("addresses", use.addresses)
        self._extents = _Records("extents", use.extents)
        self._ranges: dict[str, list[tuple[int, ...]]] = {field: [] for field in use.range_starts}
        self._name_buckets = [0] * (use.name_mask + 1)
        self._address_buckets = [0] * (use.address_mask + 1)

    def add(self, entry: Entry) -> None:
        machine = self._machines.next()
        names = self._add_names(machine, entry)
        addresses = self._add_addresses(machine, entry.addresses)
        uids = self._add_extents(machine, "uid_ranges", entry.uid_extents)
        gids = self._add_extents(machine, "gid_ranges", entry.gid_extents)
        self._machines.gathered.append((entry.machine.name.encode(), entry.label.encode(),
                                        *(records[0] if records else 0 for records in (addresses, uids, gids))))
        self._use.places[entry.key] = Place(machine, names, addresses, uids, gids)
        if len(self._machines.gathered) == AT_ONCE:
            self._write()

    def finish(self) -> None:
        self._write()
        self._slot.fill("name_buckets", 0, self._name_buckets)
        self._slot.fill("address_buckets", 0, self._address_buckets)
        for field, ranges in self._ranges.items():
            ranges.sort()
            self._slot.fill(field, 0, ranges)
            self._use.range_starts[field] = [host_first for host_first, *_ in ranges]
            self._slot.set_count(field, len(ranges))

    def _write(self) -> None:
        for records in (self._machines, self._names, self._addresses, self._extents):
            records.write(self._slot)

    def _add_names(self, machine: int, entry: Entry) -> tuple[tuple[int, int], ...]:
        places = []
        for index, (kind, name) in enumerate(names_of(entry), self._names.next()):
            raw = name.encode()
            hashed = lib.table_hash_name(raw, len(raw))
            bucket = hashed & self._use.name_mask
            self._names.gathered.append((hashed, kind, machine, self._name_buckets[bucket], raw))
            self._name_buckets[bucket] = index
            places.append((kind, index))
        return tuple(places)

    def _add_addresses(self, machine: int, addresses: tuple[ChosenAddress, ...]) -> tuple[int, ...]:
        indices = self._in_a_row(self._addresses, len(addresses))
        for address, index, following in zip(addresses, indices, (*indices[1:], 0), strict=False):
            packed = address.packed.ljust(16, b"\0")
            hashed = lib.table_hash_address(address.family, packed)
            next_in_bucket = 0
            if address.reverse:
                bucket = hashed & self._use.address_mask
                next_in_bucket, self._address_buckets[bucket] = self._address_buckets[bucket], index
            self._addresses.gathered.append((machine, following, hashed, next_in_bucket, address.family,
                                             address.scope_id, address_flags(address), packed))
        return indices

    def _add_extents(self, machine: int, ranges: str, extents: tuple[Extent, ...]) -> tuple[int, ...]:
        indices = self._in_a_row(self._extents, len(extents))
        for (inside_first, host_first, length), following in zip(extents, (*indices[1:], 0), strict=False):
            self._extents.gathered.append((inside_first, length, host_first, following))
            self._ranges[ranges].append((host_first, length, inside_first, machine))
        return indices

    @staticmethod
    def _in_a_row(records: _Records, count: int) -> tuple[int, ...]:
        return tuple(range(records.next(), records.next() + count))
