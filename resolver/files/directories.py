# SPDX-License-Identifier: MIT
"""Where one is in a tree: the directories from its top down to here.

A tree may be deeper than a process may have descriptors, so only the last OPEN_MAX of them are open. On the way up one
that was closed is opened again as the `..` of the one below, and must be the one that it was: whoever may change the
tree can move a directory elsewhere meanwhile.
"""

import errno
import os
from dataclasses import dataclass, field

from resolver.files.kernel import read_names

OPEN_MAX = 64
"""Descriptors of a tree's directories. A process may have 1024 (RLIMIT_NOFILE); few trees are deeper than 20."""

DEPTH_MAX = 100_000
"""Levels of a tree. Each costs some 500 bytes, and a file system made by a guest (FUSE) has as many as it likes."""

FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Identity = tuple[int, int]
"""st_dev and st_ino."""


@dataclass(slots=True)
class Level:
    """One directory. Its names are read some at a time, and read again from `offset` on where it was closed."""

    name: bytes
    fd: int
    status: os.stat_result
    """As it was when it was first opened."""
    offset: int = 0
    pending: list[tuple[bytes, int]] = field(default_factory=list)

    @property
    def identity(self) -> Identity:
        return self.status.st_dev, self.status.st_ino

    def next_name(self) -> bytes | None:
        """None at the end. OSError."""
        while True:
            if not self.pending:
                self.pending = read_names(self.fd)
                self.pending.reverse()
                if not self.pending:
                    return None
            name, self.offset = self.pending.pop()
            if name not in (b".", b".."):
                return name

    def rewind(self) -> None:
        self.offset = os.lseek(self.fd, 0, os.SEEK_SET)
        self.pending = []

    def open_again(self, below: int) -> None:
        """OSError where the directory `below` is not in this one any more."""
        fd = os.open(b"..", FLAGS, dir_fd=below)
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != self.identity:
            os.close(fd)
            raise OSError(errno.ESTALE, "a directory in it was moved while it was worked on", self.name)
        os.lseek(fd, self.offset, os.SEEK_SET)
        self.fd = fd

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self.pending = []
            os.close(fd)


class Directories:
    """A stack of them. To be closed."""

    def __init__(self, where: bytes = b"") -> None:
        """`where` is the path of the directory that the first one lies in, for errors."""
        self._levels: list[Level] = []
        self._where = where

    def __bool__(self) -> bool:
        return bool(self._levels)

    def __len__(self) -> int:
        return len(self._levels)

    @property
    def last(self) -> Level:
        """The one where we are. IndexError where there is none."""
        return self._levels[-1]

    def enter(self, name: bytes, fd: int) -> Level:
        """Go down into a directory; the descriptor is ours from here on."""
        level = Level(name, fd, os.fstat(fd))
        self._levels.append(level)
        if len(self) > DEPTH_MAX:
            raise OSError(errno.ENAMETOOLONG, f"deeper than {DEPTH_MAX} directories", self.path())
        if len(self) > OPEN_MAX:
            self._levels[-1 - OPEN_MAX].close()
        return level

    def leave(self) -> Level:
        """Go up. The one that was left is given back, closed. OSError where the one above is not to be had any more."""
        level = self._levels.pop()
        try:
            if self and self.last.fd < 0:
                self.last.open_again(level.fd)
        except OSError as error:
            error.filename = self.path()
            raise
        finally:
            level.close()
        return level

    def path(self, name: bytes = b"") -> bytes:
        """Of the last one, or of what has this name in it."""
        names = [level.name for level in self._levels] + ([name] if name else [])
        where = self._where.rstrip(b"/") + b"/" if self._where else b""
        return where + b"/".join(names)

    def close(self) -> None:
        while self._levels:
            self._levels.pop().close()
