# SPDX-License-Identifier: MIT
"""The reading side: a tree becomes entries."""

import errno
import os
import stat
from collections.abc import Iterator

from resolver.files import attributes
from resolver.files.directories import FLAGS, Directories, Identity, Level
from resolver.files.entries import KINDS, Entry, Kind
from resolver.files.paths import shown
from resolver.files.progress import Progress

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""O_NONBLOCK: a file with a lease is an error, and does not block (fcntl(2), F_SETLEASE)."""


class Reader:
    """Reads what `name` is in a directory. Mount points in it are entered, as `cp -a` does.

    Each thing is held by O_PATH, which opens nothing; regular files and directories are then opened by that.
    """

    def __init__(self, directory: int, name: bytes, progress: Progress, *, where: bytes = b"",
                 look_at: int | None = None) -> None:
        """`where` is the directory's path, for errors.

        Entries of the user or group `look_at` come with a descriptor, whatever their kind.
        """
        self._directory, self._name = directory, name
        self._progress = progress
        self._look_at = look_at
        self._levels = Directories(where)
        self.avoid: set[Identity] = set()
        """Directories that are written meanwhile: to meet one would have no end."""

    def __iter__(self) -> Iterator[Entry]:
        """OSError, with the path in the tree."""
        try:
            yield from self._thing(self._directory, self._name)
            while self._levels:
                level = self._levels.last
                name = self._next_name(level)
                if name is None:
                    yield from self._leave(level)
                    continue
                try:
                    yield from self._thing(level.fd, name)
                except FileNotFoundError:
                    self._progress.note_change(shown(self.path(name)))
        finally:
            self._levels.close()

    def path(self, name: bytes = b"") -> bytes:
        return self._levels.path(name)

    def _next_name(self, level: Level) -> bytes | None:
        try:
            return level.next_name()
        except FileNotFoundError:  # the directory itself was removed
            return None
        except OSError as error:
            raise _at(self.path(), error) from None

    def _thing(self, directory: int, name: bytes) -> Iterator[Entry]:
        """Its entry. FileNotFoundError where it has vanished before anything was told of it."""
        opened: list[int] = []
        try:
            try:
                entry = self._open(directory, name, opened)
            except OSError as error:
                raise _at(self.path(name), error) from None
            yield entry
        finally:
            for fd in opened:
                os.close(fd)

    def _open(self, directory: int, name: bytes, opened: list[int]) -> Entry:
        held = os.open(name, _LOOK, dir_fd=directory)
        opened.append(held)
        status = os.fstat(held)
        kind = KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            raise OSError(errno.EINVAL, "it is of no known kind")
        if kind is Kind.ENTER:
            if (status.st_dev, status.st_ino) in self.avoid:
                raise OSError(errno.EINVAL, "it is where the copy is made, and cannot be copied into itself")
            self._levels.enter(name, os.open(b".", FLAGS, dir_fd=held))
            entry = Entry(Kind.ENTER, name)
            entry.identity = self._levels.last.identity
            return entry
        if kind is Kind.FILE:
            file = os.open(attributes.path_of(held), _READ)
            opened.append(file)
            entry = self._entry(kind, name, status, file)
            entry.size, entry.descriptor = status.st_size, file
            return entry
        entry = self._entry(kind, name, status, attributes.path_of(held))
        if kind is Kind.SYMLINK:
            entry.target = os.readlink(b"", dir_fd=held)
        self._let_look(entry, status, held)
        return entry

    def _leave(self, level: Level) -> Iterator[Entry]:
        try:
            entry = self._entry(Kind.LEAVE, b"", level.status, level.fd)
        except OSError as error:
            raise _at(self.path(), error) from None
        self._let_look(entry, level.status, level.fd)
        yield entry
        self._levels.leave()

    def _entry(self, kind: Kind, name: bytes, status: os.stat_result, place: attributes.Place) -> Entry:
        return Entry(
            kind, name, status.st_mode, status.st_uid, status.st_gid, status.st_atime_ns, status.st_mtime_ns, 0,
            status.st_rdev, status.st_nlink, (status.st_dev, status.st_ino), b"", attributes.read(place))

    def _let_look(self, entry: Entry, status: os.stat_result, descriptor: int) -> None:
        if self._look_at in (status.st_uid, status.st_gid):
            entry.descriptor = descriptor


def _at(path: bytes, error: OSError) -> OSError:
    """The error, with the path in the tree for a file name."""
    return OSError(error.errno, error.strerror or str(error), path)
