# SPDX-License-Identifier: MIT
"""Where DHCP servers keep their lease files, and reading them. It may wait for a disk, so a thread does it."""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from resolver.leases.dnsmasq import parse_dnsmasq
from resolver.leases.lease import Parsed
from resolver.leases.objects import parse_libvirt, parse_networkd

FILE_MAX = 4 * 1024 * 1024
"""Bytes of one file: twenty thousand leases in the longest of the formats."""

FILES_MAX = 256
"""Files of one directory: a DHCP server for each of as many bridges."""

PEOPLES_UIDS = range(1000, 60000)
NOBODY = 65534
"""Files that are believed are root's or a service's: dnsmasq and systemd-networkd write as users of their own. What
people wrote (UID_MIN and UID_MAX, login.defs(5)) is their word, what nobody wrote may be anybody's."""


@dataclass(frozen=True, slots=True)
class Place:
    """A directory, and which of its files are read how. The pattern's group `interface`, where it has one, is the name
    of the interface that the server serves."""

    directory: str
    pattern: re.Pattern[str]
    parse: Callable[[bytes, str], Parsed]

    def path(self, name: str) -> str:
        return f"{self.directory}/{name}"


_DNSMASQ = re.compile(r"dnsmasq(?:\.[^/]+)?\.leases")  # lxc-net puts its bridge's name in; others put what they like
_INTERFACE = re.compile(r"(?P<interface>[^/.][^/]{0,14})")  # IFNAMSIZ; what begins with a dot is being written

PLACES = (
    Place("/var/lib/misc", _DNSMASQ, parse_dnsmasq),
    Place("/var/lib/dnsmasq", _DNSMASQ, parse_dnsmasq),  # Fedora's
    Place("/var/lib/libvirt/dnsmasq", re.compile(_INTERFACE.pattern + r"\.status"), parse_libvirt),
    Place("/var/lib/systemd/network/dhcp-server-lease", _INTERFACE, parse_networkd),
    Place("/run/systemd/netif/dhcp-server-lease", _INTERFACE, parse_networkd),  # PersistLeases=runtime
)


def dnsmasq_places(paths: Iterable[str]) -> tuple[Place, ...]:
    """Lease files of dnsmasq by their absolute paths, a place for each directory."""
    names: dict[str, list[str]] = {}
    for path in paths:
        directory, _, name = path.rpartition("/")
        names.setdefault(directory or "/", []).append(re.escape(name))
    return tuple(Place(directory, re.compile("|".join(found)), parse_dnsmasq) for directory, found in names.items())


def read_place(place: Place, names: Iterable[str] | None) -> dict[str, Parsed | None]:
    """What the files of these names say, or all files of the place: None for one that is not there (any more).

    A file that cannot or must not be read says nothing, and why.
    """
    try:
        directory = os.open(place.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return dict.fromkeys(names or ())
    try:
        if names is None:
            with os.scandir(directory) as entries:
                names = [entry.name for entry in entries if place.pattern.fullmatch(entry.name)][:FILES_MAX]
        return {name: _read(place, directory, name) for name in names}
    finally:
        os.close(directory)


def _read(place: Place, directory: int, name: str) -> Parsed | None:
    match = place.pattern.fullmatch(name)
    if match is None:
        return None
    try:
        _check(os.fstat(directory), "its directory")
        data = _content(directory, name)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        parsed = Parsed()
        parsed.problem(f"not read: {error}")
        return parsed
    return place.parse(data, match.groupdict().get("interface", ""))


def _content(directory: int, name: str) -> bytes:
    # O_NONBLOCK: opening a FIFO would wait for a writer
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is no regular file")
        _check(status, "it")
        data = bytearray()
        while chunk := os.read(fd, FILE_MAX + 1 - len(data)):
            data += chunk
            if len(data) > FILE_MAX:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return bytes(data)
    finally:
        os.close(fd)


def _check(status: os.stat_result, what: str) -> None:
    """Nobody but root and services may have written there."""
    if status.st_uid in PEOPLES_UIDS or status.st_uid >= NOBODY:
        raise ValueError(f"{what} belongs to uid {status.st_uid}")
    if status.st_mode & stat.S_IWOTH:
        raise ValueError(f"{what} can be written by everybody")
