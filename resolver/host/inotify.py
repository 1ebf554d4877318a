# SPDX-License-Identifier: MIT
"""inotify(7): the kernel tells what happens in a directory. Python's standard library does not have it."""

import ctypes
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

# sys/inotify.h
IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE = 0x2, 0x4, 0x8
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x40, 0x80, 0x100, 0x200
IN_DELETE_SELF, IN_MOVE_SELF = 0x400, 0x800
IN_Q_OVERFLOW, IN_IGNORED = 0x4000, 0x8000
IN_ONLYDIR, IN_MASK_ADD = 0x1000000, 0x20000000
_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC

READ_BYTES = 64 * 1024
"""Read at once: some 1500 events."""

_EVENT = struct.Struct("=iIII")  # watch, mask, cookie, length of the name with its padding
_libc = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """`watch` is what add() returned, -1 for an overflow; `name` a file of the directory, or empty."""

    watch: int
    mask: int
    name: str


class Inotify:
    """One queue of events, which does not block."""

    def __init__(self) -> None:
        self._fd = _checked(_libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC))

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def add(self, path: str, mask: int) -> int:
        """Watch a path. The same file or directory has the same number. OSError."""
        return _checked(_libc.inotify_add_watch(self._fd, os.fsencode(path), ctypes.c_uint32(mask)))

    def remove(self, watch: int) -> None:
        """OSError where it has gone by itself."""
        _checked(_libc.inotify_rm_watch(self._fd, watch))

    def read(self) -> list[Event]:
        """At most READ_BYTES of what has happened; empty where nothing has. OSError."""
        try:
            return list(parse(os.read(self._fd, READ_BYTES)))
        except BlockingIOError:
            return []


def parse(data: bytes) -> Iterator[Event]:
    """The events of one read(2). The kernel writes whole ones; what is cut short is left out."""
    at = 0
    while len(data) - at >= _EVENT.size:
        watch, mask, _, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        yield Event(watch, mask, os.fsdecode(data[at : at + length].partition(b"\0")[0]))
        at += length


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
