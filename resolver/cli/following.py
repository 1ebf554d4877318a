# SPDX-License-Identifier: MIT
"""All machines and what becomes of them, told by the daemon (io.mymachines.Machines.Watch), over its restarts too.

    connecting --connected--> reading all --complete--> following --connection lost--> connecting, a pause later

What a new connection says of all machines is compared with what was known: so what changed meanwhile is told as well.
"""

import time
from dataclasses import dataclass
from typing import Any

from resolver.varlink import MACHINE_SOCKET
from resolver.varlink.client import Client

ALL_SECONDS = 10.0
"""For the daemon to tell of all machines: longer than anything it waits for. Then it says nothing while nothing is."""

RETRY_SECONDS = 0.2
"""Between attempts while the daemon is away: it starts within half a second, and an attempt is one connect(2)."""

Machine = dict[str, Any]
"""name, class, leader, and addresses as text."""


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` is one of

    - present: there when we came. ready: these were all.
    - added, changed, removed: with the machine `before` and `after`, as far as it was and is there.
    - lost: the daemon is away, and nothing is known. back: what follows up to the next `ready` happened meanwhile.
    """

    kind: str
    before: Machine | None = None
    after: Machine | None = None

    @property
    def name(self) -> str:
        return str((self.after or self.before or {}).get("name", ""))


class Known:
    """The machines by name, and what a reply of Watch says beyond that. No input or output."""

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self._all: dict[str, Machine] | None = {}  # while all are being told
        self.first = True

    @property
    def told_all(self) -> bool:
        """This connection has told of all machines, and tells what changes from now on."""
        return self._all is None

    def lost(self) -> list[Event]:
        """The connection is gone; the next reply is the first of a new one."""
        told_all, self._all = self.told_all, {}
        return [Event("lost")] if told_all else []

    def add(self, reply: dict[str, Any]) -> list[Event]:
        if self._all is None:
            after = None if reply.get("gone") else _machine(reply)
            return self._change(reply["name"], after)
        if not reply.get("complete"):
            self._all[reply["name"]] = _machine(reply)
            return []
        found, self._all = self._all, None
        if self.first:
            self.first = False
            self.machines = found
            return [*(Event("present", None, machine) for machine in found.values()), Event("ready")]
        events = [Event("back")]
        for name in [*self.machines, *(name for name in found if name not in self.machines)]:
            events += self._change(name, found.get(name))
        return [*events, Event("ready")]

    def _change(self, name: str, after: Machine | None) -> list[Event]:
        before = self.machines.pop(name, None)
        if after is not None:
            self.machines[name] = after
        if before == after:
            return []
        if before is None:
            return [Event("added", None, after)]
        if after is None:
            return [Event("removed", before, None)]
        if before["leader"] != after["leader"]:
            return [Event("removed", before, None), Event("added", None, after)]
        return [Event("changed", before, after)]


class Following:
    """Register `fileno()` for reading, anew for each wait; call events() when it is readable or `seconds()` are over.

    The constructor raises what connecting raises: a daemon that is not there at first is an error. So is one that does
    not tell of all machines, for events().
    """

    def __init__(self, path: str = MACHINE_SOCKET) -> None:
        self._path = path
        self._known = Known()
        self._retry_at = self._all_by = 0.0
        self._client: Client | None = self._connect()

    @property
    def machines(self) -> dict[str, Machine]:
        """By name, as they were last."""
        return self._known.machines

    @property
    def connected(self) -> bool:
        return self._client is not None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def fileno(self) -> int | None:
        return None if self._client is None else self._client.fileno()

    def seconds(self) -> float | None:
        """How long to wait at most; None for as long as it takes."""
        if self._client is not None and self._known.told_all:
            return None
        return max(0.0, (self._retry_at if self._client is None else self._all_by) - time.monotonic())

    def events(self) -> list[Event]:
        """What has happened. Does not wait, but for a daemon that does not take a new connection.

        TimeoutError where the first connection does not tell of all machines in time.
        """
        try:
            if self._client is None:
                if time.monotonic() >= self._retry_at:
                    self._client = self._connect()
                return []
            events = [event for reply in self._client.take() for event in self._known.add(reply)]
        except OSError:
            return self._lose()
        if not self._known.told_all and time.monotonic() >= self._all_by:
            if self._known.first:
                raise TimeoutError("mymachinesd does not tell of all machines")
            return events + self._lose()
        return events

    def _lose(self) -> list[Event]:
        self.close()
        self._retry_at = time.monotonic() + RETRY_SECONDS
        return self._known.lost()

    def _connect(self) -> Client:
        client = Client(self._path, ALL_SECONDS)
        self._all_by = time.monotonic() + ALL_SECONDS
        try:
            client.start_more("io.mymachines.Machines.Watch")
        except BaseException:
            client.close()
            raise
        return client


def _machine(reply: dict[str, Any]) -> Machine:
    return {name: reply[name] for name in ("name", "class", "leader", "addresses")}
