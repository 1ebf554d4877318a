# SPDX-License-Identifier: MIT
"""Keeps a DNS server in step with this host's machines: batches, retries, reconciles, and withdraws at the end."""

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import dns.tsig
import dns.update

from resolver.dns.publish.messages import Mark, Place, update
from resolver.dns.publish.records import Network, changed, differences, digest_of, in_updates, records_of
from resolver.dns.publish.server import MarkDiffers, Refused, ServerError

BATCH_SECONDS = 0.2
"""That changes are gathered before they are sent: a host that starts a hundred machines makes a few updates of it."""

CHECK_SECONDS = 60.0
"""Between looks at our mark, which tell of a server that was restored from an old copy: one small question each."""

RETRY_FIRST_SECONDS = 1.0
RETRY_LAST_SECONDS = 300.0
"""Between tries, doubled each time, and a random part of it: a server that comes back is not met by all at once."""

STATES_REMEMBERED = 32
"""Of what we have published, by digest: a server that lost the last few updates need not be read back."""

WITHDRAW_SECONDS = 10.0
"""For taking all back at a stop; a service manager kills after some time (TimeoutStopSec=, systemd.service(5))."""

_log = logging.getLogger(__name__)


class DNSServer(Protocol):
    """What server.Server does; each raises ServerError."""

    async def update(self, message: dns.update.UpdateMessage) -> None: ...
    async def mark(self) -> str | None: ...
    async def records(self) -> dict[str, frozenset[str]]: ...


class Publisher:
    """What there should be, and what is known to be there."""

    def __init__(self, server: DNSServer, place: Place, key: dns.tsig.Key | None, owner: str,
                 networks: Sequence[Network] = ()) -> None:
        self._server = server
        self._place = place
        self._key = key
        self._owner = owner
        self._networks = networks
        self._wanted: dict[str, frozenset[str]] = {}
        self._there: dict[str, frozenset[str]] | None = None
        """None: not known, to be asked."""
        self._states: OrderedDict[str, dict[str, frozenset[str]]] = OrderedDict()
        self._mark: str | None = None
        self._all_known = True
        self._woken = asyncio.Event()
        self._trouble = ""

    # What there should be.

    def machine(self, name: str, addresses: Iterable[str]) -> None:
        """A machine has these addresses."""
        found = records_of(name, addresses, self._networks)
        if found is None:
            self.gone(name)
        elif self._wanted.get(found[0]) != found[1]:
            self._wanted[found[0]] = found[1]
            self._woken.set()

    def gone(self, name: str) -> None:
        if self._wanted.pop(name.lower(), None) is not None:
            self._woken.set()

    def only(self, names: Iterable[str]) -> None:
        """There are no machines but these."""
        for name in self._wanted.keys() - {name.lower() for name in names}:
            self.gone(name)

    @property
    def in_step(self) -> bool:
        """Whether the server has what it should have, as far as is known."""
        return self._there == self._wanted

    # Having it there.

    async def run(self) -> None:
        """Until cancelled. Whatever the server does is logged, and tried again."""
        pause = RETRY_FIRST_SECONDS
        while True:
            try:
                await self._step()
            except ServerError as error:
                self._there = None
                if isinstance(error, MarkDiffers):
                    _log.info("What is published under %s is not what it was; reading it back", self._place.host)
                else:
                    self._tell_trouble(error)
                await asyncio.sleep(pause * _at_random(0.5))
                pause = min(pause * 2, RETRY_LAST_SECONDS)
            else:
                pause = RETRY_FIRST_SECONDS
                self._tell_recovery()
                await self._changes()

    async def withdraw(self, *, whose_ever: bool = False) -> None:
        """Take all of it back. ServerError, TimeoutError. `whose_ever`: also what another host has published."""
        async with asyncio.timeout(WITHDRAW_SECONDS):
            self._wanted.clear()
            if self._there is None:
                await self._read_back(whose_ever)
            for portion in in_updates(differences(self._there or {}, {})):
                await self._send(portion)
            if self._mark is not None:
                await self._server.update(update(self._place, self._key, self._mark, None, {}))
                self._mark = None

    async def _step(self) -> None:
        # With changes to make, the update itself tells whether the mark is still the same.
        if self._there is None or (self.in_step and await self._server.mark() != self._mark):
            await self._read_back()
        # Again until nothing has changed meanwhile.
        while changes := differences(self._there or {}, self._wanted):
            for portion in in_updates(changes):
                await self._send(portion)

    async def _changes(self) -> None:
        """Wait for something to do: a change, and those that follow at once, or the time to look."""
        try:
            async with asyncio.timeout(CHECK_SECONDS * _at_random(0.75)):
                await self._woken.wait()
            await asyncio.sleep(BATCH_SECONDS)
        except TimeoutError:
            pass
        self._woken.clear()

    async def _read_back(self, whose_ever: bool = False) -> None:
        """Learn what is there. Refused where it is another host's."""
        self._there = None
        self._mark = await self._server.mark()
        mark = None if self._mark is None else Mark.parse(self._mark)
        if self._mark is not None and (mark is None or mark.owner != self._owner) and not whose_ever:
            raise Refused(f"another host publishes as {self._place.host} ({self._mark}); one of the two needs another "
                          "name, or, if that host is gone for good, --withdraw")
        if self._mark is None:
            self._know({})  # the first of our updates makes the mark: without it there is nothing of ours
            return
        known = {digest_of(self._wanted): self._wanted, **self._states}
        if mark is not None and mark.digest in known:
            self._know(dict(known[mark.digest]))
            return
        try:
            self._know(await self._server.records())
        except Refused as error:
            # What we want can be published without; what is left of an earlier run cannot be found.
            _log.warning("The zone cannot be read back, so that old names may stay: %s", error)
            self._know({}, all_known=False)

    async def _send(self, changes: Mapping[str, frozenset[str]]) -> None:
        following = changed(self._there or {}, changes)
        mark = Mark(self._owner, digest_of(following) if self._all_known else "unknown")
        self._remember(following)  # before: the answer may be lost
        await self._server.update(update(self._place, self._key, self._mark, mark, changes))
        self._mark = mark.text()
        self._know(following, self._all_known)
        _log.debug("Published %d changes", len(changes))

    def _know(self, records: dict[str, frozenset[str]], all_known: bool = True) -> None:
        self._there = records
        self._all_known = all_known
        self._remember(records)

    def _remember(self, records: dict[str, frozenset[str]]) -> None:
        if self._all_known:
            digest = digest_of(records)
            self._states[digest] = records
            self._states.move_to_end(digest)
            if len(self._states) > STATES_REMEMBERED:
                self._states.popitem(last=False)

    def _tell_trouble(self, error: ServerError) -> None:
        """Once, as long as it stays the same."""
        if str(error) != self._trouble:
            self._trouble = str(error)
            _log.log(logging.ERROR if isinstance(error, Refused) else logging.WARNING,
                     "Machines cannot be published at present: %s. It is tried again", error)

    def _tell_recovery(self) -> None:
        if self._trouble:
            self._trouble = ""
            _log.info("Machines are published again, %d of them", len(self._there or {}))


def _at_random(least: float) -> float:
    """Between `least` and 1: a thousand hosts that lost their server at once do not come back at once."""
    return random.uniform(least, 1.0)  # noqa: S311 - nobody gains from guessing it
