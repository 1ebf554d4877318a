# SPDX-License-Identifier: MIT
"""Tells when descriptors become readable, of thousands."""

import select
from collections.abc import Callable

from resolver.host.epoll import Epoll

CALLS_AT_ONCE = 16
"""Made in one round of the loop, each some milliseconds at the worst: then others have their turn."""


class Readable(Epoll[Callable[[], object]]):
    """See Epoll."""

    def once(self, descriptor: int, call: Callable[[], object]) -> None:
        """Call when it is readable, now or later, on the loop; then no more, until this is said again.

        The descriptor is its owner's, who says forget() before he closes it.
        """
        events = select.EPOLLIN | select.EPOLLONESHOT
        if descriptor in self._kept:
            self._epoll.modify(descriptor, events)
        else:
            self._epoll.register(descriptor, events)
        self._kept[descriptor] = call

    def forget(self, descriptor: int) -> None:
        """Nothing where it was not asked about, or after close()."""
        self._forget(descriptor)

    def _on_readable(self) -> None:
        for descriptor, _ in self._epoll.poll(0, CALLS_AT_ONCE):
            call = self._kept.get(descriptor)  # one before it may have taken it away
            if call is not None:
                call()
