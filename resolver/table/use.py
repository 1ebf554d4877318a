# SPDX-License-Identifier: MIT
"""Which records of a table are in use, and for what: the same for both slots, which differ only in age."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from resolver._table import lib
from resolver.table.file import SECTIONS

_MACHINE_AT = int(lib.KEY_MACHINE_AT)  # found once: as an attribute of the library it takes longer than the rest of it


class Pool:
    """Which records of a section are free. Record 0 is nobody."""

    def __init__(self, capacity: int) -> None:
        self._taken = bytearray(capacity)
        self._taken[0] = True
        self.left = capacity - 1
        """How many records can still be taken."""

    def take(self, count: int) -> tuple[int, ...]:
        """The first free ones, of which so many are left."""
        taken, at, indices = self._taken, 0, []
        for _ in range(count):
            at = taken.index(False, at)
            taken[at] = True
            indices.append(at)
        self.left -= count
        return tuple(indices)

    def give_back(self, indices: Iterable[int]) -> None:
        for index in indices:
            self._taken[index] = False
            self.left += 1


class Keys:
    """A section of keys (Keys, in table.h). `words` is what it holds."""

    def __init__(self, places: int) -> None:
        self._mask = places - 1
        self._hashes = array("I", bytes(4 * places))
        self.words = array("I", bytes(4 * places))

    def add(self, hashed: int, machine: int, kind: int = 0) -> int:
        """The place that the key got. `kind`: enum name_kind."""
        at = hashed & self._mask
        while self.words[at]:
            at = (at + 1) & self._mask
        self.words[at], self._hashes[at] = _word(hashed, machine, kind), hashed
        return at

    def drop(self, hashed: int, machine: int, kind: int = 0) -> list[int]:
        """The places that changed: keys behind it, which would not be found any more behind a free place, move up.

        KeyError: it is not there.
        """
        mask, words, hashes = self._mask, self.words, self._hashes
        word = _word(hashed, machine, kind)
        at = hashed & mask
        while (words[at], hashes[at]) != (word, hashed):
            if not words[at]:
                raise KeyError(hashed, machine, kind)
            at = (at + 1) & mask
        changed = [at]
        free = at
        while words[at := (at + 1) & mask]:
            if (at - hashes[at]) & mask >= (at - free) & mask:  # its own place is not behind the free one
                words[free], hashes[free] = words[at], hashes[at]
                changed.append(at)
                free = at
        words[free] = 0
        return changed


def _word(hashed: int, machine: int, kind: int) -> int:
    return hashed & 0xff000000 | machine << _MACHINE_AT | kind


@dataclass(slots=True)
class Place:
    """Where a machine's parts lie: its record and its details, and what is in pools."""

    machine: int
    addresses: tuple[int, ...] = ()
    uid_extents: tuple[int, ...] = ()
    gid_extents: tuple[int, ...] = ()


class Use:
    """Nothing is in use at first."""

    def __init__(self, scale: int) -> None:
        capacity = {shape.field: shape.capacity(scale) for shape in SECTIONS}
        self.places: dict[str, Place] = {}  # by the machine's key
        self.machines = Pool(capacity["machines"])
        self.addresses, self.extents = Pool(capacity["addresses"]), Pool(capacity["extents"])
        self.name_keys, self.address_keys = Keys(capacity["name_keys"]), Keys(capacity["address_keys"])
        self.range_starts: dict[str, list[int]] = {"uid_ranges": [], "gid_ranges": []}  # sorted, as the records are
        self.range_capacity = capacity["uid_ranges"]
