# SPDX-License-Identifier: MIT
"""Waiting for the table to change: a thread that sleeps on it, and who is called when it has."""

import os
import threading
from typing import Protocol

from resolver.varlink.loop import Callback, EventLoop

LOOK_SECONDS = 0.5
"""How long the thread sleeps at most: another table at the path, or the path gone, is found out by looking."""

PAUSE_SECONDS = 0.02
"""Between two changes that are told: a boot that starts hundreds of machines is told in steps, the first at once."""


class Table(Protocol):
    def generation(self) -> bytes: ...
    def wait(self, generation: bytes, seconds: float, /) -> None: ...


class Changes:
    """`count` goes up with each change that was noticed, in the loop's thread. close() ends it."""

    def __init__(self, loop: EventLoop, table: Table) -> None:
        self.count = 0
        self._loop = loop
        self._table = table
        self._waiting: set[Callback] = set()
        self._closing = False
        self._noticed = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        loop.add_reader(self._noticed, self._tell)
        self._thread = threading.Thread(target=self._watch, args=(table.generation(),), name="table")
        self._thread.start()

    def call_once(self, callback: Callback) -> None:
        """After the next change, unless forget() takes it back."""
        self._waiting.add(callback)

    def forget(self, callback: Callback) -> None:
        self._waiting.discard(callback)

    def close(self) -> None:
        """Returns within LOOK_SECONDS."""
        self._closing = True
        self._thread.join()
        self._loop.remove_reader(self._noticed)
        os.close(self._noticed)

    def _watch(self, generation: bytes) -> None:
        pause = threading.Event()
        while not self._closing:
            self._table.wait(generation, LOOK_SECONDS)
            now = self._table.generation()
            if now != generation:
                generation = now
                os.eventfd_write(self._noticed, 1)
                pause.wait(PAUSE_SECONDS)

    def _tell(self) -> None:
        os.eventfd_read(self._noticed)
        self.count += 1
        waiting, self._waiting = self._waiting, set()
        for callback in waiting:
            callback()
