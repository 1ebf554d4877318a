# SPDX-License-Identifier: MIT
"""Handlers that are coroutines or async generators. Needs a running asyncio loop, and nothing else imports asyncio."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from typing import Any

from resolver.varlink.call import Call, Reply, as_reply
from resolver.varlink.connection import Connection
from resolver.varlink.replies import Replies


def start(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run it; the connection holds the task, and cancels it where it closes."""
    return asyncio.get_running_loop().create_task(coroutine)


async def single(connection: Connection, _call: Call, result: Awaitable[Any]) -> None:
    """Answer with what the coroutine returns or raises."""
    try:
        reply = as_reply(await result)
    except Exception as error:  # noqa: BLE001 - whatever a handler does, its caller gets a reply
        connection.fail(error)
    else:
        connection.reply(reply)


async def stream(connection: Connection, call: Call, result: AsyncIterator[Any]) -> None:
    """Send each reply that the generator yields, and ask for the next when it has left."""
    replies = Replies(call)
    try:
        try:
            async for item in result:
                for reply, continues in replies.next(item):
                    await _send(connection, reply, continues)
            ready = replies.end()
        finally:
            close = getattr(result, "aclose", None)
            if close is not None:
                await close()
    except Exception as error:  # noqa: BLE001 - as above
        await _fail(connection, replies, error)
        return
    if ready:
        connection.reply(ready[0][0])
    else:
        connection.close()


async def _fail(connection: Connection, replies: Replies, error: Exception) -> None:
    try:
        for reply, continues in replies.failed():
            await _send(connection, reply, continues)
    except Exception as worse:  # noqa: BLE001 - as above
        error = worse
    connection.fail(error)


async def _send(connection: Connection, reply: Reply, continues: bool) -> None:
    sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not sent.done():
            sent.set_result(None)

    if not connection.send(reply, continues, wake):
        await sent  # a connection that closes meanwhile cancels this task
