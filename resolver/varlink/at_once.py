# SPDX-License-Identifier: MIT
"""Work on many things, a few at a time: who hangs delays himself, and few others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def as_they_come(items: Iterable[T], work: Callable[[T], Awaitable[R]], at_once: int,
                       passed_over: tuple[type[Exception], ...]) -> AsyncIterator[R]:
    """What the work gives for each item, first who is ready first. `passed_over`: errors that leave an item out; any
    other ends it all."""

    async def do(item: T) -> R:
        return await work(item)

    waiting = iter(items)
    running: dict[asyncio.Task[R], None] = {}  # in their order
    try:
        while True:
            while len(running) < at_once and (following := next(waiting, None)) is not None:
                running[asyncio.create_task(do(following))] = None
            if not running:
                return
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in running if task.done()]:
                del running[task]
                try:
                    result = task.result()
                except passed_over:
                    continue
                yield result
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
