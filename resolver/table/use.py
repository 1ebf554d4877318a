# SPDX-License-Identifier: MIT
"""Which records of a table are in use, and for what: the same for both slots, which differ only in age."""

from dataclasses import dataclass

from resolver.table.file import SECTIONS


class Pool:
    """Which records of a section are free. Record 0 is nobody."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._unused = 1
        self._free: list[int] = []

    def left(self) -> int:
        """How many records can still be taken."""
        return self._capacity - self._unused + len(self._free)

    def take(self) -> int:
        if self._free:
            return self._free.pop()
        self._unused += 1
        return self._unused - 1

    def take_first(self, count: int) -> None:
        """Of a new pool, the first so many: from record 1 on."""
        self._unused += count

    def give_back(self, index: int) -> None:
        self._free.append(index)


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
        self.machines, self.names = Pool(capacity["machines"]), Pool(capacity["names"])
        self.addresses, self.extents = Pool(capacity["addresses"]), Pool(capacity["extents"])
        self.range_starts: dict[str, list[int]] = {"uid_ranges": [], "gid_ranges": []}  # sorted, as the records are
        self.range_capacity = capacity["uid_ranges"]
        self.name_mask, self.address_mask = capacity["name_buckets"] - 1, capacity["address_buckets"] - 1
