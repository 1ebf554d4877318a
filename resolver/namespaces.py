# SPDX-License-Identifier: MIT
"""Which machines are in which network namespace: each is followed once, whoever is in it.

The containers of a pod, and whatever else joins another one's network, have the same addresses for the same reasons.
So these are asked for, kept and judged once.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from socket import socket

from resolver.core.addresses import Verdict
from resolver.core.machine import Address, ChosenAddress
from resolver.core.names import name_key
from resolver.host.addresses import GROUPS, AddressWatcher
from resolver.host.netns import NetlinkOpener, namespace_of
from resolver.host.process import Process, own_namespace
from resolver.host.reach import Concern
from resolver.host.readable import Readable

Key = tuple[int, int]
"""Device and inode of a namespace (namespaces(7)): no other has these while the watcher's socket keeps it alive."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a machine's addresses."""

    addresses: tuple[Address, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    chosen: tuple[ChosenAddress, ...] = ()
    ports: tuple[int, ...] = ()
    """Its host-side interfaces that are ports of something."""
    concern: Concern | None = None
    """What the host was asked about; None where it could not be asked."""


NOT_JUDGED = Judged()


class NetworkNamespace:
    """One that machines are in."""

    __slots__ = ("is_host", "judged", "key", "machines", "watcher")

    def __init__(self, key: Key, watcher: AddressWatcher, is_host: bool) -> None:
        self.key = key
        self.watcher = watcher
        self.is_host = is_host
        """The host's own: it has no addresses of a machine."""
        self.machines: dict[Hashable, str] = {}
        """The keys of those in it, by whoever entered for them: one that is refused has the key of another."""
        self.judged: dict[tuple[int, ...], Judged] = {}
        """Of containers, which are where their addresses are: by the interfaces that were registered."""


class NetworkNamespaces:
    """For one event loop. `on_change` is told of a namespace when its addresses or peers are others, or first known."""

    def __init__(self, opener: NetlinkOpener, on_change: Callable[[NetworkNamespace], object]) -> None:
        self._opener = opener
        self._on_change = on_change
        self._readable = Readable()
        self._namespaces: dict[Key, NetworkNamespace] = {}

    def close(self) -> None:
        """All must have left."""
        self._readable.close()

    async def enter(self, who: Hashable, name: str, process: Process) -> NetworkNamespace:
        """The namespace that the leader of the machine `name` is in now. It is followed until all `who` entered have
        left. Errors as NetlinkOpener.open() says."""
        where = process.namespace("net")
        found = self._namespaces.get(where)
        if found is None and where == own_namespace("net"):
            found = self._add(where, name, None)
        if found is None:
            found = self._join(name, await self._opener.open(process, GROUPS))
        found.machines[who] = name_key(name)
        return found

    def leave(self, namespace: NetworkNamespace, who: Hashable) -> None:
        """The last one lets go of it."""
        del namespace.machines[who]
        if not namespace.machines:
            namespace.watcher.close()
            del self._namespaces[namespace.key]

    def _join(self, name: str, opened: socket) -> NetworkNamespace:
        """The namespace that the socket is in, which is ours from here on: the leader may have gone elsewhere since it
        was looked for, and others would be taken to be where it is."""
        try:
            where = namespace_of(opened)
            found = self._namespaces.get(where)  # of somebody who was quicker
            if found is None and where != own_namespace("net"):
                return self._add(where, name, opened)
        except BaseException:
            opened.close()
            raise
        opened.close()
        return found or self._add(where, name, None)

    def _add(self, key: Key, name: str, opened: socket | None) -> NetworkNamespace:
        """`opened` for all but the host's."""
        watcher = AddressWatcher(name, self._readable, lambda _: self._on_change(added))
        added = NetworkNamespace(key, watcher, is_host=opened is None)
        if opened is None:
            watcher.known.set()
        else:
            try:
                watcher.follow(opened)
            except BaseException:
                watcher.close()
                raise
        self._namespaces[key] = added
        return added
