# SPDX-License-Identifier: MIT
"""Waiting for the table to change: a thread that sleeps on it, and coroutines that are woken."""

import asyncio
import threading
from typing import Protocol

LOOK_SECONDS = 0.5
"""How long the thread sleeps at most: another table at the path, or the path gone, is found out by looking."""

PAUSE_SECONDS = 0.02
"""Between two changes that are told: a boot that starts hundreds of machines is told in steps, the first at once."""


class Table(Protocol):
    def generation(self) -> bytes: ...
    def wait(self, generation: bytes, seconds: float, /) -> None: ...


class Changes:
    """`count` goes up with each change that was noticed. Needs a running loop; close() before that ends."""

    def __init__(self, table: Table) -> None:
        self.count = 0
        self._table = table
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._watch, args=(table.generation(),), name="table")
        self._thread.start()

    async def after(self, count: int) -> None:
        """Return when `count` is no more the number of changes."""
        while self.count == count:
            await self._changed.wait()

    def close(self) -> None:
        """Returns within LOOK_SECONDS."""
        self._closing = True
        self._thread.join()

    def _watch(self, generation: bytes) -> None:
        pause = threading.Event()
        while not self._closing:
            self._table.wait(generation, LOOK_SECONDS)
            now = self._table.generation()
            if now != generation:
                generation = now
                try:
                    self._loop.call_soon_threadsafe(self._tell)
                except RuntimeError:    # the loop has ended
                    return
                pause.wait(PAUSE_SECONDS)

    def _tell(self) -> None:
        self.count += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
