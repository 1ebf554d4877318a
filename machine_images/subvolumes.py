# SPDX-License-Identifier: MIT
"""Trees of subvolumes: cloned by snapshots, removed from the bottom up.

A subvolume may hold others, as the /var/lib of a machine that makes some of its own; a snapshot of it has empty
directories in their places.

What is not complete yet, and what is to go, lies in a hidden directory as copied trees do (resolver.files.workspace).
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

from machine_images import btrfs
from resolver.files.kernel import rename_new
from resolver.files.progress import Progress
from resolver.files.workspace import NEW, PREFIX, Workspace

SUBVOLUMES_MAX = 10000
"""Within one. A machine may make as many as it likes; each takes a step of its own here."""

_NEW = os.fsdecode(NEW)


def same_file_system(path: str, directory: int) -> bool:
    """Whether a subvolume can be cloned into a directory by a snapshot. OSError."""
    with _opened(path) as top:
        return btrfs.is_btrfs(directory) and btrfs.file_system_id(top) == btrfs.file_system_id(directory)


def snapshot(path: str, directory: int, name: str, read_only: bool, progress: Progress) -> None:
    """Of a subvolume and all below it, as a subvolume `name`. FileExistsError, OSError; nothing is left then."""
    hidden = Workspace(directory)
    try:
        with _opened(path) as top:
            _snapshot(top, hidden.fd, _NEW, progress)
        rename_new(hidden.fd, NEW, directory, os.fsencode(name))
        if read_only:  # one that is cannot be renamed
            with _opened(name, directory) as made:
                btrfs.set_read_only(made, True)
    finally:
        _discard(hidden, progress)


def remove(directory: int, name: str, progress: Progress) -> None:
    """A subvolume and all below it: first from sight, then for good. OSError."""
    hidden = Workspace(directory)
    try:
        with _opened(name, directory) as top:
            was_read_only = btrfs.is_read_only(top)
            btrfs.set_read_only(top, False)  # one that is cannot be renamed
            try:
                os.rename(name, _NEW, src_dir_fd=directory, dst_dir_fd=hidden.fd)
            except OSError:
                btrfs.set_read_only(top, was_read_only)
                raise
    finally:
        _discard(hidden, progress)


def delete_leftovers(directory: int) -> None:
    """Delete the subvolumes that killed operations have left in a directory; the hidden directories stay."""
    for name in os.listdir(directory):
        if name.startswith(os.fsdecode(PREFIX)):
            with contextlib.suppress(OSError), _opened(name, directory) as hidden:
                fcntl.flock(hidden, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError: somebody works on it
                _destroy(hidden, _NEW, Progress())


def _snapshot(top: int, directory: int, name: str, progress: Progress) -> None:
    btrfs.snapshot(top, directory, os.fsencode(name))
    progress.advance(files=1)
    with _opened(name, directory) as made:
        for below in _below(top):
            folder, entry = os.path.split(below)
            with _opened(below, top) as source, _opened(folder or ".", made) as there:
                os.rmdir(entry, dir_fd=there)  # the empty directory in its place
                _snapshot(source, there, entry, progress)


def _discard(hidden: Workspace, progress: Progress) -> None:
    with contextlib.suppress(FileNotFoundError):
        _destroy(hidden.fd, _NEW, progress)
    hidden.discard(progress)


def _destroy(directory: int, name: str, progress: Progress) -> None:
    with _opened(name, directory) as top:
        btrfs.set_read_only(top, False)
        for below in _below(top):
            folder, entry = os.path.split(below)
            with _opened(folder or ".", top) as there:
                _destroy(there, entry, progress)
    btrfs.destroy(directory, os.fsencode(name))
    progress.advance(files=1)


def _below(top: int) -> list[str]:
    """The subvolumes right below, by their paths. OSError: EMLINK beyond SUBVOLUMES_MAX."""
    found = btrfs.children(top)
    if len(found) > SUBVOLUMES_MAX:
        raise OSError(errno.EMLINK, f"there are more than {SUBVOLUMES_MAX} subvolumes in the image")
    return found


@contextlib.contextmanager
def _opened(path: str, directory: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
