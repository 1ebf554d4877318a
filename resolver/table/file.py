# SPDX-License-Identifier: MIT
"""The table's file: made whole before it appears, never truncated, taken over by a restarted daemon."""

import contextlib
import mmap
import os
import re
import stat
from typing import Any, NamedTuple

from resolver._table import ffi, lib

MAGIC = b"mymachin"

_TABLE_NAME = re.compile(r"\.?(table-[0-9]+)(\.new|\.old)?")
"""Of any layout's; see _new_path(), _aside_path()."""

SCALE_FIRST = 1
"""A first table is 20 KiB and has room for 15 machines; each scale doubles that.

So small, since the kernel maps what lies in one piece of 64 KiB at the first touch of any of it: where few machines
are, the first look-up of a process takes one page fault, and no time for pages without use.
"""


class SectionShape(NamedTuple):
    """A section of a slot: its field in struct slot_header, the C type of its records and its size, records at scale 1.
    """

    field: str
    record: str
    record_size: int
    records: int

    @classmethod
    def of(cls, field: str, record: str, records: int) -> "SectionShape":
        return cls(field, record, int(ffi.sizeof(record)), records)

    def capacity(self, scale: int) -> int:
        """Records at a scale. Keys stay a power of two, as the reader requires."""
        return self.records * scale


LINE = 64
"""Sections begin where a line of the processor's cache does: a machine's record is one line then."""

# Extents: as many as ranges of both kinds, so that these are full before. Keys: a third more than there can be names
# and addresses, for the fewer places are free, the longer searches become.
SECTIONS = (
    SectionShape.of("machines", "struct machine_record", 16),
    SectionShape.of("details", "struct detail_record", 16),
    SectionShape.of("addresses", "struct address_record", 48),
    SectionShape.of("extents", "struct extent_record", 48),
    SectionShape.of("name_keys", "uint32_t", 64),
    SectionShape.of("address_keys", "uint32_t", 128),
    SectionShape.of("uid_ranges", "struct range_record", 24),
    SectionShape.of("gid_ranges", "struct range_record", 24),
)


def _round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _lay_out(scale: int) -> tuple[dict[str, int], int]:
    """Where each section of a slot begins, and where the last one ends, in bytes from the start of the slot."""
    offsets, end = {}, int(ffi.sizeof("struct slot_header"))
    for shape in SECTIONS:
        offsets[shape.field] = _round_up(end, LINE)
        end = offsets[shape.field] + shape.capacity(scale) * shape.record_size
    return offsets, end


def slot_size(scale: int) -> int:
    """Bytes of a slot at a scale: its header and sections, rounded up to whole pages."""
    return _round_up(_lay_out(scale)[1], lib.TABLE_PAGE)


def file_size(scale: int) -> int:
    """Bytes of the whole file at a scale."""
    return lib.TABLE_PAGE + lib.TABLE_SLOTS * slot_size(scale)


class TableFile:
    """A mapped table file. `scale` says how many records its sections hold."""

    def __init__(self, path: str, descriptor: int, scale: int) -> None:
        self.path = path
        self.scale = scale
        self.slot_size = slot_size(scale)
        self._descriptor = descriptor
        self._map = mmap.mmap(descriptor, file_size(scale))
        self._buffer = ffi.from_buffer("uint8_t[]", self._map, require_writable=True)
        self.header: Any = ffi.cast("struct table_header *", self._buffer)

    @classmethod
    def create(cls, path: str, scale: int) -> "TableFile":
        """Make an empty table under a name that nobody reads yet; appear() puts it at `path`.

        OSError where it cannot be had whole, ENOSPC for one: no hole is left that a reader could die of.
        """
        if file_size(scale) > lib.TABLE_SIZE_MAX:
            raise OSError(27, f"a table of {file_size(scale)} bytes is more than readers map", path)  # EFBIG
        new = _new_path(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            os.fchmod(descriptor, 0o644)  # whatever the umask
            os.posix_fallocate(descriptor, 0, file_size(scale))
            table = cls(path, descriptor, scale)
        except BaseException:
            os.close(descriptor)
            os.unlink(new)
            raise
        header = table.header
        ffi.memmove(header.magic, MAGIC, len(MAGIC))
        header.layout = lib.TABLE_LAYOUT
        header.file_size = file_size(scale)
        header.slot_size = slot_size(scale)
        for slot in range(lib.TABLE_SLOTS):
            header.slot_offset[slot] = lib.TABLE_PAGE + slot * slot_size(scale)
            table._lay_out(slot)
        return table

    @classmethod
    def adopt(cls, path: str) -> "TableFile | None":
        """Take over the table that a predecessor left at `path`, so that processes that mapped it need not map again.

        None where there is none, or none that this version could have left. What a writer left that was killed while it
        put a new file in the old one's place is put right.
        """
        with contextlib.suppress(OSError):
            _retire_aside(path)
        with contextlib.suppress(OSError):
            os.unlink(_new_path(path))  # it takes room
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        status = os.fstat(descriptor)
        scale = SCALE_FIRST
        while file_size(scale) < status.st_size:
            scale *= 2
        ours = (stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_mode & 0o777 == 0o644
                and file_size(scale) == status.st_size and status.st_blocks * 512 >= status.st_size)
        if not ours:
            os.close(descriptor)
            return None
        try:
            table = cls(path, descriptor, scale)
        except BaseException:
            os.close(descriptor)
            raise
        header = table.header
        expected = (MAGIC, lib.TABLE_LAYOUT, file_size(scale), slot_size(scale), 0)
        found = (bytes(header.magic), header.layout, header.file_size, header.slot_size, header.retired)
        offsets = [lib.TABLE_PAGE + slot * slot_size(scale) for slot in range(lib.TABLE_SLOTS)]
        if found != expected or list(header.slot_offset) != offsets:
            table.close()
            return None
        return table

    def appear(self) -> None:
        """Put the file at its path, and retire what is there. OSError: that is there still, and this one nowhere.

        What is there keeps a second name until it is retired: should we be killed in between, our successor finds it.
        Else processes would go on reading it, for up to a second, while the successor publishes.
        """
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_aside_path(self.path))
            with contextlib.suppress(FileNotFoundError):
                os.link(self.path, _aside_path(self.path), follow_symlinks=False)
            os.rename(_new_path(self.path), self.path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(_new_path(self.path))
            raise
        with contextlib.suppress(OSError):
            _retire_aside(self.path)

    def retire(self) -> None:
        """Tell whoever has the file mapped to look at the path again."""
        lib.table_retire(self.header)

    def unlink(self) -> None:
        """Take the file from its path, where it is still this file that is there. Where that cannot be, on a read-only
        file system, it stays; nobody reads it if it is retired."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.lstat(self.path), os.fstat(self._descriptor)):
                os.unlink(self.path)

    def close(self) -> None:
        """Let go of the map; the file stays as it is."""
        self.header = None
        ffi.release(self._buffer)
        self._map.close()
        os.close(self._descriptor)

    def slot(self, number: int) -> Any:
        """A pointer to the first byte of a slot."""
        return self._buffer + lib.TABLE_PAGE + number * self.slot_size

    def clear(self, number: int) -> None:
        """Make a slot an empty one, whatever it held."""
        zeros, slot = bytes(lib.TABLE_PAGE), self.slot(number)
        for offset in range(0, self.slot_size, lib.TABLE_PAGE):  # megabytes of zeros would be made for one use
            ffi.memmove(slot + offset, zeros, lib.TABLE_PAGE)
        self._lay_out(number)

    def offsets(self) -> dict[str, int]:
        """Where each section begins, in bytes from the start of a slot."""
        return _lay_out(self.scale)[0]

    def _lay_out(self, number: int) -> None:
        header = ffi.cast("struct slot_header *", self.slot(number))
        offsets = self.offsets()
        for shape in SECTIONS:
            section = getattr(header, shape.field)
            section.offset = offsets[shape.field]
            section.capacity = shape.capacity(self.scale)


def _new_path(path: str) -> str:
    """Of a file that is being made."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.new")


def _aside_path(path: str) -> str:
    """Of the file that was at the path before, until it is retired."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.old")


def _retire_aside(path: str) -> None:
    """Retire the file that another one has replaced, if there still is one. OSError."""
    aside = _aside_path(path)
    try:
        # The writer may have been killed before the new file was at the path: then this one is the table.
        if not (os.path.exists(path) and os.path.samestat(os.lstat(aside), os.lstat(path))):
            _retire_file(aside)
    except FileNotFoundError:
        return
    os.unlink(aside)


def retire_others(path: str) -> None:
    """Retire and remove tables of other layouts beside this one: nobody writes them any more, and processes that have
    them mapped would believe them for as long as they live."""
    directory, own = os.path.split(path)
    for name in os.listdir(directory):
        found = _TABLE_NAME.fullmatch(name)
        if found is not None and found[1] != own:
            with contextlib.suppress(OSError):
                _retire_file(os.path.join(directory, name))
                os.unlink(os.path.join(directory, name))


def _retire_file(path: str) -> None:
    """If it is one that could be a table. The header is the same in every layout. OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_size >= lib.TABLE_PAGE:
            with mmap.mmap(descriptor, lib.TABLE_PAGE) as page:
                buffer = ffi.from_buffer("uint8_t[]", page, require_writable=True)
                lib.table_retire(ffi.cast("struct table_header *", buffer))
                ffi.release(buffer)
    finally:
        os.close(descriptor)
