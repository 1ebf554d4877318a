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
        machines = list(self._machines)  # a copy: they come and go while replies are sent
        pending = _Pending({entry.key for entry in machines})
        self._pending.add(pending)
        try:
            for entry in machines:
                yield Reply(_fields(entry), continues=True)
            yield Reply({"complete": True}, continues=True)
            while True:
                for reply in await pending.take():
                    yield Reply(reply, continues=True)
        finally:
            self._pending.discard(pending)


class _Pending:
    """What one watcher has not been told yet: the last of each machine, and of those that went, only whom it knows.

    So one that is slow holds no more than the machines there are and those that it was told of, however many come
    and go meanwhile.
    """

    def __init__(self, known: set[str]) -> None:
        self._known = known  # by key; what has been told, or is being told
        self._changes: dict[str, dict[str, Any]] = {}
        self._any = asyncio.Event()

    def add(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.after is not None:
                self._changes[change.after.key] = _fields(change.after)
            elif change.before is not None:
                self._changes.pop(change.before.key, None)
                if change.before.key in self._known:
                    self._changes[change.before.key] = {"name": change.before.machine.name, "gone": True}
        self._any.set()

    async def take(self) -> list[dict[str, Any]]:
        await self._any.wait()
        self._any.clear()
        taken, self._changes = self._changes, {}
        for key, fields in taken.items():
            if "gone" in fields:
                self._known.discard(key)
            else:
                self._known.add(key)
        return list(taken.values())


def _fields(entry: Entry) -> dict[str, Any]:
    return {"name": entry.machine.name, "class": entry.machine.machine_class.value, "leader": entry.machine.leader.pid,
            "addresses": [str(ipaddress.ip_address(a.packed)) for a in entry.addresses if not a.scoped]}
