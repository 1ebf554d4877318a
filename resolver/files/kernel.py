# SPDX-License-Identifier: MIT
"""System calls that Python 3.11 has no functions for."""

import ctypes
import errno
import os
import struct

RENAME_NOREPLACE = 1 << 0  # linux/fs.h
FICLONE = 0x40049409  # linux/fs.h, _IOW(0x94, 9, int)

RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_IN_ROOT = 0x01, 0x02, 0x04, 0x10  # linux/openat2.h

TRIES = 16
"""openat2(2) says EAGAIN where something was renamed or mounted, anywhere, while it went through `..`."""

NAMES_BUFFER_SIZE = 32768
"""Bytes of names that are read from a directory at once: some thousand of them."""

_SYS_OPENAT2 = 437  # on every architecture but alpha (asm-generic/unistd.h)
_DIRENT = struct.Struct("=QqHB")  # struct linux_dirent64 of getdents(2): d_ino, d_off, d_reclen, d_type; then the name

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.getdents64.restype = ctypes.c_ssize_t  # glibc 2.30
_buffer = ctypes.create_string_buffer(NAMES_BUFFER_SIZE)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(directory: int, path: bytes, flags: int, resolve: int) -> int:
    """openat2(2), without a mode. The descriptor is not inherited. OSError."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    for _ in range(TRIES):
        fd: int = _libc.syscall(ctypes.c_long(_SYS_OPENAT2), ctypes.c_int(directory), ctypes.c_char_p(path),
                                ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)))
        if fd >= 0:
            return fd
        if ctypes.get_errno() != errno.EAGAIN:
            break
    raise _error(path)


def rename_new(old_directory: int, old: bytes, new_directory: int, new: bytes) -> None:
    """rename(2) to a name that must be free: FileExistsError. EINVAL where the file system has no such call."""
    if _libc.renameat2(ctypes.c_int(old_directory), ctypes.c_char_p(old), ctypes.c_int(new_directory),
                       ctypes.c_char_p(new), ctypes.c_uint(RENAME_NOREPLACE)) < 0:
        raise _error(new)


def setns(descriptor: int, kind: int) -> None:
    """setns(2). OSError."""
    if _libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)) < 0:
        raise _error(None)


def read_names(directory: int) -> list[tuple[bytes, int]]:
    """The next names of a directory, `.` and `..` too, each with the offset behind it (lseek(2)); none at its end.

    OSError.
    """
    size = _libc.getdents64(ctypes.c_int(directory), _buffer, ctypes.c_size_t(NAMES_BUFFER_SIZE))
    if size < 0:
        raise _error(None)
    records = ctypes.string_at(_buffer, size)
    names = []
    start = 0
    while start < size:
        _, offset, length, _ = _DIRENT.unpack_from(records, start)
        first = start + _DIRENT.size
        names.append((records[first:records.index(b"\0", first)], offset))
        start += length
    return names


def _error(path: bytes | None) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), path)
