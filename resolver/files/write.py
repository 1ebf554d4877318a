# SPDX-License-Identifier: MIT
"""The writing side: entries become a tree.

What is new is made in a hidden directory beside its place (workspace.py) and appears when it is complete: a file, or a
whole tree. Where directories that exist are merged, that holds for each file and for each new directory in them.

    place ... existing directories, where the new thing will have its name      self._existing
          ... the directories of the new thing, from the workspace on           self._new
"""

import errno
import os
import signal
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress

from resolver.files import attributes
from resolver.files.content import Contents
from resolver.files.directories import FLAGS, Directories, Identity
from resolver.files.entries import DEVICES, Entry, Kind
from resolver.files.kernel import RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2, rename_new
from resolver.files.paths import shown
from resolver.files.progress import Progress
from resolver.files.workspace import NEW, Workspace


class Writer:
    """Writes one tree, or one file, as `name` in a directory. To be ended by finish() or discard()."""

    def __init__(self, directory: int, name: bytes, progress: Progress, *, replace: bool = False,
                 where: bytes = b"") -> None:
        """With `replace`, files that are there are replaced, each at once, and directories merged: those that are there
        keep their owner and mode. Without, nothing may be there. `where` is the directory's path, for errors.
        """
        self._directory, self._name = directory, name
        self._replace = replace
        self._progress = progress
        self._contents = Contents(progress)
        self._existing, self._new = Directories(where), Directories(where)
        self._staging = [_Staging(directory)]
        """The workspace for each of the existing directories, the first for the one that we were given."""
        self._begun = False
        self.avoid: set[Identity] = set()
        """Directories that are not to be read meanwhile."""

    def put(self, entry: Entry) -> None:
        """OSError, with the path of what could not be made."""
        if not self._begun:
            entry.name = self._name
        path = self.path(entry.name)
        try:
            if not self._begun:
                self._begin(entry)
            elif not self._existing and not self._new:
                raise OSError(errno.EINVAL, "something comes behind the tree's end")
            if entry.kind is Kind.ENTER:
                self._enter(entry)
            elif entry.kind is Kind.LEAVE:
                self._leave(entry)
            else:
                self._leaf(entry)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), path) from None
        if entry.kind is not Kind.LEAVE:
            self._progress.advance(files=1)

    def finish(self) -> None:
        """All was written."""
        if not self._begun or self._existing or self._new:
            raise OSError(errno.EPIPE, "the tree has no end")
        self.discard()

    def discard(self) -> None:
        """Take away what is not complete; SIGTERM does not disturb that. What cannot be deleted stays, hidden."""
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            self._existing.close()
            self._new.close()
            while self._staging:
                self._staging.pop().discard(self._progress.sign_of_life())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def path(self, name: bytes = b"") -> bytes:
        """Of an entry of this name that comes now, for errors."""
        if not self._begun:
            name = self._name
        if not self._new:
            return self._existing.path(name)
        # the new one's top has the name that it will have
        return self._existing.path(self._new.path(name)) if self._existing else self._new.path(name)

    # --- where things go ---

    @property
    def _here(self) -> int:
        """The existing directory that we are in."""
        return self._existing.last.fd if self._existing else self._directory

    def _begin(self, entry: Entry) -> None:
        self._begun = True
        if entry.kind is Kind.ENTER:
            _refuse_inside(self._directory, entry.identity)
        if not self._replace and _exists(self._directory, self._name):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def _enter(self, entry: Entry) -> None:
        if self._new:
            self._make_directory(self._new.last.fd, entry.name, entry.name)
        elif self._replace and _exists(self._here, entry.name):
            self._enter_existing(entry)
        else:
            self._make_directory(self._staging[-1].fd, NEW, entry.name)
            self.avoid.add(self._staging[-1].workspace.identity)

    def _make_directory(self, directory: int, name: bytes, called: bytes) -> None:
        os.mkdir(name, 0o700, dir_fd=directory)
        self._new.enter(called, os.open(name, FLAGS, dir_fd=directory))

    def _enter_existing(self, entry: Entry) -> None:
        staging = self._staging[-1]
        try:
            fd = openat2(self._here, entry.name, FLAGS, RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS)
            level = self._existing.enter(entry.name, fd)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise NotADirectoryError(errno.ENOTDIR, "a symbolic link is there, the source is a directory") from None
            if error.errno == errno.ENOTDIR:
                raise NotADirectoryError(errno.ENOTDIR, "a file is there, the source is a directory") from None
            if error.errno != errno.EXDEV:
                raise
            # Something is mounted there: what is new can only be renamed within it.
            level = self._existing.enter(entry.name, os.open(entry.name, FLAGS, dir_fd=self._here))
            staging = _Staging(level.fd)
        self._staging.append(staging)
        if level.identity == entry.identity:
            raise OSError(errno.EINVAL, "this is the source itself")
        self.avoid.add(level.identity)

    def _leave(self, entry: Entry) -> None:
        if self._new:
            level = self._new.last
            _set_attributes(level.fd, entry)
            self._new.leave()
            if not self._new:
                self._publish(level.name, directory=True)
        else:
            self._existing.leave()
            staging = self._staging.pop()
            if staging is not self._staging[-1]:
                staging.discard(self._progress.sign_of_life())

    def _leaf(self, entry: Entry) -> None:
        staging = self._staging[-1]
        if self._new:
            self._make(entry, self._new.last.fd, entry.name)
        else:
            self._make(entry, staging.fd, NEW)
            self._publish(entry.name, directory=False)

    def _publish(self, name: bytes, *, directory: bool) -> None:
        staging = self._staging[-1].fd
        if self._replace and not directory:
            try:
                os.rename(NEW, name, src_dir_fd=staging, dst_dir_fd=self._here)
            except IsADirectoryError as error:
                raise IsADirectoryError(error.errno, "a directory is there, the source is none") from None
            return
        try:
            rename_new(staging, NEW, self._here, name)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Some file systems of other machines have no such call. What somebody makes there at this very moment is
            # replaced, if it is a file or an empty directory.
            if _exists(self._here, name):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            os.rename(NEW, name, src_dir_fd=staging, dst_dir_fd=self._here)

    # --- making them ---

    def _make(self, entry: Entry, directory: int, name: bytes) -> None:
        linked = entry.links > 1
        workspace = self._staging[-1].workspace if linked else None
        if workspace is not None and workspace.link(entry, directory, name):
            return
        self._MAKERS[entry.kind](self, entry, directory, name)
        if workspace is not None:
            workspace.remember(entry, directory, name)

    def _make_file(self, entry: Entry, directory: int, name: bytes) -> None:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        try:
            self._contents.copy(entry.descriptor, fd, entry.size)
            now = os.fstat(entry.descriptor)
            if (now.st_size, now.st_mtime_ns) != (entry.size, entry.modification_time):
                self._progress.note_change(shown(self.path(entry.name)))
            _set_attributes(fd, entry)
        finally:
            os.close(fd)

    def _make_symlink(self, entry: Entry, directory: int, name: bytes) -> None:
        os.symlink(entry.target, name, dir_fd=directory)
        _set_attributes_of(directory, name, entry)

    def _make_node(self, entry: Entry, directory: int, name: bytes) -> None:
        """A FIFO, a socket that nobody listens on, or a device."""
        device = entry.device if entry.kind in DEVICES else 0
        os.mknod(name, stat.S_IFMT(entry.mode) | 0o600, device, dir_fd=directory)
        _set_attributes_of(directory, name, entry)

    _MAKERS: Mapping[Kind, Callable[["Writer", Entry, int, bytes], None]] = {
        Kind.FILE: _make_file, Kind.SYMLINK: _make_symlink, Kind.FIFO: _make_node, Kind.SOCKET: _make_node,
        Kind.CHARACTER: _make_node, Kind.BLOCK: _make_node}


class _Staging:
    """A workspace in a directory, made when it is needed."""

    def __init__(self, directory: int) -> None:
        self._directory = os.dup(directory)
        self._workspace: Workspace | None = None

    @property
    def workspace(self) -> Workspace:
        if self._workspace is None:
            self._workspace = Workspace(self._directory)
        return self._workspace

    @property
    def fd(self) -> int:
        return self.workspace.fd

    def discard(self, progress: Progress | None = None) -> None:
        """May be called again."""
        if self._directory >= 0:
            os.close(self._directory)
        workspace, self._directory, self._workspace = self._workspace, -1, None
        if workspace is not None:
            with suppress(OSError):  # what is to be told is why it is taken away, or that all is well
                workspace.discard(progress)


def _set_attributes_of(directory: int, name: bytes, entry: Entry) -> None:
    """For what is not opened. It was made by us a moment ago; who may write there may have put another one there."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if stat.S_IFMT(os.fstat(fd).st_mode) != stat.S_IFMT(entry.mode):
            raise OSError(errno.ESTALE, "it was replaced while it was made")
        _set_attributes(attributes.path_of(fd), entry)
    finally:
        os.close(fd)


def _set_attributes(place: attributes.Place, entry: Entry) -> None:
    """The owner first, who loses set-user-id bits and capabilities; the times last."""
    try:
        os.chown(place, entry.uid, entry.gid)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOVERFLOW):
            raise
        raise OSError(error.errno, f"its user {entry.uid} or its group {entry.gid} does not exist there") from None
    if entry.kind is not Kind.SYMLINK:
        os.chmod(place, stat.S_IMODE(entry.mode))
    attributes.write(place, entry.attributes)
    os.utime(place, ns=(entry.access_time, entry.modification_time))


def _exists(directory: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _refuse_inside(directory: int, source: Identity) -> None:
    """OSError where a directory lies in the source, or is it."""
    fd = os.dup(directory)
    last = None
    try:
        while True:
            status = os.fstat(fd)
            identity = status.st_dev, status.st_ino
            if identity == source:
                raise OSError(errno.EINVAL, "it lies in the source, which cannot be copied into itself")
            if identity == last:
                return
            last = identity
            try:
                above = os.open(b"..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            except PermissionError:  # a guest's root may not see what lies above its own
                return
            os.close(fd)
            fd = above
    finally:
        os.close(fd)
