# SPDX-License-Identifier: MIT
"""Subvolumes of btrfs, by its ioctls (linux/btrfs.h; ioctl numbers as that header makes them)."""

import ctypes
import fcntl
import os
import struct
from typing import NamedTuple

_SUPER_MAGIC = 0x9123683E  # linux/magic.h
_SUBVOLUME_INODE = 256  # BTRFS_FIRST_FREE_OBJECTID: what the top of each subvolume has

_MAGIC = 0x94


def iow(number: int, size: int) -> int:
    """The ioctl that gives the kernel `size` bytes; ior: gets them; iowr: both."""
    return 1 << 30 | size << 16 | _MAGIC << 8 | number


def ior(number: int, size: int) -> int:
    return 2 << 30 | size << 16 | _MAGIC << 8 | number


def iowr(number: int, size: int) -> int:
    return 3 << 30 | size << 16 | _MAGIC << 8 | number


_VOL_ARGS_V2 = struct.Struct("=qQQ4Q4040s")  # fd, transid, flags, unused, name
_SNAP_CREATE_V2 = iow(23, _VOL_ARGS_V2.size)
_VOL_ARGS = struct.Struct("=q4088s")
_SUBVOL_CREATE, _SNAP_DESTROY = iow(14, _VOL_ARGS.size), iow(15, _VOL_ARGS.size)
_SUBVOL_GETFLAGS, _SUBVOL_SETFLAGS = ior(25, 8), iow(26, 8)
_SUBVOL_RDONLY = 1 << 1
_SUBVOL_INFO_SIZE = 504
_GET_SUBVOL_INFO = ior(60, _SUBVOL_INFO_SIZE)
_OTIME, _TIMESPEC = 392, struct.Struct("=QI")  # of struct btrfs_ioctl_get_subvol_info_args

_SEARCH_KEY = struct.Struct("=7Q4I4Q")
_SEARCH_BUFFER = 4096
_TREE_SEARCH = iowr(17, _SEARCH_BUFFER)
_SEARCH_HEADER = struct.Struct("=QQQII")
_SEARCH_COUNT = 64  # where the number of items is, in the key
_ROOT_TREE = 1
_ROOT_REF_KEY = 156
_ROOT_REF = struct.Struct("<QQH")  # dirid, sequence, name_len; then the name
_INO_LOOKUP_ARGS = struct.Struct("=QQ4080s")  # treeid, objectid, name
_INO_LOOKUP = iowr(18, _INO_LOOKUP_ARGS.size)
_FS_INFO_SIZE = 1024  # max_id, num_devices, fsid, ...
_FS_INFO = ior(31, _FS_INFO_SIZE)

# Arguments of more than 1024 bytes are given as a bytearray: fcntl.ioctl() takes no longer ones otherwise.

_libc = ctypes.CDLL(None, use_errno=True)


def is_btrfs(descriptor: int) -> bool:
    """OSError."""
    buffer = ctypes.create_string_buffer(256)  # struct statfs has at most 120 bytes; f_type comes first
    if _libc.fstatfs(ctypes.c_int(descriptor), buffer) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(ctypes.c_long.from_buffer(buffer).value) & 0xFFFFFFFF == _SUPER_MAGIC


def is_subvolume(descriptor: int) -> bool:
    """Whether a directory is the top of one. OSError."""
    return os.fstat(descriptor).st_ino == _SUBVOLUME_INODE and is_btrfs(descriptor)


def is_read_only(descriptor: int) -> bool:
    """OSError."""
    return bool(_flags(descriptor) & _SUBVOL_RDONLY)


def set_read_only(descriptor: int, read_only: bool) -> None:
    """OSError."""
    flags = _flags(descriptor)
    wanted = flags | _SUBVOL_RDONLY if read_only else flags & ~_SUBVOL_RDONLY
    if wanted != flags:
        fcntl.ioctl(descriptor, _SUBVOL_SETFLAGS, struct.pack("=Q", wanted))


def _flags(descriptor: int) -> int:
    (flags,) = struct.unpack("=Q", fcntl.ioctl(descriptor, _SUBVOL_GETFLAGS, bytes(8)))
    return int(flags)


def snapshot(source: int, directory: int, name: bytes) -> None:
    """A writable snapshot of a subvolume. Subvolumes below it are empty directories in it. OSError."""
    fcntl.ioctl(directory, _SNAP_CREATE_V2, bytearray(_VOL_ARGS_V2.pack(source, 0, 0, 0, 0, 0, 0, name)))


def destroy(directory: int, name: bytes) -> None:
    """Remove a subvolume that has none below it. OSError: ENOTEMPTY."""
    fcntl.ioctl(directory, _SNAP_DESTROY, bytearray(_VOL_ARGS.pack(0, name)))


def create(directory: int, name: bytes) -> None:
    """A new, empty subvolume. OSError."""
    fcntl.ioctl(directory, _SUBVOL_CREATE, bytearray(_VOL_ARGS.pack(0, name)))


class Child(NamedTuple):
    """A subvolume right below another: its id, and where it is: the directory's inode number, and its name there."""

    id: int
    directory: int
    name: bytes


def children(descriptor: int, subvolume: int) -> list[Child]:
    """Those right below a subvolume, by its id, of the same file system. OSError."""
    found = []
    for item in search(descriptor, _ROOT_TREE, (subvolume, subvolume), _ROOT_REF_KEY, (0, 2**64 - 1)):
        directory, _, length = _ROOT_REF.unpack_from(item.content)
        found.append(Child(item.offset, directory, item.content[_ROOT_REF.size:_ROOT_REF.size + length]))
    return found


def paths_below(descriptor: int) -> list[bytes]:
    """The subvolumes right below a directory, which may be one itself: their paths from there. OSError."""
    own = subvolume_id(descriptor)
    top = _directory_path(descriptor, own, os.fstat(descriptor).st_ino)
    paths = (_directory_path(descriptor, own, child.directory) + child.name for child in children(descriptor, own))
    return [path[len(top):] for path in paths if path.startswith(top)]


def _directory_path(descriptor: int, subvolume: int, inode: int) -> bytes:
    """From the subvolume's top on: b"a/b/", or nothing for the top."""
    buffer = bytearray(_INO_LOOKUP_ARGS.pack(subvolume, inode, b""))
    fcntl.ioctl(descriptor, _INO_LOOKUP, buffer)
    path: bytes = _INO_LOOKUP_ARGS.unpack(buffer)[2]
    return path.partition(b"\0")[0]


def file_system_id(descriptor: int) -> bytes:
    """The same for all subvolumes of one file system, which have a device number each. OSError."""
    buffer = bytearray(_FS_INFO_SIZE)
    fcntl.ioctl(descriptor, _FS_INFO, buffer)
    return bytes(buffer[16:32])


def subvolume_id(descriptor: int) -> int:
    """OSError."""
    (number,) = struct.unpack_from("=Q", _info(descriptor))
    return int(number)


def created(descriptor: int) -> int:
    """When it was made, in microseconds since 1970; a snapshot's top directory tells its origin's time. OSError."""
    seconds, nanoseconds = _TIMESPEC.unpack_from(_info(descriptor), _OTIME)
    return int(seconds * 1_000_000 + nanoseconds // 1000)


def _info(descriptor: int) -> bytes:
    buffer = bytearray(_SUBVOL_INFO_SIZE)
    fcntl.ioctl(descriptor, _GET_SUBVOL_INFO, buffer)
    return bytes(buffer)


class Item(NamedTuple):
    object: int
    offset: int
    content: bytes


def search(descriptor: int, tree: int, objects: tuple[int, int], kind: int, offsets: tuple[int, int]) -> list[Item]:
    """All items of one type with these objects' ids, and these offsets of their keys. OSError."""
    found: list[Item] = []
    first = offsets[0]
    while first <= offsets[1]:
        key = _SEARCH_KEY.pack(tree, *objects, first, offsets[1], 0, 2**64 - 1, kind, kind, 2**32 - 1, 0, 0, 0, 0, 0)
        buffer = bytearray(key.ljust(_SEARCH_BUFFER, b"\0"))
        fcntl.ioctl(descriptor, _TREE_SEARCH, buffer)
        (count,) = struct.unpack_from("=I", buffer, _SEARCH_COUNT)
        if not count:
            break
        at = _SEARCH_KEY.size
        for _ in range(count):
            _, number, offset, _, length = _SEARCH_HEADER.unpack_from(buffer, at)
            at += _SEARCH_HEADER.size
            found.append(Item(number, offset, bytes(buffer[at:at + length])))
            at += length
        first = found[-1].offset + 1
    return found
