# SPDX-License-Identifier: MIT
"""What happens once, and can be waited for."""

import asyncio


class Once:
    """An asyncio.Event that is never cleared. That one holds 0.8 KB for those who wait, who are mostly none: of ten
    thousand, one each in an object that is there for each machine is 8 MB."""

    __slots__ = ("_happened", "_waiting")

    def __init__(self) -> None:
        self._happened = False
        self._waiting: asyncio.Event | None = None

    def is_set(self) -> bool:
        return self._happened

    def set(self) -> None:
        self._happened = True
        if self._waiting is not None:
            self._waiting.set()
            self._waiting = None

    async def wait(self) -> None:
        if not self._happened:
            if self._waiting is None:
                self._waiting = asyncio.Event()
            await self._waiting.wait()
