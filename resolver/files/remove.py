# SPDX-License-Identifier: MIT
"""Removing trees: first from sight, then for good."""

import fcntl
import os
from contextlib import suppress

from resolver.files.delete import delete
from resolver.files.directories import FLAGS
from resolver.files.kernel import RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from resolver.files.progress import Progress
from resolver.files.workspace import NEW, PREFIX, Workspace


def remove(directory: int, name: bytes, progress: Progress | None = None) -> None:
    """Remove what `name` is in a directory, whatever lies below it.

    It has gone from under its name before the first file is deleted. FileNotFoundError where there is no such thing;
    OSError before anything has happened where it cannot go, as a mount point cannot. Any OSError after that, as of an
    immutable file in the tree, leaves the rest under a hidden name, as a killed process does.
    """
    hidden = Workspace(directory)
    try:
        os.rename(name, NEW, src_dir_fd=directory, dst_dir_fd=hidden.fd)
    except BaseException:
        hidden.discard()
        raise
    hidden.discard(progress)


def remove_leftovers(directory: int) -> int:
    """Delete what killed processes have left in a directory, and count it. What still cannot be deleted stays."""
    removed = 0
    for name in os.listdir(directory):
        if not name.startswith(os.fsdecode(PREFIX)):
            continue
        with suppress(OSError):
            fd = openat2(directory, os.fsencode(name), FLAGS, RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError: somebody works on it
                delete(directory, os.fsencode(name), Progress())
                removed += 1
            finally:
                os.close(fd)
    return removed
