# SPDX-License-Identifier: MIT
"""What an image says of itself: its host name, machine id, machine-info and os-release. Blocking: for a worker.

An image may come from anywhere. Its paths are resolved below its own root (openat2(2), RESOLVE_IN_ROOT), so that no
link in it leads to a file of the host; only regular files are opened, and only their beginnings read.

Not of raw images and block devices: to look into them, the kernel of the host would have to mount a file system that
somebody else has made, on behalf of any user who asks.
"""

import errno
import os
import re
import stat
from typing import Any

from machine_images import discovery
from machine_images.image import Image, ImageType
from resolver.core.errors import NotSupported
from resolver.files.paths import open_in
from resolver.guest.os_release import parse_os_release

FILE_MAX = 64 * 1024
"""Bytes that are read of a file; the longest os-release of a distribution has some 1,000. A longer one is none."""

HOSTNAME_MAX = 64  # linux/utsname.h

_MACHINE_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


def read(name: str) -> dict[str, Any]:
    """`hostname`, `machine_id` (hexadecimal), `machine_info` and `os_release`; what is not there is left out.

    NoSuchImage, NotSupported for what is no directory, OSError.
    """
    image = discovery.find(name)
    if image.type not in (ImageType.DIRECTORY, ImageType.SUBVOLUME):
        raise NotSupported(f"what is in a {image.type} image is not looked at")
    root = os.open(image.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _read(root, image)
    finally:
        os.close(root)


def _read(root: int, _image: Image) -> dict[str, Any]:
    found: dict[str, Any] = {}
    hostname = _first_line(_content(root, b"/etc/hostname")).removesuffix(".")
    if hostname and len(hostname) <= HOSTNAME_MAX and hostname.isascii() and hostname.isprintable():
        found["hostname"] = hostname
    machine_id = _first_line(_content(root, b"/etc/machine-id"))
    if machine_id and _MACHINE_ID.fullmatch(machine_id) and int(machine_id, 16):
        found["machine_id"] = machine_id
    machine_info = _content(root, b"/etc/machine-info")
    if machine_info is not None:
        found["machine_info"] = parse_os_release(machine_info)  # assignments of the same form (machine-info(5))
    for path in (b"/etc/os-release", b"/usr/lib/os-release"):
        os_release = _content(root, path)
        if os_release is not None:
            found["os_release"] = parse_os_release(os_release)
            break
    return found


def _content(root: int, path: bytes) -> bytes | None:
    """A regular file's content, None for anything else."""
    try:
        place = open_in(root, path, os.O_PATH)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode) or os.fstat(place).st_size > FILE_MAX:
            return None
        with open(f"/proc/self/fd/{place}", "rb", buffering=0) as file:
            content = file.read(FILE_MAX + 1) or b""
            return content if len(content) <= FILE_MAX else None
    finally:
        os.close(place)


def _first_line(content: bytes | None) -> str:
    if not content:
        return ""
    lines = (line.strip() for line in content.decode(errors="replace").splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")
