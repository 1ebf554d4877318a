# SPDX-License-Identifier: MIT
"""All machines, and then what changes, for as long as the caller listens (io.mymachines.Machines.Watch)."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from resolver.core.registry import Change, Entry
from resolver.varlink.call import Call, Reply
from resolver.varlink.errors import expected_more


class Watches:
    """Those who listen; one of the manager's listeners."""

    def __init__(self, machines: Iterable[Entry]) -> None:
        self._machines = machines
        self._pending: set[_Pending] = set()

    def on_changes(self, changes: Sequence[Change]) -> None:
        for pending in self._pending:
            pending.add(changes)

    async def watch(self, call: Call) -> AsyncIterator[Reply]:
        if not call.more:
            raise expected_more()
        pending = _Pending()
        self._pending.add(pending)
        try:
            for entry in list(self._machines):  # a copy: they come and go while replies are sent
                yield Reply(_fields(entry), continues=True)
            yield Reply({"complete": True}, continues=True)
            while True:
                for reply in await pending.take():
                    yield Reply(reply, continues=True)
        finally:
            self._pending.discard(pending)


class _Pending:
    """What one watcher has not been told yet: the last of each machine, so that a slow one holds no more than all."""

    def __init__(self) -> None:
        self._changes: dict[str, dict[str, Any]] = {}
        self._any = asyncio.Event()

    def add(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.after is not None:
                self._changes[change.after.key] = _fields(change.after)
            elif change.before is not None:
                self._changes[change.before.key] = {"name": change.before.machine.name, "gone": True}
        self._any.set()

    async def take(self) -> list[dict[str, Any]]:
        await self._any.wait()
        self._any.clear()
        taken, self._changes = self._changes, {}
        return list(taken.values())


def _fields(entry: Entry) -> dict[str, Any]:
    return {"name": entry.machine.name, "class": entry.machine.machine_class.value,
            "addresses": [str(ipaddress.ip_address(a.packed)) for a in entry.addresses if not a.scoped]}
