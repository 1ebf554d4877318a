# SPDX-License-Identifier: MIT
"""Who owns what only one machine can have: host ids, reverse addresses, aliases. The first to claim keeps it."""

import bisect
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from resolver.core.idmap import Extent, above_host_ids

T = TypeVar("T", bound=Hashable)


class ExtentClaims:
    """The host ids of one kind, uid or gid, parted among machines."""

    def __init__(self) -> None:
        self._starts: list[int] = []  # sorted, in step with _owned
        self._owned: list[tuple[Extent, str]] = []

    def claim(self, key: str, extents: Iterable[Extent]) -> tuple[tuple[Extent, ...], bool]:
        """Give machine `key` the parts of `extents` that are free and no ids of the host's own.

        Returns these parts, and whether another machine kept it from some id.
        """
        won: list[Extent] = []
        contested = False
        for extent in above_host_ids(extents):
            free = self._free_parts(extent)
            contested |= free != [extent]
            for part in free:
                at = bisect.bisect(self._starts, part.host_first)
                self._starts.insert(at, part.host_first)
                self._owned.insert(at, (part, key))
            won.extend(free)
        return tuple(won), contested

    def release(self, extents: Iterable[Extent]) -> None:
        """Take back what claim() gave."""
        for extent in extents:
            at = bisect.bisect_left(self._starts, extent.host_first)
            del self._starts[at], self._owned[at]

    def owner(self, host: int) -> tuple[str, int] | None:
        """The machine that owns a host's id, and the id inside."""
        at = bisect.bisect(self._starts, host) - 1
        if at < 0:
            return None
        extent, key = self._owned[at]
        return (key, extent.inside_first + host - extent.host_first) if host < extent.host_end else None

    def owners(self, extents: Iterable[Extent]) -> Iterator[str]:
        """The machines that own some id of these extents, some of them more than once."""
        for extent in extents:
            at = max(bisect.bisect(self._starts, extent.host_first) - 1, 0)
            while at < len(self._owned) and self._starts[at] < extent.host_end:
                taken, key = self._owned[at]
                if taken.host_end > extent.host_first:
                    yield key
                at += 1

    def _free_parts(self, extent: Extent) -> list[Extent]:
        at = max(bisect.bisect(self._starts, extent.host_first) - 1, 0)
        if at == len(self._owned) or (self._owned[at][0].host_end <= extent.host_first and (
                at + 1 == len(self._owned) or self._starts[at + 1] >= extent.host_end)):
            return [extent]  # all of it, as mostly
        parts: list[Extent] = []
        first = extent.host_first
        while at < len(self._owned) and self._starts[at] < extent.host_end:
            taken = self._owned[at][0]
            part = extent.between(first, taken.host_first)
            if part is not None:
                parts.append(part)
            first = max(first, taken.host_end)
            at += 1
        part = extent.between(first, extent.host_end)
        return [*parts, part] if part is not None else parts


class Claims(Generic[T]):
    """Things of one kind, reverse addresses or aliases: each is the first machine's that has it; the next waits."""

    def __init__(self) -> None:
        # One claimant, which is all that there mostly is, or several in their order: a dict of one takes 0.2 KB.
        self._claimants: dict[T, str | dict[str, None]] = {}

    def claim(self, key: str, thing: T) -> None:
        """Put machine `key` behind those that have `thing` already."""
        claimants = self._claimants.setdefault(thing, key)
        if isinstance(claimants, dict):
            claimants[key] = None
        elif claimants != key:
            self._claimants[thing] = {claimants: None, key: None}

    def release(self, key: str, thing: T) -> str | None:
        """Take machine `key` out; returns the machine that now owns the thing where it was not the owner before."""
        claimants = self._claimants[thing]
        if not isinstance(claimants, dict):
            if claimants != key:
                raise KeyError(key)
            del self._claimants[thing]
            return None
        was_owner = next(iter(claimants)) == key
        del claimants[key]
        owner = next(iter(claimants))
        if len(claimants) == 1:
            self._claimants[thing] = owner
        return owner if was_owner else None

    def owner(self, thing: T) -> str | None:
        claimants = self._claimants.get(thing)
        return next(iter(claimants)) if isinstance(claimants, dict) else claimants
