# SPDX-License-Identifier: MIT
"""Paths below a root that somebody else has laid out."""

import os

from resolver.files.kernel import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2


def open_in(root: int, path: bytes, flags: int = os.O_PATH) -> int:
    """What `path` is for a process that has `root` as its root: neither an absolute link nor `..` leads out. OSError.

    The last component is followed too, unless `flags` has O_NOFOLLOW. Links of /proc are refused, for they jump.
    """
    return openat2(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def split(path: bytes) -> tuple[bytes, bytes]:
    """A path's directory, and the name in it: b"." where the path ends in none, such as / and `..`."""
    directory, _, name = path.rstrip(b"/").rpartition(b"/")
    if name in (b"", b".", b".."):
        return path or b"/", b"."
    return directory or b"/", name


SHOWN_MAX = 400
"""Bytes of a path in a text: a path may have any length, what tells of it not."""


def shown(path: bytes) -> str:
    """A path for people: its beginning and end where it is long, nothing that a terminal would obey."""
    if len(path) > SHOWN_MAX:
        path = path[:SHOWN_MAX // 2] + b"..." + path[-SHOWN_MAX // 2:]
    text = path.decode(errors="replace")
    return "".join(each if each.isprintable() else "?" for each in text)
