# SPDX-License-Identifier: MIT
"""The content of regular files, in the cheapest way that the two file systems have.

Shared where they can share it (FICLONE, ioctl_ficlone(2)); else copied by the kernel (copy_file_range(2)); else read
and written. Holes stay holes. What lies behind the size that the file had when it was opened is not copied, so one that
grows comes to an end; one of size 0 may be the kernel's own (/proc), and is read to its end, within reason.
"""

import errno
import fcntl
import os

from resolver.files.kernel import FICLONE
from resolver.files.progress import Progress

STEP = 16 * 2**20
"""Bytes between two looks at the clock, and at what else there is to do."""

BUFFER_SIZE = 256 * 1024
"""Bytes that are read and written at once, where the kernel does not copy by itself."""

UNSIZED_MAX = 64 * 2**20
"""Bytes of a file that has no size of its own. The longest of the kernel's have some 20 MB (/proc/kallsyms)."""

_BLOCK = 512  # what st_blocks counts (inode(7))
_UNABLE = {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS}
"""The two file systems can't, whichever the file."""
_UNFIT = _UNABLE | {errno.EINVAL, errno.EPERM, errno.ETXTBSY, errno.EBADF}
"""These two files can't: there are other ways. An error that is the disk's comes again there."""


class Contents:
    """Copies one file after the other, and remembers what the file systems can't."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._no_clone: set[tuple[int, int]] = set()
        self._no_range: set[tuple[int, int]] = set()

    def copy(self, source: int, target: int, size: int) -> None:
        """All of a regular file's, into an empty one. OSError."""
        status = os.fstat(source)
        between = status.st_dev, os.fstat(target).st_dev
        stored = min(size, status.st_blocks * _BLOCK)
        if size == 0:
            self._plain(source, target, 0, UNSIZED_MAX)
        elif self._cloned(source, target, between):
            self._progress.advance(count=stored)
        elif stored >= size:
            self._range(source, target, 0, size, between)
        else:
            self._sparse(source, target, size, between)

    def _cloned(self, source: int, target: int, between: tuple[int, int]) -> bool:
        if between in self._no_clone:
            return False
        try:
            fcntl.ioctl(target, FICLONE, source)
        except OSError as error:
            if error.errno in _UNABLE:
                self._no_clone.add(between)
            elif error.errno not in _UNFIT:
                raise
            return False
        return True

    def _sparse(self, source: int, target: int, size: int, between: tuple[int, int]) -> None:
        """Only what lies between holes (lseek(2), SEEK_DATA)."""
        end = 0
        while end < size:
            try:
                start = os.lseek(source, end, os.SEEK_DATA)
                end = min(size, os.lseek(source, start, os.SEEK_HOLE))
            except OSError as error:
                if error.errno != errno.ENXIO:  # no data behind here
                    raise
                break
            if start >= size or not self._range(source, target, start, end, between):
                break
            self._progress.maybe_tell()
        os.ftruncate(target, min(size, os.fstat(source).st_size))

    def _range(self, source: int, target: int, start: int, end: int, between: tuple[int, int]) -> bool:
        """False where the file has become shorter."""
        if between in self._no_range or end - start <= BUFFER_SIZE:
            return self._plain(source, target, start, end)
        while start < end:
            try:
                count = os.copy_file_range(source, target, min(STEP, end - start), start, start)
            except OSError as error:
                if error.errno in _UNABLE:
                    self._no_range.add(between)
                elif error.errno not in _UNFIT:
                    raise
                return self._plain(source, target, start, end)
            if count == 0:  # its end, or a file that it cannot do: reading tells
                return self._plain(source, target, start, end)
            start += count
            self._progress.advance(count=count)
        return True

    def _plain(self, source: int, target: int, start: int, end: int) -> bool:
        while start < end:
            data = os.pread(source, min(BUFFER_SIZE, end - start), start)
            if not data:
                return False
            rest = memoryview(data)
            while rest:
                count = os.pwrite(target, rest, start)
                start, rest = start + count, rest[count:]
            self._progress.advance(count=len(data))
        return True
