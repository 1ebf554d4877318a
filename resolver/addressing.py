# SPDX-License-Identifier: MIT
"""Follows the addresses of all machines, and chooses those that look-ups give: by what is told of the guest's side and
of the host's.

Whatever changed, the outcome is a Machine with other addresses, handed to `update`.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from resolver.core.addresses import Verdict, given, judge
from resolver.core.machine import Address, AddressSource, Machine, MachineClass
from resolver.core.names import name_key
from resolver.host.addresses import AddressWatcher
from resolver.host.links import HostLinks
from resolver.host.netlink import NetlinkError
from resolver.host.netns import NetlinkOpener
from resolver.host.process import NoSuchProcess, Process
from resolver.host.reach import HostChange, Prefix, Reach

ADDRESSES_SECONDS = 1.0
"""For the kernel to list a machine's addresses, before registration goes on without them; it takes 0.1 ms each."""

RESTORED_SECONDS = 10.0
"""The same for a machine of before, whose addresses the table still has: nobody waits for it but the next
registrations, and a start on a busy host, or while its kernel is busy with links, is not to take them away."""

LATER_FIRST_SECONDS = 1.0
LATER_LAST_SECONDS = 60.0
"""Where a machine's socket could not be opened in time, or for want of a descriptor, it is tried again, at intervals
that double, for as long as the machine is there: what was in the way may go at any time, and a try takes 0.1 ms."""

TURN_SECONDS = 0.004
"""Of choosing addresses anew, before others have their turn."""

CHOOSING_SHARE = 10
"""Of ten seconds of the loop, one at the most: a host whose routes flap keeps nobody from being served."""

_log = logging.getLogger(__name__)


class Outside(Protocol):
    """What the host sees of machines from outside; resolver.outside. Machines go by their keys."""

    def follow(self, name: str, interfaces: Iterable[int], /) -> None:
        """From now on, by the machine's interfaces on the host's side; again with others."""

    def forget(self, name: str, /) -> None: ...

    def addresses(self, name: str, /) -> tuple[Address, ...]:
        """Its addresses by neighbours and leases, best first."""

    def port_of(self, bridge: int, family: int, packed: bytes, /) -> int:
        """The port of a bridge behind which an address is, 0 where that is not known."""


class SeeingNothing:
    """An Outside that does not look."""

    def follow(self, name: str, interfaces: Iterable[int], /) -> None: ...

    def forget(self, name: str, /) -> None: ...

    def addresses(self, _name: str, /) -> tuple[Address, ...]:
        return ()

    def port_of(self, _bridge: int, _family: int, _packed: bytes, /) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Explained:
    """A verdict, and the name of the address's interface; empty where that is not known."""

    verdict: Verdict
    interface: str


class Network(StrEnum):
    """Whose network a machine has, as far as its addresses go."""

    OWN = "own"
    HOST = "host"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Followed:
    """What is kept of one machine, until Addressing.forget()."""

    name: str
    process: Process
    watcher: AddressWatcher | None = None
    later: asyncio.Task[None] | None = None
    """Tries again to have one."""
    verdicts: tuple[Verdict, ...] = ()
    """What became of each address when they were chosen last."""
    reach: Reach | None = None
    """What was asked of the host then; None where it could not be asked."""
    seen_by: tuple[int, ...] = ()
    """The host-side interfaces by which it is looked at from outside."""
    seen: tuple[Address, ...] = ()
    """What was seen there, when its addresses were chosen last."""

    @property
    def network(self) -> Network:
        if self.watcher is None or not self.watcher.known.is_set():
            return Network.UNKNOWN
        return Network.OWN if self.watcher.own_network else Network.HOST

    def explained(self) -> tuple[Explained, ...]:
        """All addresses, as they were judged last."""
        return tuple(Explained(verdict, self._interface(verdict.address)) for verdict in self.verdicts)

    def _interface(self, address: Address) -> str:
        if address.source is AddressSource.GUEST:
            return "" if self.watcher is None else self.watcher.interface_name(address.ifindex)
        try:
            name = socket.if_indextoname(address.ifindex)
        except OSError:
            return ""  # it has just gone
        # The kernel takes nearly any bytes for a name. Answers are text.
        return os.fsencode(name).decode(errors="replace")


class Addressing:
    """Follows machines from follow() on, and tells of changes from start() on.

    `find` gives a registered machine and what is followed of it, by its name's key; `keys` those of all.
    """

    def __init__(self, opener: NetlinkOpener, links: HostLinks, outside: Outside,
                 keys: Callable[[], Iterator[str]], find: Callable[[str], tuple[Machine, Followed] | None],
                 update: Callable[[Machine], None]) -> None:
        self._opener = opener
        self._links = links
        self._outside = outside
        self._keys = keys
        self._find = find
        self._update = update
        self._choosing: asyncio.Task[None] | None = None
        self._pending = HostChange()

    def close(self) -> None:
        """Choose no more. What is followed is its owner's to forget."""
        if self._choosing is not None:
            self._choosing.cancel()

    async def follow(self, machine: Machine, process: Process, restored: bool = False) -> Followed:
        """Follow a machine that is to be registered, or was; its first addresses are known when this returns."""
        followed = Followed(machine.name, process)
        try:
            patience = RESTORED_SECONDS if restored else ADDRESSES_SECONDS
            followed.watcher = await self._watcher(machine.name, process, patience)
            if not followed.watcher.known.is_set():  # the kernel has mostly answered by now
                await asyncio.wait_for(followed.watcher.known.wait(), patience)
        except (OSError, NoSuchProcess) as error:
            # A machine without addresses still has users, and can be terminated. Later ones are still told of.
            _log.warning("The addresses of machine %s are not known: %s", machine.name,
                         str(error) or "no answer in time")
            if followed.watcher is None and not isinstance(error, NoSuchProcess):
                followed.later = asyncio.create_task(self._follow_later(followed))
        except BaseException:
            self.forget(followed)
            raise
        return followed

    async def _watcher(self, name: str, process: Process, patience: float) -> AddressWatcher:
        """Opened, at the second or a later try where a busy host did not run the opening thread in time."""
        deadline = time.monotonic() + patience
        while True:
            try:
                return await self._open(name, process)
            except TimeoutError:
                if time.monotonic() >= deadline:
                    raise

    async def _follow_later(self, followed: Followed) -> None:
        pause = LATER_FIRST_SECONDS
        while followed.watcher is None:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LATER_LAST_SECONDS)
            try:
                followed.watcher = await self._open(followed.name, followed.process)
            except NoSuchProcess:
                return
            except OSError:
                continue
        _log.info("The addresses of machine %s are followed now", followed.name)
        self._on_change(name_key(followed.name))  # what it told before it was the machine's

    async def _open(self, name: str, process: Process) -> AddressWatcher:
        return await AddressWatcher.open(name, process, self._opener, lambda _: self._on_change(name_key(name)))

    def forget(self, followed: Followed) -> None:
        """Let go of a machine, registered or not."""
        if followed.later is not None:
            followed.later.cancel()
        if followed.watcher is not None:
            followed.watcher.close()
        if followed.seen_by:
            self._outside.forget(name_key(followed.name))

    def chosen(self, machine: Machine, followed: Followed) -> Machine:
        """The machine with its addresses as they are now."""
        watcher = followed.watcher
        key = name_key(machine.name)
        addresses: tuple[Address, ...] = () if watcher is None else watcher.addresses
        # What a container says of itself is whole. A VM says nothing; its leader may have a network of its own.
        listed = followed.network is Network.OWN and machine.machine_class is MachineClass.CONTAINER
        followed.seen = self._outside.addresses(key)
        if not listed:
            addresses += followed.seen
        reach = Reach(self._links, followed.process, machine.network_interfaces,
                      () if watcher is None else watcher.peers, {} if watcher is None else watcher.masters,
                      self._outside.port_of)
        try:
            self._look_from_outside(key, followed, reach.ports if listed else machine.network_interfaces)
            followed.verdicts, followed.reach = judge(addresses, reach), reach
        except (OSError, NetlinkError, NoSuchProcess) as error:
            _log.warning("The way to machine %s is not known: %s", machine.name, error)
            followed.verdicts, followed.reach = (), None
        chosen = given(followed.verdicts)
        if (addresses, chosen) == (machine.addresses, machine.chosen):
            return machine
        return replace(machine, addresses=addresses, chosen=chosen)

    def _look_from_outside(self, key: str, followed: Followed, interfaces: tuple[int, ...]) -> None:
        """Those that do not list their addresses; and the ports of bridges, since others there may claim theirs."""
        if interfaces == followed.seen_by:
            return
        if interfaces:
            self._outside.follow(key, interfaces)
        else:
            self._outside.forget(key)
        followed.seen_by = interfaces

    def seen(self, key: str) -> None:
        """What is seen of a machine from outside has changed."""
        found = self._find(key)
        if found is None:
            return
        before = found[1].seen
        self._on_change(key)
        moved = set(before) ^ set(found[1].seen)
        # Another one on the bridge may claim what is known to be this one's, or may now have it.
        self.host_changed(HostChange(networks=frozenset(Prefix.of_address(address) for address in moved)))

    def host_changed(self, change: HostChange) -> None:
        """Choose addresses anew, soon, where the host's change may make others right."""
        if change == HostChange():
            return
        self._pending |= change
        if self._choosing is None or self._choosing.done():
            self._choosing = asyncio.get_running_loop().create_task(self._choose_again())

    async def _choose_again(self) -> None:
        while self._pending != HostChange():
            change, self._pending = self._pending, HostChange()
            began = time.thread_time()
            turn_ends = began + TURN_SECONDS
            for key in list(self._keys()):
                if self._concerned(key, change):
                    self._on_change(key)
                if time.thread_time() >= turn_ends:
                    await asyncio.sleep(0)  # others have their turn
                    turn_ends = time.thread_time() + TURN_SECONDS
            await asyncio.sleep((time.thread_time() - began) * (CHOOSING_SHARE - 1))

    def _concerned(self, key: str, change: HostChange) -> bool:
        found = self._find(key)
        return found is not None and (found[1].reach is None or found[1].reach.concerned(change))

    def _on_change(self, key: str) -> None:
        found = self._find(key)
        if found is not None:
            machine, followed = found
            self._update(self.chosen(machine, followed))
