# SPDX-License-Identifier: MIT
"""Hidden directories, in which things are made before they appear under their names, and deleted after they have gone.

One lies in the directory in which the thing has its name, so that a rename is all that is left to do. It is root's, and
nobody else may look into it. Who works on it holds a lock (flock(2)): one without is what a killed process left.
"""

import errno
import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass

from resolver.files import attributes
from resolver.files.delete import delete
from resolver.files.directories import FLAGS, Identity
from resolver.files.entries import Entry, Kind
from resolver.files.progress import Progress

PREFIX = b".#mymachines-"
"""Of their names. systemd passes over files named like this, as over an editor's back-up copies."""

NEW = b"new"
"""What is being made in it, or deleted."""

LINKED_MAX = 2_000_000
"""Files whose other names have yet to come, each with some 300 bytes. A file system that a guest makes (FUSE) has as
many as it likes; the biggest real ones, of back-ups by hard links, have a few million files in all."""

_LINKS = b"links"


class Workspace:
    """One of them."""

    def __init__(self, directory: int) -> None:
        """Make one in a directory. OSError."""
        self.name = PREFIX + os.urandom(8).hex().encode()
        self.fd = -1
        self._directory = os.dup(directory)
        self._links = -1
        self._linked: dict[tuple[Identity, Kind], _Linked] = {}
        self._links_made = 0
        try:
            os.mkdir(self.name, 0o700, dir_fd=self._directory)
            self.fd = os.open(self.name, FLAGS, dir_fd=self._directory)
            with suppress(OSError):  # a file system without locks
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.chmod(self.fd, 0o700)  # without the set-group-id bit of the directory that it lies in
            attributes.strip_inherited(self.fd)
        except BaseException:
            self.discard()
            raise

    @property
    def identity(self) -> Identity:
        status = os.fstat(self.fd)
        return status.st_dev, status.st_ino

    def link(self, entry: Entry, directory: int, name: bytes) -> bool:
        """Give the file of an entry one more name, if remember() has it."""
        linked = self._linked.get((entry.identity, entry.kind))
        if linked is None:
            return False
        try:
            os.link(linked.name, name, src_dir_fd=self._links, dst_dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.EMLINK, errno.EXDEV):
                return False
            raise
        linked.lacking -= 1
        if linked.lacking <= 0:
            os.unlink(linked.name, dir_fd=self._links)
            del self._linked[entry.identity, entry.kind]
        return True

    def remember(self, entry: Entry, directory: int, name: bytes) -> None:
        """Have a file of more than one name here until all of them are made."""
        if self._links < 0:
            os.mkdir(_LINKS, 0o700, dir_fd=self.fd)
            self._links = os.open(_LINKS, FLAGS, dir_fd=self.fd)
        if len(self._linked) >= LINKED_MAX:
            raise OSError(errno.ENOMEM, f"more than {LINKED_MAX} files have other names that were not met yet")
        self._links_made += 1
        linked = _Linked(b"%d" % self._links_made, entry.links - 1)
        try:
            os.link(name, linked.name, src_dir_fd=directory, dst_dir_fd=self._links, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EOPNOTSUPP):  # a file system without hard links: copied once more
                return
            raise
        self._linked[entry.identity, entry.kind] = linked

    def discard(self, progress: Progress | None = None) -> None:
        """Delete it, with all that is left in it. OSError where something cannot be; it is closed then too."""
        try:
            with suppress(FileNotFoundError):
                delete(self._directory, self.name, progress or Progress())
        finally:
            for fd in (self.fd, self._links, self._directory):
                if fd >= 0:
                    os.close(fd)


@dataclass(slots=True)
class _Linked:
    name: bytes
    lacking: int
