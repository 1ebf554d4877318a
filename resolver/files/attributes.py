# SPDX-License-Identifier: MIT
"""Extended attributes (xattr(7)): POSIX access control lists and file capabilities are such too.

In a user namespace the kernel itself translates the ids in both of these, and hides `trusted.`.
"""

import errno
import os
from collections.abc import Mapping

Place = int | bytes
"""A descriptor, or the path /proc/self/fd/N of one that was opened with O_PATH."""

_UNSUPPORTED = {errno.ENOTSUP}
_ANY = {errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL}

FORGIVEN: Mapping[bytes, set[int]] = {
    b"system.posix_acl_": set(),  # without its list, a file's mode would let in others
    b"security.capability": _UNSUPPORTED,  # without, it can do less
    b"user.": _UNSUPPORTED,
    b"": _ANY,  # such as labels of a security module, which a host of another policy does not take
}
"""By how the name begins: why one may be left out where it cannot be set, as `cp -a` leaves it out."""

MADE_BY_DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"
"""What a new file gets where its directory has a default list."""


def path_of(descriptor: int) -> bytes:
    """A path that leads to what a descriptor of O_PATH stands for, a symlink itself too (proc_pid_fd(5))."""
    return b"/proc/self/fd/%d" % descriptor


def read(place: Place) -> dict[bytes, bytes]:
    """All that may be read; none where the file system has no such thing."""
    values = {}
    try:
        names = os.listxattr(place)
    except OSError as error:
        if error.errno in _ANY:
            return {}
        raise
    for name in map(os.fsencode, names):
        try:
            values[name] = os.getxattr(place, name)
        except OSError as error:
            # ENODATA: it has just gone
            if error.errno != errno.ENODATA and error.errno not in _forgiven(name):
                raise
    return values


def write(place: Place, values: Mapping[bytes, bytes]) -> None:
    """OSError, with the attribute's name in its text."""
    for name, value in values.items():
        try:
            os.setxattr(place, name, value)
        except OSError as error:
            if error.errno not in _forgiven(name):
                raise OSError(error.errno, f"{error.strerror} ({name.decode(errors='replace')})") from None


def strip_inherited(place: Place) -> None:
    """Take away what a new file got from its directory's default list."""
    for name in MADE_BY_DEFAULT:
        try:
            os.removexattr(place, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EACCES):
                raise


def has_default_list(place: Place) -> bool:
    """Whether what is made in a directory gets one."""
    return "system.posix_acl_default" in os.listxattr(place)


def _forgiven(name: bytes) -> set[int]:
    return FORGIVEN[max((beginning for beginning in FORGIVEN if name.startswith(beginning)), key=len)]
