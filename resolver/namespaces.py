# SPDX-License-Identifier: MIT
"""Which machines are in which network namespace: each is followed once, whoever is in it.

The containers of a pod, and whatever else joins another one's network, have the same addresses for the same reasons.
So these are asked for, kept and judged once.
"""

import os
from collections.abc import Callable, Hashable
from socket import socket
from typing import NamedTuple

from resolver.core.addresses import Verdict
from resolver.core.machine import Address, ChosenAddress
from resolver.core.names import name_key
from resolver.host.addresses import GROUPS, AddressWatcher
from resolver.host.netns import NetlinkOpener
from resolver.host.process import Process, own_namespace
from resolver.host.reach import Concern
from resolver.host.readable import Readable

Key = tuple[int, int]
"""Device and inode of a namespace (namespaces(7)): no other has these while the watcher's socket keeps it alive."""


class Judged(NamedTuple):
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
    """For one event loop. `on_change` is told of a namespace when its addresses or peers are others, or first known. It
    closes the opener."""

    def __init__(self, opener: NetlinkOpener, on_change: Callable[[NetworkNamespace], object]) -> None:
        self._opener = opener
        self._on_change = on_change
        self._readable = Readable()
        self._namespaces: dict[Key, NetworkNamespace] = {}

    def close(self) -> None:
        """All must have left."""
        self._readable.close()
        self._opener.close()

    async def enter(self, who: Hashable, name: str, process: Process) -> NetworkNamespace:
        """The namespace that the leader of the machine `name` is in now. It is followed until all `who` entered have
        left. NoSuchProcess where the leader has exited; TimeoutError and OSError as NetlinkOpener.open() says."""
        # All that follows is of this descriptor's namespace: the leader may go elsewhere meanwhile.
        namespace = process.open_namespace("net")
        try:
            status = os.fstat(namespace)
            where = status.st_dev, status.st_ino
            found = self._namespaces.get(where) or await self._enter_new(where, name, namespace)
        finally:
            os.close(namespace)
        found.machines[who] = name_key(name)
        return found

    def leave(self, namespace: NetworkNamespace, who: Hashable) -> None:
        """The last one lets go of it."""
        del namespace.machines[who]
        if not namespace.machines:
            namespace.watcher.close()
            del self._namespaces[namespace.key]

    async def _enter_new(self, where: Key, name: str, namespace: int) -> NetworkNamespace:
        if where == own_namespace("net"):
            return self._add(where, name, None)
        opened = await self._opener.open(namespace, GROUPS)
        found = self._namespaces.get(where)  # of somebody who was quicker
        if found is None:
            return self._add(where, name, opened)
        opened.close()
        return found

    def _add(self, key: Key, name: str, opened: socket | None) -> NetworkNamespace:
        """`opened`, which is ours from here on, for all but the host's."""
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
