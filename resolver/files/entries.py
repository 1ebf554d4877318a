# SPDX-License-Identifier: MIT
"""A tree as a row of entries: what is read on one side and written on the other, in one process or in two.

    tree      = directory | leaf
    directory = ENTER, tree..., LEAVE
    leaf      = FILE | SYMLINK | FIFO | SOCKET | CHARACTER | BLOCK

LEAVE has the directory's attributes, for they are set when all lies in it.
"""

import enum
import stat
from dataclasses import dataclass, field


class Kind(enum.IntEnum):
    """Kinds of entries. The numbers are those of packets too."""

    ENTER = 1
    LEAVE = 2
    FILE = 3
    SYMLINK = 4
    FIFO = 5
    SOCKET = 6
    CHARACTER = 7
    BLOCK = 8


KINDS = {
    stat.S_IFDIR: Kind.ENTER, stat.S_IFREG: Kind.FILE, stat.S_IFLNK: Kind.SYMLINK, stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET, stat.S_IFCHR: Kind.CHARACTER, stat.S_IFBLK: Kind.BLOCK,
}
"""By the file type of inode(7), S_IFMT of a mode."""

DEVICES = {Kind.CHARACTER, Kind.BLOCK}


@dataclass(slots=True)
class Entry:
    """One of them."""

    kind: Kind
    name: bytes = b""
    """One component of a path; empty with LEAVE."""
    mode: int = 0
    """All of it (inode(7)), permissions and type."""
    uid: int = 0
    gid: int = 0
    access_time: int = 0
    """Nanoseconds since the epoch, as the next."""
    modification_time: int = 0
    size: int = 0
    """Of a regular file when it was opened: what is copied at the most."""
    device: int = 0
    """What a device node stands for (st_rdev)."""
    links: int = 1
    identity: tuple[int, int] = (0, 0)
    """(st_dev, st_ino), the same for names of one file."""
    target: bytes = b""
    """Of a symlink."""
    attributes: dict[bytes, bytes] = field(default_factory=dict)
    """Extended ones (xattr(7)), with their values."""
    descriptor: int = -1
    """Of a regular file, open for reading. Of anything else, only where somebody is to look at it: then O_PATH will do.
    It is the reader's, and closed before the next entry is."""
