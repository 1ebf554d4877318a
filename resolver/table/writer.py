# SPDX-License-Identifier: MIT
"""Publishes the registry's changes into the table.

A publication works on the idle slot: first what the previous one changed in the other slot is copied over, then the
new changes are made, then the counter moves. So a change costs what it changes, however many machines there are.

Which record holds what is kept in Python (use.py). A start, and a table that grows, write all at once (whole.py).
"""

import bisect
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from resolver._table import ffi, lib
from resolver.core.idmap import Extent
from resolver.core.machine import ChosenAddress
from resolver.core.registry import Change, Entry
from resolver.table.file import SCALE_FIRST, SECTIONS, TableFile, retire_others
from resolver.table.records import (
    Parts,
    Record,
    address_record,
    chain,
    count_at_hand,
    detail_record,
    extent_record,
    hash_of_address,
    hash_of_name,
    machine_record,
    range_record,
)
from resolver.table.slot import Range, Slot
from resolver.table.use import Place, Pool, Use
from resolver.table.whole import write_all

T = TypeVar("T")

RANGE_SIZE = int(ffi.sizeof("struct range_record"))


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
        need = _need(entries)
        if self._table is None:
            self._table = TableFile.adopt(self.path)
            self._open_slots()
        if self._table is not None and _fits(need, self._table.scale):
            self._rebuild(entries)
        else:
            scale = SCALE_FIRST if self._table is None else self._table.scale
            while not _fits(need, scale):
                scale *= 2
            self._replace(entries, scale)
        retire_others(self.path)

    def publish(self, changes: Sequence[Change]) -> None:
        """Make changes that the registry went through visible to every reader, all at once."""
        if self._table is None or not self._have_room(_need(c.after for c in changes if c.after is not None)):
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

    def _have_room(self, need: "Need") -> bool:
        use = self._use
        ranges = max(map(len, use.range_starts.values()))
        return (need.machines <= use.machines.left and need.addresses <= use.addresses.left
                and ranges + need.ranges <= use.range_capacity)

    # One change in one slot.

    def _apply(self, slot: Slot, change: Change) -> None:
        """What is no more goes first, so that what comes has its room."""
        before, after = change.before, change.after
        was, now = Parts.of(before), Parts.of(after)
        if before is not None:
            place = self._use.places[before.key]
        else:
            assert after is not None
            machine, = self._use.machines.take(1)
            place = self._use.places[after.key] = Place(machine)
        if now.keys != was.keys:
            self._change_names(slot, place, was.keys, now.keys)
        if now.reverse != was.reverse:
            self._change_reverse(slot, place, was.reverse, now.reverse)
        if now.more_addresses != was.more_addresses:
            place.addresses = self._rechain(slot, "addresses", self._use.addresses, place.addresses,
                                            now.more_addresses, address_record)
        if now.more_uid_extents != was.more_uid_extents:
            place.uid_extents = self._rechain(slot, "extents", self._use.extents, place.uid_extents,
                                              now.more_uid_extents, extent_record)
        if now.more_gid_extents != was.more_gid_extents:
            place.gid_extents = self._rechain(slot, "extents", self._use.extents, place.gid_extents,
                                              now.more_gid_extents, extent_record)
        self._change_ranges(slot, "uid_ranges", place.machine, was.uid_extents, now.uid_extents)
        self._change_ranges(slot, "gid_ranges", place.machine, was.gid_extents, now.gid_extents)
        slot.put("machines", place.machine, machine_record(now, place.addresses))
        slot.put("details", place.machine, detail_record(now, place.uid_extents, place.gid_extents))
        if after is None:
            assert before is not None
            self._use.machines.give_back([place.machine])
            del self._use.places[before.key]

    def _change_names(self, slot: Slot, place: Place, was: Sequence[tuple[int, str]],
                      now: Sequence[tuple[int, str]]) -> None:
        keys = self._use.name_keys
        for kind, name in was:
            if (kind, name) not in now:
                for at in keys.drop(hash_of_name(name), place.machine, kind):
                    slot.put("name_keys", at, keys.words[at])
        for kind, name in now:
            if (kind, name) not in was:
                at = keys.add(hash_of_name(name), place.machine, kind)
                slot.put("name_keys", at, keys.words[at])

    def _change_reverse(self, slot: Slot, place: Place, was: Sequence[ChosenAddress],
                        now: Sequence[ChosenAddress]) -> None:
        keys = self._use.address_keys
        for address in was:
            for at in keys.drop(hash_of_address(address), place.machine):
                slot.put("address_keys", at, keys.words[at])
        for address in now:
            at = keys.add(hash_of_address(address), place.machine)
            slot.put("address_keys", at, keys.words[at])

    def _rechain(self, slot: Slot, section: str, pool: Pool, old: Sequence[int], values: Sequence[T],
                 record: Callable[[int, T], Record]) -> tuple[int, ...]:
        """Records for these, in the place of the old ones."""
        pool.give_back(old)
        indices = pool.take(len(values))
        for index, following, value in chain(indices, values):
            slot.put(section, index, record(following, value))
        return indices

    def _change_ranges(self, slot: Slot, section: str, machine: int, was: Sequence[Extent],
                       now: Sequence[Extent]) -> None:
        if was == now:
            return
        for extent in was:
            self._remove_range(slot, section, extent)
        for extent in now:
            self._insert_range(slot, section, machine, extent)

    def _insert_range(self, slot: Slot, section: str, machine: int, extent: Extent) -> None:
        starts = self._use.range_starts[section]
        at = bisect.bisect(starts, extent.host_first)
        behind = len(starts) - at
        record = slot.records(section, at, behind + 1)
        ffi.memmove(record + 1, record, behind * RANGE_SIZE)
        record[0] = range_record(extent, machine)
        starts.insert(at, extent.host_first)
        slot.set_count(section, len(starts))

    def _remove_range(self, slot: Slot, section: str, extent: Extent) -> None:
        starts = self._use.range_starts[section]
        at = bisect.bisect_left(starts, extent.host_first)
        behind = len(starts) - at - 1
        record = slot.records(section, at, behind + 1)
        ffi.memmove(record, record + 1, behind * RANGE_SIZE)
        del starts[at]
        slot.set_count(section, len(starts))


class Need(NamedTuple):
    """What machines take of the sections that can be full; no others can (file.py)."""

    machines: int
    addresses: int
    ranges: int


def _need(entries: Iterable[Entry]) -> Need:
    machines = addresses = uids = gids = 0
    for entry in entries:
        machines += 1
        addresses += len(entry.addresses) - count_at_hand(entry.addresses)
        uids += len(entry.uid_extents)
        gids += len(entry.gid_extents)
    return Need(machines, addresses, max(uids, gids))


def _fits(need: Need, scale: int) -> bool:
    capacity = {shape.field: shape.capacity(scale) for shape in SECTIONS}
    return (need.machines < capacity["machines"] and need.addresses < capacity["addresses"]
            and need.ranges <= capacity["uid_ranges"])
