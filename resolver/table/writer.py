# SPDX-License-Identifier: MIT
"""Publishes the registry's changes into the table.

A publication works on the idle slot: first what the previous one changed in the other slot is copied over, then the
new changes are made, then the counter moves. So a change costs what it changes, however many machines there are.

Which record holds what is kept in Python (use.py). A start, and a table that grows, write all at once (whole.py).
"""

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from resolver._table import ffi, lib
from resolver.core.idmap import Extent
from resolver.core.machine import ChosenAddress
from resolver.core.registry import Change, Entry
from resolver.table.file import SCALE_FIRST, SECTIONS, TableFile
from resolver.table.records import (
    address_record,
    extent_record,
    hash_of_address,
    hash_of_name,
    name_record,
    names_of,
    range_record,
)
from resolver.table.slot import Range, Slot
from resolver.table.use import Place, Use, address_places, extent_places
from resolver.table.whole import write_all


class TableWriter:
    """The one writer of the table at `path`, for the machines of `registry`.

    reset() and publish() raise OSError where the table must grow and /run has no room; what is published then stays
    as it was, and reset() is the way back.
    """

    def __init__(self, path: str, registry: Iterable[Entry]) -> None:
        self.path = path
        self._registry = registry
        self._table: TableFile | None = None
        self._slots: list[Slot] = []
        self._use = Use(SCALE_FIRST)
        self._behind: list[Range] = []

    def reset(self) -> None:
        """Publish the registry as it is: at start, and after a failure. An adopted table changes in one step."""
        entries = list(self._registry)
        if self._table is None:
            self._table = TableFile.adopt(self.path)
            self._open_slots()
        if self._table is not None and _fits(entries, self._table.scale):
            self._rebuild(entries)
            return
        scale = SCALE_FIRST if self._table is None else self._table.scale
        while not _fits(entries, scale):
            scale *= 2
        self._replace(entries, scale)

    def publish(self, changes: Sequence[Change]) -> None:
        """Make changes that the registry went through visible to every reader, all at once."""
        if self._table is None or not self._have_room(changes):
            self.reset()
            return
        slot = self._begin()
        for change in changes:
            self._apply(slot, change)
        self._commit(slot)

    def close(self, unlink: bool) -> None:
        """Stop writing. With `unlink` the table is taken away, and processes that mapped it notice at once."""
        if self._table is None:
            return
        if unlink:
            # In this order: killed in between, we leave a table that nobody believes, and not one that some still read.
            self._table.retire()
            self._table.unlink()
        self._slots.clear()
        self._table.close()
        self._table = None

    # Publications.

    def _begin(self) -> Slot:
        assert self._table is not None
        slot = self._slots[lib.table_begin(self._table.header)]
        active = self._slots[int(self._table.header.done) & 1]
        slot.begin(active, self._behind)
        # Should a publication break off in the middle, the next one copies the whole slot.
        self._behind = self._everything()
        return slot

    def _everything(self) -> list[Range]:
        assert self._table is not None
        return [(0, self._table.slot_size)]

    def _open_slots(self) -> None:
        self._slots = [] if self._table is None else [Slot(self._table, number) for number in range(lib.TABLE_SLOTS)]

    def _commit(self, slot: Slot) -> None:
        assert self._table is not None
        lib.table_commit(self._table.header)
        self._behind = slot.changed

    def _rebuild(self, entries: Sequence[Entry]) -> None:
        """Write the idle slot anew."""
        assert self._table is not None
        self._use = Use(self._table.scale)
        self._behind = []
        slot = self._begin()
        self._table.clear(1 - (int(self._table.header.done) & 1))
        write_all(slot, self._use, entries)
        self._commit(slot)
        self._behind = self._everything()

    def _replace(self, entries: Sequence[Entry], scale: int) -> None:
        """A new file in the place of the old one."""
        table = TableFile.create(self.path, scale)
        old, self._table = self._table, table
        self._open_slots()
        self._rebuild(entries)
        try:
            table.appear()
        except OSError:
            self._table = old  # close() is to retire that one
            self._open_slots()
            table.close()
            raise
        if old is not None:
            old.retire()
            old.close()

    def _have_room(self, changes: Sequence[Change]) -> bool:
        entries = [change.after for change in changes if change.after is not None]
        need = _need(entries)
        use = self._use
        ranges = max(map(len, use.range_starts.values()))
        return (need.machines <= use.machines.left() and need.names <= use.names.left()
                and need.addresses <= use.addresses.left() and need.extents <= use.extents.left()
                and ranges + need.ranges <= use.range_capacity)

    # One change in one slot.

    def _apply(self, slot: Slot, change: Change) -> None:
        if change.before is None:
            assert change.after is not None
            place = Place(self._use.machines.take())
            self._use.places[change.after.key] = place
            self._add_machine(slot, place, change.after)
        else:
            place = self._use.places[change.before.key]
        before, after = change.before, change.after
        if before is not None and (after is None or after.addresses != before.addresses):
            self._drop_addresses(slot, place)
        if before is not None and (after is None or after.uid_extents != before.uid_extents):
            self._drop_extents(slot, place, "uid", before.uid_extents)
        if before is not None and (after is None or after.gid_extents != before.gid_extents):
            self._drop_extents(slot, place, "gid", before.gid_extents)
        if after is None:
            assert before is not None
            self._drop_machine(slot, place)
            del self._use.places[before.key]
            return
        if before is not None and after.alias != before.alias:
            self._change_alias(slot, place, after.alias)
        if before is None or after.addresses != before.addresses:
            self._add_addresses(slot, place, after.addresses)
        if before is None or after.uid_extents != before.uid_extents:
            self._add_extents(slot, place, "uid", after.uid_extents)
        if before is None or after.gid_extents != before.gid_extents:
            self._add_extents(slot, place, "gid", after.gid_extents)

    def _add_machine(self, slot: Slot, place: Place, entry: Entry) -> None:
        record = slot.record("machines", place.machine)
        ffi.memmove(record, bytes(ffi.sizeof("struct machine_record")), ffi.sizeof("struct machine_record"))
        record.name = entry.machine.name.encode()
        record.label = entry.label.encode()
        for kind, name in names_of(entry):
            self._add_name(slot, place, kind, name)

    def _change_alias(self, slot: Slot, place: Place, alias: str) -> None:
        self._drop_names(slot, place, [name for name in place.names if name[0] == lib.NAME_ALIAS])
        if alias:
            self._add_name(slot, place, lib.NAME_ALIAS, alias)

    def _drop_machine(self, slot: Slot, place: Place) -> None:
        self._drop_names(slot, place, place.names)
        record = slot.record("machines", place.machine)
        ffi.memmove(record, bytes(ffi.sizeof("struct machine_record")), ffi.sizeof("struct machine_record"))
        self._use.machines.give_back(place.machine)

    def _add_name(self, slot: Slot, place: Place, kind: int, name: str) -> None:
        index = self._use.names.take(place.machine if kind == lib.NAME_MACHINE else 0)
        place.names = (*place.names, (kind, index))
        hashed = hash_of_name(name)
        bucket = slot.record("name_buckets", hashed & self._use.name_mask)
        slot.fill("names", index, [name_record(hashed, kind, place.machine, bucket[0], name)])
        bucket[0] = index

    def _drop_names(self, slot: Slot, place: Place, names: Sequence[tuple[int, int]]) -> None:
        for _, index in names:
            record = slot.record("names", index)
            _unchain(slot, "name_buckets", record.hash & self._use.name_mask, "names", index, "next")
            record.kind = lib.NAME_FREE
            self._use.names.give_back(index)
        place.names = tuple(name for name in place.names if name not in names)

    def _add_addresses(self, slot: Slot, place: Place, addresses: Sequence[ChosenAddress]) -> None:
        indices = self._use.addresses.take_all(len(addresses), address_places(place.machine))
        place.addresses = tuple(indices)
        following = 0
        for address in reversed(addresses):
            index = indices.pop()
            hashed, next_in_bucket = hash_of_address(address), 0
            if address.reverse:
                bucket = slot.record("address_buckets", hashed & self._use.address_mask)
                next_in_bucket, bucket[0] = bucket[0], index
            slot.fill("addresses", index, [address_record(hashed, place.machine, following, next_in_bucket, address)])
            following = index
        slot.record("machines", place.machine).first_address = following

    def _drop_addresses(self, slot: Slot, place: Place) -> None:
        for index in place.addresses:
            record = slot.peek("addresses", index)
            if record.flags & lib.ADDRESS_REVERSE:
                _unchain(slot, "address_buckets", record.hash & self._use.address_mask, "addresses", index,
                         "next_in_bucket")
            self._use.addresses.give_back(index)
        place.addresses = ()
        slot.record("machines", place.machine).first_address = 0

    def _add_extents(self, slot: Slot, place: Place, kind: str, extents: Sequence[Extent]) -> None:
        indices = self._use.extents.take_all(len(extents), extent_places(place.machine, kind))
        setattr(place, f"{kind}_extents", tuple(indices))
        following = 0
        for extent in reversed(extents):
            index = indices.pop()
            slot.fill("extents", index, [extent_record(extent, following)])
            following = index
            self._insert_range(slot, f"{kind}_ranges", place.machine, extent)
        setattr(slot.record("machines", place.machine), f"first_{kind}_extent", following)

    def _drop_extents(self, slot: Slot, place: Place, kind: str, extents: Sequence[Extent]) -> None:
        indices = place.uid_extents if kind == "uid" else place.gid_extents
        for index in indices:
            self._use.extents.give_back(index)
        setattr(place, f"{kind}_extents", ())
        for extent in extents:
            self._remove_range(slot, f"{kind}_ranges", extent)
        setattr(slot.record("machines", place.machine), f"first_{kind}_extent", 0)

    def _insert_range(self, slot: Slot, section: str, machine: int, extent: Extent) -> None:
        starts = self._use.range_starts[section]
        at = bisect.bisect(starts, extent.host_first)
        behind = len(starts) - at
        record = slot.records(section, at, behind + 1)
        ffi.memmove(record + 1, record, behind * ffi.sizeof("struct range_record"))
        record[0] = range_record(extent, machine)
        starts.insert(at, extent.host_first)
        slot.set_count(section, len(starts))

    def _remove_range(self, slot: Slot, section: str, extent: Extent) -> None:
        starts = self._use.range_starts[section]
        at = bisect.bisect_left(starts, extent.host_first)
        behind = len(starts) - at - 1
        record = slot.records(section, at, behind + 1)
        ffi.memmove(record, record + 1, behind * ffi.sizeof("struct range_record"))
        del starts[at]
        slot.set_count(section, len(starts))


@dataclass(frozen=True, slots=True)
class Need:
    """Records that entries take, at the most."""

    machines: int
    names: int
    addresses: int
    extents: int
    ranges: int


def _need(entries: Sequence[Entry]) -> Need:
    uids, gids = sum(len(e.uid_extents) for e in entries), sum(len(e.gid_extents) for e in entries)
    names = sum(1 + bool(e.label) + bool(e.machine.alias) for e in entries)
    return Need(len(entries), names, sum(len(e.addresses) for e in entries), uids + gids, max(uids, gids))


def _fits(entries: Sequence[Entry], scale: int) -> bool:
    need = _need(entries)
    capacity = {shape.field: shape.capacity(scale) for shape in SECTIONS}
    return (need.machines < capacity["machines"] and need.names < capacity["names"]
            and need.addresses < capacity["addresses"] and need.extents < capacity["extents"]
            and need.ranges <= capacity["uid_ranges"])


def _unchain(slot: Slot, buckets: str, bucket: int, section: str, index: int, link: str) -> None:
    """Take a record out of its bucket's chain."""
    head: Any = slot.peek(buckets, bucket)
    following = getattr(slot.peek(section, index), link)
    if head[0] == index:
        slot.record(buckets, bucket)[0] = following
        return
    at = head[0]
    while (next_at := getattr(slot.peek(section, at), link)) != index:
        at = next_at
    setattr(slot.record(section, at), link, following)
