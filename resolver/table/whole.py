# SPDX-License-Identifier: MIT
"""All machines at once, in an empty slot: as it would be if they came one by one, in two thirds of the time.

The records of each section are gathered and handed to cffi in one piece.
"""

from collections.abc import Sequence

from resolver.core.idmap import Extent
from resolver.core.registry import Entry
from resolver.table.records import (
    NO_DETAILS,
    Parts,
    Record,
    address_record,
    chain,
    detail_record,
    extent_record,
    hash_of_address,
    hash_of_name,
    machine_record,
    range_record,
)
from resolver.table.slot import Slot
from resolver.table.use import Place, Use

AT_ONCE = 256
"""Machines that are handed over in one piece: tuples of ten thousand would take megabytes."""


def write_all(slot: Slot, use: Use, entries: Sequence[Entry]) -> None:
    """Into a slot that is empty, of which nothing is in use yet, and where there is room."""
    whole = _Whole(slot, use)
    for number, entry in enumerate(entries, 1):
        whole.add(entry)
        if number % AT_ONCE == 0:
            whole.write()
    whole.finish()


class _Records:
    """Of one section: one after the other, as their pool gives them."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._first = 1
        self._gathered: list[Record] = []

    def add(self, record: Record) -> None:
        """An empty one is not written."""
        self._gathered.append(record)

    def write(self, slot: Slot) -> None:
        slot.fill(self._field, self._first, self._gathered)
        self._first += len(self._gathered)
        self._gathered.clear()


class _Whole:
    def __init__(self, slot: Slot, use: Use) -> None:
        self._slot = slot
        self._use = use
        self._machines, self._details = _Records("machines"), _Records("details")
        self._addresses, self._extents = _Records("addresses"), _Records("extents")
        self._ranges: dict[str, list[tuple[int, ...]]] = {field: [] for field in use.range_starts}

    def add(self, entry: Entry) -> None:
        use, parts = self._use, Parts.of(entry)
        machine, = use.machines.take(1)
        for kind, name in parts.keys:
            use.name_keys.add(hash_of_name(name), machine, kind)
        for address in parts.reverse:
            use.address_keys.add(hash_of_address(address), machine)
        addresses = use.addresses.take(len(parts.more_addresses))
        for _, following, address in chain(addresses, parts.more_addresses):
            self._addresses.add(address_record(following, address))
        uids, gids = self._add_extents(parts.more_uid_extents), self._add_extents(parts.more_gid_extents)
        self._machines.add(machine_record(parts, addresses))
        details = detail_record(parts, uids, gids)
        self._details.add(details if details != NO_DETAILS else ())
        self._ranges["uid_ranges"] += [range_record(extent, machine) for extent in parts.uid_extents]
        self._ranges["gid_ranges"] += [range_record(extent, machine) for extent in parts.gid_extents]
        use.places[entry.key] = Place(machine, addresses, uids, gids)

    def write(self) -> None:
        for records in (self._machines, self._details, self._addresses, self._extents):
            records.write(self._slot)

    def finish(self) -> None:
        self.write()
        self._slot.fill_whole("name_keys", self._use.name_keys.words)
        self._slot.fill_whole("address_keys", self._use.address_keys.words)
        for field, ranges in self._ranges.items():
            ranges.sort()
            self._slot.fill(field, 0, ranges)
            self._use.range_starts[field] = [host_first for host_first, *_ in ranges]
            self._slot.set_count(field, len(ranges))

    def _add_extents(self, extents: Sequence[Extent]) -> tuple[int, ...]:
        indices = self._use.extents.take(len(extents))
        for _, following, extent in chain(indices, extents):
            self._extents.add(extent_record(following, extent))
        return indices
