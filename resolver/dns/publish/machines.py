# SPDX-License-Identifier: MIT
"""Follows the daemon's machines (io.mymachines.Machines.Watch), over its restarts."""

import asyncio
import logging
from typing import Any, Protocol

from resolver.varlink.codec import REPLY_MAX, Decoder, ProtocolError, encode, parse_reply

CONNECT_AGAIN_SECONDS = 1.0
"""A daemon that restarts is away for less. What was published stays meanwhile: the machines are still there."""

CONNECT_SECONDS = 10.0
READ_SIZE = 64 * 1024

_log = logging.getLogger(__name__)


class Followed(Protocol):
    """Is told of machines; publisher.Publisher."""

    def machine(self, name: str, addresses: list[str]) -> None: ...
    def gone(self, name: str) -> None: ...
    def only(self, names: set[str]) -> None: ...


async def follow(socket: str, followed: Followed, known: asyncio.Event) -> None:
    """Until cancelled. `known` is set when all machines have been told of for the first time."""
    told = ""
    while True:
        try:
            await _listen(socket, followed, known)
            trouble = "it has closed the connection"
        except (OSError, ProtocolError, TimeoutError) as error:
            trouble = str(error) or "no answer in time"
        if trouble != told:
            _log.info("mymachinesd is not there: %s. Waiting for it", trouble)
            told = trouble
        await asyncio.sleep(CONNECT_AGAIN_SECONDS)


async def _listen(socket: str, followed: Followed, known: asyncio.Event) -> None:
    async with asyncio.timeout(CONNECT_SECONDS):
        reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(encode({"method": "io.mymachines.Machines.Watch", "parameters": {}, "more": True}))
        names: set[str] = set()
        decoder = Decoder(REPLY_MAX)
        while data := await reader.read(READ_SIZE):
            decoder.feed(data)
            while (message := decoder.next_message()) is not None:
                error, fields, _ = parse_reply(message)
                if error is not None:
                    raise ProtocolError(f"it answers {error}")
                _tell(fields, followed, names)
                if fields.get("complete"):
                    followed.only(names)
                    known.set()
    finally:
        writer.close()


def _tell(fields: dict[str, Any], followed: Followed, names: set[str]) -> None:
    if fields.get("gone"):
        followed.gone(fields["name"])
    elif "name" in fields:
        names.add(fields["name"])
        followed.machine(fields["name"], fields.get("addresses") or [])
