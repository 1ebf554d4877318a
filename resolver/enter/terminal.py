# SPDX-License-Identifier: MIT
"""A pseudo terminal of a machine (pty(7)).

The machine has laid out /dev/pts, and may have put anything there: a FIFO that blocks who opens it, a file of its own,
the host's terminals. So the path is resolved without opening anything, and what is there must be the clone device of a
devpts file system that is not the host's.
"""

import ctypes
import fcntl
import os
import stat
import struct
from dataclasses import dataclass

from resolver.core.errors import NotAvailable
from resolver.enter.identity import as_root_of
from resolver.enter.place import Place
from resolver.files.paths import open_in

PTMX = b"/dev/pts/ptmx"
"""Not /dev/ptmx, which is a link to this one, or a device that finds it by its neighbour."""

HOST_PTS = "/dev/pts"

_PTMX_DEVICE = os.makedev(5, 2)  # Documentation/admin-guide/devices.txt of Linux
_DEVPTS_SUPER_MAGIC = 0x1CD1  # linux/magic.h
_TERMINALS = 136  # UNIX98_PTY_SLAVE_MAJOR of linux/major.h
_TIOCSPTLCK, _TIOCGPTN, _TIOCGPTPEER = 0x40045431, 0x80045430, 0x5441  # asm-generic/ioctls.h
_STATFS_SIZE = 256  # struct statfs has at most 120 bytes; f_type comes first

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Terminal:
    """The master's descriptor, and the number of the terminal in the machine."""

    master: int
    number: int

    @property
    def path(self) -> str:
        """In the machine."""
        return f"/dev/pts/{self.number}"


def open_terminal(place: Place) -> Terminal:
    """A new one, unlocked, the machine's root's. NotAvailable where the machine has none to give; OSError."""
    host_terminals = None if place.is_host else os.stat(HOST_PTS).st_dev
    done, (master,) = as_root_of(place, lambda: _open(place, host_terminals))
    return Terminal(master, done["number"])


def open_peer(terminal: Terminal) -> int:
    """Its other end, whatever lies at its path; the caller's to close. OSError."""
    return fcntl.ioctl(terminal.master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def _open(place: Place, host_terminals: int | None) -> tuple[dict[str, int], list[int]]:
    found = open_in(place.root, PTMX, os.O_PATH)
    status = os.fstat(found)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _PTMX_DEVICE or _kind_of(found) != _DEVPTS_SUPER_MAGIC:
        raise NotAvailable(f"what the machine has at {PTMX.decode()} gives no terminals")
    if status.st_dev == host_terminals:
        raise NotAvailable("the machine has the host's terminals, and none of its own")
    # By its descriptor: nothing is looked up again. /proc is the host's own.
    master = os.open(f"/proc/self/fd/{found}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    (number,) = struct.unpack("i", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))
    # What is to run on it goes by the path, which must lead to its other end. That one is not opened to compare them:
    # a terminal that was open and is closed has hung up, for whoever reads it before a program has opened it again.
    at_path = os.fstat(open_in(place.root, b"/dev/pts/%d" % number, os.O_PATH | os.O_NOFOLLOW))
    if (at_path.st_dev, at_path.st_rdev) != (status.st_dev, os.makedev(_TERMINALS, number)):
        raise NotAvailable(f"what the machine has at /dev/pts/{number} is not that terminal")
    return {"number": number}, [master]


def _kind_of(descriptor: int) -> int:
    """Of its file system (statfs(2)); fstatfs(2) takes descriptors that are places alone since Linux 3.12."""
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    if _libc.fstatfs(ctypes.c_int(descriptor), buffer) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(ctypes.c_long.from_buffer(buffer).value)
