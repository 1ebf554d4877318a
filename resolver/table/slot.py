# SPDX-License-Identifier: MIT
"""One slot being written: typed access to its records, and a note of every byte range that was changed."""

from typing import Any

from resolver._table import ffi
from resolver.table.file import SECTIONS, TableFile

Range = tuple[int, int]
"""Offset from the start of the slot and length, in bytes."""


class Slot:
    """The idle slot during one publication. What is taken by record() or records() counts as changed."""

    def __init__(self, table: TableFile, number: int) -> None:
        self.base = table.slot(number)
        self.header: Any = ffi.cast("struct slot_header *", self.base)
        self.changed: list[Range] = []
        self._shapes = {shape.field: shape for shape in SECTIONS}

    def record(self, field: str, index: int) -> Any:
        """A pointer to one record, to be changed."""
        return self.records(field, index, 1)

    def records(self, field: str, first: int, count: int) -> Any:
        """A pointer to `count` records from `first` on, to be changed."""
        shape = self._shapes[field]
        offset = int(getattr(self.header, field).offset) + first * shape.record_size
        self.changed.append((offset, count * shape.record_size))
        return ffi.cast(shape.record + " *", self.base + offset)

    def peek(self, field: str, index: int) -> Any:
        """A pointer to one record, to be read alone."""
        shape = self._shapes[field]
        return ffi.cast(shape.record + " *", self.base + int(getattr(self.header, field).offset)) + index

    def touch_header(self) -> Any:
        """The slot's header, to be changed."""
        self.changed.append((0, int(ffi.sizeof("struct slot_header"))))
        return self.header

    def catch_up(self, other: Any, ranges: list[Range]) -> None:
        """Copy from the slot at `other` what changed there since this slot was written last."""
        for offset, length in ranges:
            ffi.memmove(self.base + offset, other + offset, length)
