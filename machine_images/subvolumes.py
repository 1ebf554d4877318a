# SPDX-License-Identifier: MIT
"""Trees of subvolumes: cloned by snapshots, removed from the bottom up.

A subvolume may hold others, as the /var/lib of a machine that makes some of its own; a snapshot of it has empty
directories in their places. So may a plain directory on btrfs.

What is not complete yet, and what is to go, lies in a hidden directory as copied trees do (resolver.files.workspace).
A machine may run from a tree that is cloned, and change it: no link in it is followed.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator

from machine_images import btrfs, quota
from resolver.files import attributes
from resolver.files.copy import copy
from resolver.files.directories import FLAGS
from resolver.files.kernel import RESOLVE_NO_SYMLINKS, openat2, rename_new
from resolver.files.progress import Progress
from resolver.files.workspace import NEW, PREFIX, Workspace

SUBVOLUMES_MAX = 10000
"""Within one tree. Whoever is in a machine may make as many as he likes; each takes a step of its own here."""

_TREE = PREFIX + b"tree"

DEPTH_MAX = 100
"""Of subvolumes within subvolumes. Each takes a call within a call here, and three descriptors."""


def same_file_system(top: int, directory: int) -> bool:
    """Whether a subvolume can be cloned into a directory by a snapshot. OSError."""
    return btrfs.is_btrfs(directory) and btrfs.file_system_id(top) == btrfs.file_system_id(directory)


def ids_below(top: int) -> list[int]:
    """All subvolumes below a subvolume. OSError: EMLINK beyond SUBVOLUMES_MAX or DEPTH_MAX."""
    found: list[int] = []
    level = [btrfs.subvolume_id(top)]
    for _ in range(DEPTH_MAX):
        level = [child.id for subvolume in level for child in btrfs.children(top, subvolume)]
        found += level
        if not level:
            return found
        if len(found) > SUBVOLUMES_MAX:
            break
    raise OSError(errno.EMLINK, f"it has more than {SUBVOLUMES_MAX} subvolumes, or more than {DEPTH_MAX} in each other")


def snapshot(top: int, directory: int, name: bytes, progress: Progress) -> None:
    """Of a subvolume and all below it, as a subvolume `name`. FileExistsError, OSError; nothing is left then."""
    ids_below(top)  # not too many
    hidden = Workspace(directory)
    try:
        _snapshot(top, hidden.fd, NEW, directory, progress)
        quota.recount(directory)
        rename_new(hidden.fd, NEW, directory, name)
    finally:
        _discard(hidden, progress)


def copied(source_directory: int, source: bytes, directory: int, name: bytes, progress: Progress) -> None:
    """Copy a tree as a subvolume, so that it can be cloned by snapshots and limited. As resolver.files.copy.copy()."""
    hidden = Workspace(directory)
    try:
        btrfs.create(hidden.fd, NEW)
        with _opened(hidden.fd, NEW) as made:
            quota.join(made, directory)
            # Below its top, for hard links do not lead from one subvolume to another, and then up.
            copy(source_directory, source, made, _TREE, progress)
            with _opened(made, _TREE) as tree:
                for entry in os.listdir(os.fsencode(f"/proc/self/fd/{tree}")):
                    os.rename(entry, entry, src_dir_fd=tree, dst_dir_fd=made)
                _take_attributes(tree, made)
            os.rmdir(_TREE, dir_fd=made)
            status = os.stat(source, dir_fd=source_directory)
            os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))
        quota.recount(directory)
        rename_new(hidden.fd, NEW, directory, name)
    finally:
        _discard(hidden, progress)


def remove(directory: int, name: bytes, progress: Progress) -> None:
    """A directory on btrfs, a subvolume or not, and all below it: first from sight, then for good. OSError."""
    hidden = Workspace(directory)
    try:
        with _opened(directory, name) as top:
            locked = False
            if btrfs.is_subvolume(top):
                ids_below(top)
                locked = btrfs.is_read_only(top)
                btrfs.set_read_only(top, False)  # one that is cannot be moved to another directory
            try:
                os.rename(name, NEW, src_dir_fd=directory, dst_dir_fd=hidden.fd)
            except BaseException:
                if locked:
                    btrfs.set_read_only(top, True)
                raise
    finally:
        _discard(hidden, progress)


def delete_leftovers(directory: int) -> None:
    """Delete the subvolumes that killed operations have left in a directory; the hidden directories stay."""
    for name in os.listdir(directory):
        if name.startswith(os.fsdecode(PREFIX)):
            with contextlib.suppress(OSError), _opened(directory, os.fsencode(name)) as hidden:
                fcntl.flock(hidden, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError: somebody works on it
                _destroy(hidden, NEW, Progress())


def _snapshot(top: int, directory: int, name: bytes, pool: int, progress: Progress) -> None:
    btrfs.snapshot(top, directory, name)
    progress.advance(files=1)
    with _opened(directory, name) as made:
        quota.join(made, pool)
        for below in btrfs.paths_below(top):
            folder, entry = os.path.split(below)
            with _opened(top, below) as source, _opened(made, folder or b".") as there:
                before = os.fstat(there)
                os.rmdir(entry, dir_fd=there)  # the empty directory in its place
                _snapshot(source, there, entry, pool, progress)
                os.utime(there, ns=(before.st_atime_ns, before.st_mtime_ns))


def _discard(hidden: Workspace, progress: Progress) -> None:
    with contextlib.suppress(FileNotFoundError):
        _destroy(hidden.fd, NEW, progress)
    hidden.discard(progress)


def _destroy(directory: int, name: bytes, progress: Progress) -> None:
    """The subvolumes of a tree; what is no subvolume stays."""
    with _opened(directory, name) as top:
        is_subvolume = btrfs.is_subvolume(top)
        if is_subvolume:
            btrfs.set_read_only(top, False)
        for below in btrfs.paths_below(top):
            folder, entry = os.path.split(below)
            with _opened(top, folder or b".") as there:
                _destroy(there, entry, progress)
    if is_subvolume:
        btrfs.destroy(directory, name)
        progress.advance(files=1)


def _take_attributes(source: int, target: int) -> None:
    status = os.fstat(source)
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    attributes.strip_inherited(target)
    attributes.write(target, attributes.read(source))


@contextlib.contextmanager
def _opened(directory: int, path: bytes) -> Iterator[int]:
    descriptor = openat2(directory, path, FLAGS, RESOLVE_NO_SYMLINKS)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
