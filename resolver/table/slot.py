# SPDX-License-Identifier: MIT
"""One slot being written: typed access to its records, and a note of every byte range that was changed."""

from array import array
from collections.abc import Sequence
from typing import Any

from resolver._table import ffi
from resolver.table.file import SECTIONS, TableFile

Range = tuple[int, int]
"""Offset from the start of the slot and length, in bytes."""

_HEADER_SIZE = int(ffi.sizeof("struct slot_header"))


class Slot:
    """A slot of a table's file. What is put or taken counts as changed since begin().

    It keeps pointers into the file's map: it goes before the file is closed.
    """

    def __init__(self, table: TableFile, number: int) -> None:
        self.base = table.slot(number)
        self.header: Any = ffi.cast("struct slot_header *", self.base)
        self.changed: list[Range] = []
        # Made once: finding a type by its name costs as much as writing a record.
        offsets = table.offsets()
        self._sections = {
            shape.field: (ffi.cast(shape.record + " *", self.base + offsets[shape.field]), offsets[shape.field],
                          shape.record_size)
            for shape in SECTIONS}

    def begin(self, other: "Slot", behind: list[Range]) -> None:
        """Copy from the other slot what changed there since this one was written last, and begin a new note."""
        for offset, length in behind:
            ffi.memmove(self.base + offset, other.base + offset, length)
        self.changed = []

    def records(self, field: str, index: int, count: int) -> Any:
        """A pointer to `count` records from `index` on, to be changed."""
        first, offset, size = self._sections[field]
        self.changed.append((offset + index * size, count * size))
        return first + index

    def put(self, field: str, index: int, record: object) -> None:
        """Write one record: a number, or a tuple of all fields in their order."""
        first, offset, size = self._sections[field]
        self.changed.append((offset + index * size, size))
        first[index] = record

    def fill(self, field: str, first: int, records: Sequence[object]) -> None:
        """Write records in a row: numbers, or tuples of all fields in their order."""
        if records:
            self.records(field, first, len(records))[0 : len(records)] = records

    def peek(self, field: str, index: int) -> Any:
        """A pointer to one record, to be read alone."""
        return self._sections[field][0] + index

    def fill_whole(self, field: str, numbers: "array[int]") -> None:
        """Write a section of numbers."""
        size = len(numbers) * numbers.itemsize
        ffi.memmove(self.records(field, 0, len(numbers)), numbers, size)

    def set_count(self, ranges: str, count: int) -> None:
        """How many records of uid_ranges or gid_ranges are in use."""
        self.changed.append((0, _HEADER_SIZE))
        getattr(self.header, ranges).capacity = count
