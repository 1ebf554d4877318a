# SPDX-License-Identifier: MIT
"""Deleting trees of any depth: no symlink is followed, and no mount point crossed."""

import os

from resolver.files.directories import FLAGS, Directories
from resolver.files.kernel import RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from resolver.files.progress import Progress


def delete(directory: int, name: bytes, progress: Progress) -> None:
    """Delete what `name` is in a directory, from its leaves on.

    FileNotFoundError where there is no such thing. Any other OSError, with the path in the tree, leaves a part of it:
    EXDEV or EBUSY where something is mounted in it, EPERM for an immutable file.
    """
    if _unlinked(directory, name):
        return
    levels = Directories()
    deleted = [0]  # in each directory, since its names were begun
    try:
        levels.enter(name, _open(directory, name))
        while levels:
            below = levels.last.next_name()
            if below is None:
                if not _emptied(levels, deleted, directory):
                    continue
            else:
                try:
                    if not _unlinked(levels.last.fd, below):
                        levels.enter(below, _open(levels.last.fd, below))
                        deleted.append(0)
                        continue
                except FileNotFoundError:  # somebody else was faster
                    continue
                except OSError as error:
                    raise OSError(error.errno, error.strerror, levels.path(below)) from None
            if levels:
                deleted[-1] += 1
            progress.advance(files=1)
    finally:
        levels.close()


def _emptied(levels: Directories, deleted: list[int], directory: int) -> bool:
    """Remove the last directory. False where it has names still, and is to be gone through once more.

    For some file systems pass over names while others go. Where a whole pass found nothing to delete, there is no use.
    """
    level = levels.last
    level.rewind()
    if deleted[-1] and level.next_name() is not None:
        level.rewind()
        deleted[-1] = 0
        return False
    path = levels.path()
    levels.leave()
    try:
        os.rmdir(level.name, dir_fd=levels.last.fd if levels else directory)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    deleted.pop()
    return True


def _unlinked(directory: int, name: bytes) -> bool:
    """False for a directory."""
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        return False
    return True


def _open(directory: int, name: bytes) -> int:
    return openat2(directory, name, FLAGS, RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS)
