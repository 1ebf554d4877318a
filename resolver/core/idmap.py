# SPDX-License-Identifier: MIT
"""Id maps of user namespaces: which id inside a machine is which id on the host (user_namespaces(7))."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

HOST_ID_FIRST = 65536
"""Ids below are the host's own (systemd's UIDS-GIDS document, 16 bit range) and are never a machine's."""

ID_LAST = 2**32 - 2
"""The last id there is: (uid_t) -1 means 'none' (chown(2))."""

NOBODY = 65534
"""Whoever has no other group: /proc/sys/kernel/overflowgid, nogroup of Debian."""

MAP_EXTENTS_MAX = 340
"""Lines that the kernel takes in a map since 4.15 (UID_GID_MAP_MAX_EXTENTS, linux/user_namespace.h)."""


class Extent(NamedTuple):
    """`length` ids in a row: inside_first + n inside is host_first + n on the host."""

    inside_first: int
    host_first: int
    length: int

    @property
    def host_end(self) -> int:
        """The first host id behind the extent."""
        return self.host_first + self.length

    def between(self, first: int, end: int) -> "Extent | None":
        """The part of the extent with host ids from `first` to before `end`, None where there is none."""
        if first <= self.host_first and end >= self.host_end:
            return self if self.length else None
        first, end = max(first, self.host_first), min(end, self.host_end)
        return Extent(self.inside_first + first - self.host_first, first, end - first) if first < end else None


@dataclass(frozen=True, slots=True)
class IdMap:
    """The extents of one map, as /proc/PID/uid_map or gid_map gives them: disjoint in both directions."""

    extents: tuple[Extent, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "IdMap":
        """Read the three columns of /proc/PID/uid_map: first id inside, first id outside, count.

        ValueError where the text is none of the kernel's. Extents beyond ID_LAST are cut there.
        """
        extents = []
        for line in text.splitlines():
            inside_first, host_first, length = map(int, line.split())
            if min(inside_first, host_first, length) < 0:
                raise ValueError(f"negative number in an id map: {line!r}")
            length = min(length, ID_LAST + 1 - inside_first, ID_LAST + 1 - host_first)
            if length > 0:
                extents.append(Extent(inside_first, host_first, length))
        if len(extents) > MAP_EXTENTS_MAX:
            raise ValueError(f"{len(extents)} extents in an id map, the kernel has at most {MAP_EXTENTS_MAX}")
        return cls(tuple(extents))

    def __bool__(self) -> bool:
        return bool(self.extents)

    def to_host(self, inside: int) -> int | None:
        """The host's id of an id inside, None where the map has none."""
        return to_host(self.extents, inside)

    def to_inside(self, host: int) -> int | None:
        """The id inside of a host's id, None where the map has none."""
        return next((e.inside_first + host - e.host_first for e in self.extents if e.host_first <= host < e.host_end),
                    None)

    def shift(self) -> int | None:
        """systemd's UID shift: the host's id of 0 inside, where one extent maps 65536 ids and more, else None."""
        return next((e.host_first for e in self.extents if e.inside_first == 0 and e.length >= 65536), None)


def to_host(extents: Iterable[Extent], inside: int) -> int | None:
    """The host's id of an id inside, None where no extent has it."""
    return next((e.host_first + inside - e.inside_first for e in extents
                 if e.inside_first <= inside < e.inside_first + e.length), None)


def above_host_ids(extents: Iterable[Extent]) -> Iterator[Extent]:
    """The parts of the extents that may be a machine's: HOST_ID_FIRST and up."""
    for extent in extents:
        part = extent.between(HOST_ID_FIRST, ID_LAST + 1)
        if part is not None:
            yield part
