# SPDX-License-Identifier: MIT
"""Trees of subvolumes: cloned by snapshots, removed from the bottom up.

A subvolume may hold others, as the /var/lib of a machine that makes some of its own; a snapshot of it has empty
directories in their places.
"""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator

from machine_images import btrfs
from resolver.files.kernel import rename_new
from resolver.files.progress import Progress

HIDDEN = ".#subvolume-"
"""Begins the names of what is not complete yet, and of what is to go."""

SUBVOLUMES_MAX = 10000
"""Within one image. A machine may make as many as it likes; each takes a step of its own here."""


def same_file_system(path: str, directory: int) -> bool:
    """Whether a subvolume can be cloned into a directory by a snapshot. OSError."""
    with _opened(path) as top:
        return btrfs.is_btrfs(directory) and btrfs.file_system_id(top) == btrfs.file_system_id(directory)


def snapshot(path: str, directory: int, name: str, read_only: bool, progress: Progress) -> None:
    """Of a subvolume and all below it, as a subvolume `name`. FileExistsError, OSError; nothing is left then."""
    hidden = HIDDEN + secrets.token_hex(8)
    try:
        with _opened(path) as top:
            _snapshot(top, directory, hidden, progress)
        rename_new(directory, os.fsencode(hidden), directory, os.fsencode(name))
    except BaseException:
        with contextlib.suppress(OSError):
            _destroy(directory, hidden, progress)
        raise
    if read_only:
        with _opened(name, directory) as made:
            btrfs.set_read_only(made, True)


def _snapshot(top: int, directory: int, name: str, progress: Progress) -> None:
    btrfs.snapshot(top, directory, os.fsencode(name))
    progress.advance(files=1)
    with _opened(name, directory) as made:
        for parent in _below(top):
            with _opened(parent, top) as source:
                folder, entry = os.path.split(parent)
                with _opened(folder or ".", made) as there:
                    os.rmdir(entry, dir_fd=there)  # the empty directory in its place
                    _snapshot(source, there, entry, progress)


def remove(directory: int, name: str, progress: Progress) -> None:
    """A subvolume and all below it: first from sight, then for good. OSError."""
    with _opened(name, directory) as top:
        was_read_only = btrfs.is_read_only(top)
        btrfs.set_read_only(top, False)  # a read-only one cannot be renamed
        hidden = HIDDEN + secrets.token_hex(8)
        try:
            os.rename(name, hidden, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            btrfs.set_read_only(top, was_read_only)
            raise
    _destroy(directory, hidden, progress)


def remove_leftovers(directory: int) -> None:
    """What killed operations have left in a directory. Whoever works there holds the pool's lock (operations.py)."""
    for name in os.listdir(directory):
        if name.startswith(HIDDEN):
            with contextlib.suppress(OSError):
                _destroy(directory, name, Progress())


def _destroy(directory: int, name: str, progress: Progress) -> None:
    with _opened(name, directory) as top:
        btrfs.set_read_only(top, False)
        for below in _below(top):
            folder, entry = os.path.split(below)
            with _opened(folder or ".", top) as there:
                _destroy(there, entry, progress)
    btrfs.destroy(directory, os.fsencode(name))
    progress.advance(files=1)


def _below(top: int) -> Iterator[str]:
    """The subvolumes right below, by their paths. OSError: EMLINK beyond SUBVOLUMES_MAX."""
    found = btrfs.children(top)
    if len(found) > SUBVOLUMES_MAX:
        raise OSError(errno.EMLINK, f"there are more than {SUBVOLUMES_MAX} subvolumes in the image")
    yield from found


@contextlib.contextmanager
def _opened(path: str, directory: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
