# SPDX-License-Identifier: MIT
"""What subvolumes of btrfs use and may use: its quota groups (linux/btrfs.h, linux/btrfs_tree.h; btrfs-quota(5)).

Each subvolume has a group of its own, 0/ID, which does not count the subvolumes below it. What is to count these too is
a group of a higher level with the same ID, of which all of them are members. systemd makes the same groups of the same
numbers, so that what either makes the other finds: systemd-importd puts what it brings into the pool's.
"""

import errno
import fcntl
import struct
from contextlib import suppress
from typing import NamedTuple

from machine_images.btrfs import ior, iow, iowr, search, subvolume_id

POOL_LEVEL, IMAGE_LEVEL = 255, 254
"""Of the groups that are made here. A group's members are of lower levels; systemd begins at the highest too."""

_LEVEL_SHIFT = 48  # BTRFS_QGROUP_LEVEL_SHIFT
_TREE = 8  # BTRFS_QUOTA_TREE_OBJECTID
_STATUS_KEY, _INFO_KEY, _LIMIT_KEY, _RELATION_KEY = 240, 242, 244, 246
_STATUS = struct.Struct("<4Q")  # version, generation, flags, rescan
_INCONSISTENT = 1 << 2
_INFO = struct.Struct("<5Q")  # generation, rfer, rfer_cmpr, excl, excl_cmpr
_LIMIT_ITEM = struct.Struct("<5Q")  # flags, max_rfer, max_excl, rsv_rfer, rsv_excl
_MAX_RFER, _MAX_EXCL = 1 << 0, 1 << 1

_CONTROL_ARGS, _ENABLE = struct.Struct("=QQ"), 1  # cmd, status
_CONTROL = iowr(40, _CONTROL_ARGS.size)
_ASSIGN_ARGS = struct.Struct("=QQQ")  # assign, src, dst
_ASSIGN = iow(41, _ASSIGN_ARGS.size)
_CREATE_ARGS = struct.Struct("=QQ")  # create, qgroupid
_CREATE = iow(42, _CREATE_ARGS.size)
_LIMIT_ARGS = struct.Struct("=Q5Q")  # qgroupid, then flags, max_rfer, max_excl, rsv_rfer, rsv_excl
_LIMIT = ior(43, _LIMIT_ARGS.size)
_RESCAN_ARGS = struct.Struct("=8Q")
_RESCAN = iow(44, _RESCAN_ARGS.size)

_NO_LIMIT = 2**64 - 1


class Quota(NamedTuple):
    """Bytes; None where it is not limited."""

    referenced: int
    exclusive: int
    limit: int | None
    exclusive_limit: int | None


def quota_of(top: int) -> Quota | None:
    """Of a subvolume, with those below it where they are counted together; None where nobody counts. OSError."""
    try:
        group = _group_of(top)
        info, limit = (search(top, _TREE, (0, 0), kind, (group, group)) for kind in (_INFO_KEY, _LIMIT_KEY))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EPERM, errno.ENOTTY):
            return None
        raise
    if not info:
        return None
    _, referenced, _, exclusive, _ = _INFO.unpack_from(info[0].content)
    limits: list[int | None] = [None, None]
    if limit:
        flags, *values, _, _ = _LIMIT_ITEM.unpack_from(limit[0].content)
        limits = [value if flags & flag and value != _NO_LIMIT else None
                  for flag, value in zip((_MAX_RFER, _MAX_EXCL), values, strict=True)]
    return Quota(referenced, exclusive, *limits)


def enable(top: int) -> None:
    """Have the file system count what each subvolume uses. OSError."""
    fcntl.ioctl(top, _CONTROL, _CONTROL_ARGS.pack(_ENABLE, 0))


def set_limit(top: int, size: int | None) -> None:
    """Of what a subvolume, or its group with those below it, refers to; None: no limit.

    OSError: ENOTCONN or ENOENT where nobody counts.
    """
    wanted = _NO_LIMIT if size is None else size  # (u64) -1: take the limit away
    fcntl.ioctl(top, _LIMIT, _LIMIT_ARGS.pack(_group_of(top), _MAX_RFER, wanted, 0, 0, 0))


def make_group(top: int, below: list[int], level: int) -> None:
    """Count a subvolume and those `below`, by their ids, together from now on. OSError, ENOTCONN as above."""
    own = subvolume_id(top)
    group = _group_of(top)
    if group == own:
        group = level << _LEVEL_SHIFT | own
        with suppress(FileExistsError):
            fcntl.ioctl(top, _CREATE, _CREATE_ARGS.pack(1, group))
    for member in (own, *below):
        _assign(top, member, group)


def join(top: int, pool: int) -> None:
    """Count a new subvolume with the pool, where that has a group for what is below it. OSError."""
    try:
        group = _group_of(pool)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return
        raise
    if group >> _LEVEL_SHIFT:
        _assign(top, subvolume_id(top), group)


def recount(top: int) -> None:
    """Have the kernel count all anew, in the background, where it knows that its numbers are wrong. OSError.

    It is so where what has blocks already changes its groups, and after a snapshot of what is in several. Until then
    nothing is counted at all, and no limit holds.
    """
    try:
        status = search(top, _TREE, (0, 0), _STATUS_KEY, (0, 0))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EPERM, errno.ENOTTY):
            return
        raise
    if status and _STATUS.unpack_from(status[0].content)[2] & _INCONSISTENT:
        with suppress(OSError):  # EINPROGRESS: it does
            fcntl.ioctl(top, _RESCAN, bytearray(_RESCAN_ARGS.size))


def _group_of(top: int) -> int:
    """The one that counts a subvolume with those below it: of the same id, as low as can be; or just its own."""
    own = subvolume_id(top)
    related = [item.offset for item in search(top, _TREE, (own, own), _RELATION_KEY, (0, 2**64 - 1))]
    return min((group for group in related if group >> _LEVEL_SHIFT and group & (1 << _LEVEL_SHIFT) - 1 == own),
               default=own)


def _assign(top: int, member: int, group: int) -> None:
    with suppress(FileExistsError):
        fcntl.ioctl(top, _ASSIGN, _ASSIGN_ARGS.pack(1, member, group))
