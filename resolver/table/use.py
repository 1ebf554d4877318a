# SPDX-License-Identifier: MIT
"""Which records of a table are in use, and for what: the same for both slots, which differ only in age."""

from dataclasses import dataclass

from resolver._table import lib
from resolver.table.file import SECTIONS

ADDRESSES_AT, EXTENTS_AT = lib.ADDRESSES_AT, lib.EXTENTS_AT


def name_places(machine: int) -> range:
    """Of a machine's own name; its other names have none (Places, in table.h)."""
    return range(machine, machine + 1)


def address_places(machine: int) -> range:
    """Of its first addresses."""
    return range(machine * ADDRESSES_AT, (machine + 1) * ADDRESSES_AT)


def extent_places(machine: int, kind: str) -> range:
    """Of its first `uid` or `gid` extent."""
    first = machine * EXTENTS_AT + (kind == "gid")
    return range(first, first + 1)


class Pool:
    """Which records of a section are free. Record 0 is nobody.

    Those below `shared` are at machines' own places (Places, in table.h): others have them when nothing else is left.
    """

    def __init__(self, capacity: int, shared: int) -> None:
        self._taken = bytearray(capacity)
        self._taken[0] = True
        self._left = capacity - 1
        self._shared = shared

    def left(self) -> int:
        """How many records can still be taken."""
        return self._left

    def take(self, wanted: int = 0) -> int:
        """The wanted record, else the first free one behind it; 0: one without a place. Asserts that one is left."""
        taken = self._taken
        index = wanted or self._shared
        if taken[index]:
            index = taken.find(False, index)
            if index < 0:
                index = taken.find(False)
                assert index > 0
        taken[index] = True
        self._left -= 1
        return index

    def take_all(self, count: int, places: range) -> list[int]:
        """So many records: the first at these places, if they are free."""
        return [self.take(place) for place in places[:count]] + [self.take() for _ in range(count - len(places))]

    def take_row(self, places: range) -> None:
        """These, which are free."""
        self._taken[places.start : places.stop] = b"\1" * len(places)
        self._left -= len(places)

    def give_back(self, index: int) -> None:
        self._taken[index] = False
        self._left += 1


@dataclass(slots=True)
class Place:
    """Where a machine's parts lie."""

    machine: int
    names: tuple[tuple[int, int], ...] = ()  # enum name_kind, and the record
    addresses: tuple[int, ...] = ()
    uid_extents: tuple[int, ...] = ()
    gid_extents: tuple[int, ...] = ()


class Use:
    """Nothing is in use at first."""

    def __init__(self, scale: int) -> None:
        capacity = {shape.field: shape.capacity(scale) for shape in SECTIONS}
        self.places: dict[str, Place] = {}  # by the machine's key
        machines = capacity["machines"]
        self.machines, self.names = Pool(machines, 1), Pool(capacity["names"], machines)
        self.addresses = Pool(capacity["addresses"], machines * ADDRESSES_AT)
        self.extents = Pool(capacity["extents"], machines * EXTENTS_AT)
        self.range_starts: dict[str, list[int]] = {"uid_ranges": [], "gid_ranges": []}  # sorted, as the records are
        self.range_capacity = capacity["uid_ranges"]
        self.name_mask, self.address_mask = capacity["name_buckets"] - 1, capacity["address_buckets"] - 1
