# SPDX-License-Identifier: MIT
"""The leases in force on this host: read from the servers' files when these change, and gone when they expire."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from resolver.host.alarm import Alarm
from resolver.leases.directories import Directories
from resolver.leases.lease import FOREVER, Lease, Parsed
from resolver.leases.places import PLACES, Place, read_place

SETTLE_SECONDS = 0.05
"""From the first sign of a change to reading: a server that writes over its file in place is done by then."""

SHARE = 10
"""Reading gets one part in so many of the time."""

TURN_SECONDS = 10.0
"""For reading what has changed in one directory. A disk that hangs keeps one thread, and leases stay as they are."""

_log = logging.getLogger(__name__)
_Key = tuple[Place, str]


class LeaseFiles:
    """All leases in force, by MAC address and by IP address. On the running loop, until closed.

    `on_change` is called with the leases that have come or gone. `known` is set when all files have been read once.
    """

    def __init__(self, on_change: Callable[[set[Lease]], object], places: Sequence[Place] = PLACES) -> None:
        self.known = asyncio.Event()
        self._on_change = on_change
        self._places: dict[str, list[Place]] = {}
        for place in places:
            self._places.setdefault(place.directory, []).append(place)
        self._loop = asyncio.get_running_loop()
        self._files: dict[_Key, tuple[Lease, ...]] = {}
        self._problems: dict[_Key, list[str]] = {}
        self._counts: dict[Lease, int] = {}
        self._by_mac: dict[bytes, dict[Lease, None]] = {}  # all but the MAC's first byte
        self._by_address: dict[bytes, dict[Lease, None]] = {}
        self._to_read: dict[Place, set[str] | None] = dict.fromkeys(places)
        self._timer: asyncio.TimerHandle | None = None
        self._reading = False
        self._closed = False
        self._alarm = Alarm(self._expire)
        try:
            self._directories = Directories(list(self._places), self._on_event)
        except BaseException:
            self._alarm.close()
            raise
        self._schedule(0)

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._directories.close()
        self._alarm.close()

    def of_mac(self, mac_but_first: bytes) -> Iterable[Lease]:
        """The leases of MAC addresses with these last five bytes, in the order in which they were seen."""
        return self._by_mac.get(mac_but_first, {})

    def of_address(self, packed: bytes) -> Iterable[Lease]:
        return self._by_address.get(packed, {})

    # Reading.

    def _on_event(self, directory: str, name: str | None) -> None:
        for place in self._places[directory]:
            if name is None or place.pattern.fullmatch(name):
                wanted = self._to_read.setdefault(place, set())
                if name is None:
                    self._to_read[place] = None  # all
                elif wanted is not None:
                    wanted.add(name)
                self._schedule(SETTLE_SECONDS)

    def _schedule(self, seconds: float) -> None:
        if self._timer is None and not self._reading and not self._closed:
            self._timer = self._loop.call_later(seconds, self._start_reading)

    def _start_reading(self) -> None:
        self._timer = None
        if not self._to_read:
            self.known.set()
            return
        place = next(iter(self._to_read))  # who has waited longest
        names = self._to_read.pop(place)
        self._reading = True
        # Not the loop's executor: a thread that hangs would be waited for in the end.
        thread = threading.Thread(target=self._work, args=(place, names), name="leases", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads
            _log.warning("reading leases in %s: %s", place.directory, error)
            self._reading = False
            self._to_read[place] = None
            self._schedule(TURN_SECONDS)
            return
        self._timer = self._loop.call_later(TURN_SECONDS, self._on_late, place)

    def _work(self, place: Place, names: set[str] | None) -> None:
        began = time.thread_time()
        try:
            found = read_place(place, names)
        except OSError as error:
            _log.warning("reading leases in %s: %s", place.directory, error)
            found = {}
        try:
            self._loop.call_soon_threadsafe(self._on_read, place, names, found, time.thread_time() - began)
        except RuntimeError:
            pass  # the loop was closed

    def _on_late(self, place: Place) -> None:
        self._timer = None
        _log.warning("reading leases in %s takes long", place.directory)
        self.known.set()

    def _on_read(self, place: Place, names: set[str] | None, found: dict[str, Parsed | None], spent: float) -> None:
        self._reading = False
        if self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if names is None:
            gone = {name for at, name in self._files if at == place} - set(found)
            found |= dict.fromkeys(gone)
        now = time.time()
        changed: set[Lease] = set()
        for name, parsed in found.items():
            self._tell_problems((place, name), parsed)
            leases = parsed.in_force(now) if parsed is not None else ()
            changed |= self._set((place, name), tuple(dict.fromkeys(leases)))
        self._tell(changed)
        if self._to_read or not self.known.is_set():
            self._schedule(0 if not self.known.is_set() else max(SETTLE_SECONDS, spent * (SHARE - 1)))

    def _tell_problems(self, key: _Key, parsed: Parsed | None) -> None:
        """Once, until there are others."""
        problems = [] if parsed is None else parsed.problems
        if problems and problems != self._problems.get(key):
            assert parsed is not None
            _log.warning("%s: %s%s", key[0].path(key[1]), "; ".join(problems),
                         f"; and {parsed.dropped - len(problems)} more" if parsed.dropped > len(problems) else "")
        if problems:
            self._problems[key] = problems
        else:
            self._problems.pop(key, None)

    # What is in force.

    def _set(self, key: _Key, leases: tuple[Lease, ...]) -> set[Lease]:
        """A file's leases are these from now on. Returns what has come or gone."""
        old = self._files.pop(key, ())
        if leases:
            self._files[key] = leases
        come, gone = set(leases) - set(old), set(old) - set(leases)
        for lease in leases:
            if lease in come:
                self._add(lease)
        for lease in gone:
            self._remove(lease)
        return come | gone

    def _add(self, lease: Lease) -> None:
        self._counts[lease] = self._counts.get(lease, 0) + 1
        self._by_mac.setdefault(lease.mac[1:], {})[lease] = None
        self._by_address.setdefault(lease.packed, {})[lease] = None

    def _remove(self, lease: Lease) -> None:
        self._counts[lease] -= 1
        if self._counts[lease]:
            return
        del self._counts[lease]
        for index, at in ((self._by_mac, lease.mac[1:]), (self._by_address, lease.packed)):
            del index[at][lease]
            if not index[at]:
                del index[at]

    def _expire(self) -> None:
        """Some have expired, or somebody has set the clock; what it has brought back is read again."""
        now = time.time()
        changed: set[Lease] = set()
        for key, leases in list(self._files.items()):
            left = tuple(Parsed(list(leases)).in_force(now))
            if len(left) != len(leases):
                changed |= self._set(key, left)
        if not changed:
            self._to_read = dict.fromkeys(place for places in self._places.values() for place in places)
            self._schedule(0)
        self._tell(changed)

    def _tell(self, changed: set[Lease]) -> None:
        self._alarm.set(min((lease.expires for lease in self._counts if lease.expires != FOREVER), default=None))
        if changed:
            self._on_change(changed)
