# SPDX-License-Identifier: MIT
"""What the file system tells of a file beyond stat(2): when it was made, whether it is immutable; and making it so."""

import ctypes
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

_AT_EMPTY_PATH = 0x1000  # linux/fcntl.h
_STATX_BASIC_STATS, _STATX_BTIME = 0x7FF, 0x800  # linux/stat.h
_STATX_ATTR_IMMUTABLE = 0x10
_SIZE = 256  # struct statx
_TIME = struct.Struct("=qI")  # struct statx_timestamp: seconds, nanoseconds
_MASK, _ATTRIBUTES, _BTIME, _MTIME = 0, 8, 80, 112  # offsets

_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS, _FS_IMMUTABLE_FL = 0x80086601, 0x40086602, 0x10  # linux/fs.h

_libc = ctypes.CDLL(None, use_errno=True)


class Facts(NamedTuple):
    """Times in microseconds since 1970, 0 where the file system keeps none."""

    created: int
    modified: int
    immutable: bool


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A directory. OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def facts_of(descriptor: int) -> Facts:
    """statx(2) of an open file, which may be open as a place alone. OSError."""
    buffer = ctypes.create_string_buffer(_SIZE)
    if _libc.statx(ctypes.c_int(descriptor), b"", ctypes.c_int(_AT_EMPTY_PATH),
                   ctypes.c_uint(_STATX_BASIC_STATS | _STATX_BTIME), buffer) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    data = buffer.raw
    (mask,), (attributes,) = struct.unpack_from("=I", data, _MASK), struct.unpack_from("=Q", data, _ATTRIBUTES)
    created = _microseconds(data, _BTIME) if mask & _STATX_BTIME else 0
    return Facts(created, _microseconds(data, _MTIME), bool(attributes & _STATX_ATTR_IMMUTABLE))


def _microseconds(data: bytes, offset: int) -> int:
    seconds, nanoseconds = _TIME.unpack_from(data, offset)
    return max(0, int(seconds) * 1_000_000 + int(nanoseconds) // 1000)


def set_immutable(path: str, immutable: bool) -> None:
    """The flag that chattr(1) calls i, of a directory. OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        (flags,) = struct.unpack("i", fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(4)))
        wanted = flags | _FS_IMMUTABLE_FL if immutable else flags & ~_FS_IMMUTABLE_FL
        if wanted != flags:
            fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, struct.pack("i", wanted))
    finally:
        os.close(descriptor)


def set_writable(path: str, writable: bool) -> None:
    """The bits of a regular file's mode: taken from all, or given to its owner. OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        os.fchmod(descriptor, mode | 0o200 if writable else mode & ~0o222)
    finally:
        os.close(descriptor)
