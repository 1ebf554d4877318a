# SPDX-License-Identifier: MIT
"""Tells when processes exit."""

import select
from collections.abc import Callable

from resolver.host.epoll import Epoll
from resolver.host.process import Process

EXITS_AT_ONCE = 64
"""Told of in one round of the loop: when a host's containers all end, others have their turn in between."""


class Exits(Epoll[str]):
    """Calls `on_exit` on the running loop, with the name that was given: in each round of it until forget()."""

    def __init__(self, on_exit: Callable[[str], object]) -> None:
        super().__init__()
        self._on_exit = on_exit

    def watch(self, process: Process, name: str) -> None:
        """The process is its owner's, who keeps it open until forget()."""
        self._epoll.register(process.fileno(), select.EPOLLIN)
        self._kept[process.fileno()] = name

    def forget(self, process: Process) -> None:
        """Nothing where it is not watched."""
        self._forget(process.fileno())

    def _on_readable(self) -> None:
        for descriptor, _ in self._epoll.poll(0, EXITS_AT_ONCE):
            name = self._kept.get(descriptor)  # one before it may have taken it away
            if name is not None:
                self._on_exit(name)
