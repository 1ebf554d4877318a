# SPDX-License-Identifier: MIT
"""All machines at once, in an empty slot: as it would be if they came one by one, in two thirds of the time.

The records of each section are gathered and handed to cffi in one piece.
"""

from collections.abc import Sequence

from resolver.core.idmap import Extent
from resolver.core.machine import ChosenAddress
from resolver.core.registry import Entry
from resolver.table.records import (
    Record,
    address_record,
    extent_record,
    hash_of_address,
    hash_of_name,
    name_record,
    names_of,
    range_record,
)
from resolver.table.slot import Slot
from resolver.table.use import (
    ADDRESSES_AT,
    EXTENTS_AT,
    Place,
    Pool,
    Use,
    address_places,
    extent_places,
    name_places,
)

AT_ONCE = 256
"""Machines that are handed over in one piece: tuples of ten thousand would take megabytes."""


def write_all(slot: Slot, use: Use, entries: Sequence[Entry]) -> None:
    """Into a slot that is empty, of which nothing is in use yet, and where there is room."""
    # First all have their own places (table.h), so that none goes to what another one has too much.
    for machine, entry in enumerate(entries, 1):
        use.machines.take_row(range(machine, machine + 1))
        use.names.take_row(name_places(machine))
        use.addresses.take_row(address_places(machine)[:len(entry.addresses)])
        use.extents.take_row(extent_places(machine, "uid")[:len(entry.uid_extents)])
        use.extents.take_row(extent_places(machine, "gid")[:len(entry.gid_extents)])
    whole = _Whole(slot, use)
    for machine, entry in enumerate(entries, 1):
        whole.add(machine, entry)
    whole.finish()


class _Records:
    """Of one section: those at the places of machines that follow one another, each with so many; and others."""

    def __init__(self, field: str, pool: Pool, places: int) -> None:
        self._field = field
        self._pool = pool
        self._places = places
        self._first = places  # the first machine's
        self._placed: list[Record] = []
        self._others: list[tuple[int, Record]] = []

    def next_machine(self) -> None:
        self._placed += [()] * self._places  # what stays so is not written

    def indices(self, count: int, places: range) -> tuple[int, ...]:
        """For so many records: the places, which were taken, and others."""
        return (*places[:count], *(self._pool.take() for _ in range(count - len(places))))

    def put(self, index: int, record: Record) -> None:
        at = index - self._first
        if 0 <= at < len(self._placed):
            self._placed[at] = record
        else:
            self._others.append((index, record))

    def write(self, slot: Slot) -> None:
        slot.fill(self._field, self._first, self._placed)
        for index, record in self._others:
            slot.fill(self._field, index, [record])
        self._first += len(self._placed)
        self._placed.clear()
        self._others.clear()


class _Whole:
    def __init__(self, slot: Slot, use: Use) -> None:
        self._slot = slot
        self._use = use
        self._machines = _Records("machines", use.machines, 1)
        self._names = _Records("names", use.names, 1)
        self._addresses = _Records("addresses", use.addresses, ADDRESSES_AT)
        self._extents = _Records("extents", use.extents, EXTENTS_AT)
        self._sections = self._machines, self._names, self._addresses, self._extents
        self._ranges: dict[str, list[tuple[int, ...]]] = {field: [] for field in use.range_starts}
        self._name_buckets = [0] * (use.name_mask + 1)
        self._address_buckets = [0] * (use.address_mask + 1)

    def add(self, machine: int, entry: Entry) -> None:
        for records in self._sections:
            records.next_machine()
        names = self._add_names(machine, entry)
        addresses = self._add_addresses(machine, entry.addresses)
        uids = self._add_extents(machine, "uid", entry.uid_extents)
        gids = self._add_extents(machine, "gid", entry.gid_extents)
        self._machines.put(machine, (entry.machine.name.encode(), entry.label.encode(),
                                     *(indices[0] if indices else 0 for indices in (addresses, uids, gids))))
        self._use.places[entry.key] = Place(machine, names, addresses, uids, gids)
        if machine % AT_ONCE == 0:
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
        for records in self._sections:
            records.write(self._slot)

    def _add_names(self, machine: int, entry: Entry) -> tuple[tuple[int, int], ...]:
        names = names_of(entry)
        indices = self._names.indices(len(names), name_places(machine))
        for index, (kind, name) in zip(indices, names, strict=True):
            hashed = hash_of_name(name)
            bucket = hashed & self._use.name_mask
            self._names.put(index, name_record(hashed, kind, machine, self._name_buckets[bucket], name))
            self._name_buckets[bucket] = index
        return tuple((kind, index) for index, (kind, _) in zip(indices, names, strict=True))

    def _add_addresses(self, machine: int, addresses: tuple[ChosenAddress, ...]) -> tuple[int, ...]:
        indices = self._addresses.indices(len(addresses), address_places(machine))
        for address, index, following in zip(addresses, indices, (*indices[1:], 0), strict=False):
            hashed, next_in_bucket = hash_of_address(address), 0
            if address.reverse:
                bucket = hashed & self._use.address_mask
                next_in_bucket, self._address_buckets[bucket] = self._address_buckets[bucket], index
            self._addresses.put(index, address_record(hashed, machine, following, next_in_bucket, address))
        return indices

    def _add_extents(self, machine: int, kind: str, extents: tuple[Extent, ...]) -> tuple[int, ...]:
        indices = self._extents.indices(len(extents), extent_places(machine, kind))
        for extent, index, following in zip(extents, indices, (*indices[1:], 0), strict=False):
            self._extents.put(index, extent_record(extent, following))
            self._ranges[f"{kind}_ranges"].append(range_record(extent, machine))
        return indices
