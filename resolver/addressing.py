# SPDX-License-Identifier: MIT
"""Follows the addresses of all machines, and chooses those that look-ups give: by what is told of the guest's side and
of the host's.

Whatever changed, the outcome are Machines with other addresses, handed to `update`.

A machine of before a restart has the addresses that the table had, for look-ups read these already. It is `behind`
until its network namespace has been looked at again, which catch_up() does in turns, and settle() at once for who asks.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from resolver.core.addresses import Verdict, given, judge
from resolver.core.frozen import but
from resolver.core.machine import Address, AddressSource, Machine, MachineClass
from resolver.core.names import name_key
from resolver.core.registration import Registration
from resolver.host.links import HostLinks
from resolver.host.netlink import NetlinkError
from resolver.host.netns import NetlinkOpener
from resolver.host.process import NoSuchProcess, Process
from resolver.host.reach import HostChange, Prefix, Reach
from resolver.namespaces import NOT_JUDGED, Judged, NetworkNamespace, NetworkNamespaces

ADDRESSES_SECONDS = 1.0
"""For the kernel to list a machine's addresses, before registration goes on without them; it takes 0.1 ms each."""

RESTORED_SECONDS = 10.0
"""The same for a machine of before, whose addresses the table still has: a start on a busy host, or while its kernel is
busy with links, is not to take them away."""

OUTSIDE_SECONDS = 1.0
"""For neighbour tables to be read, before a machine of before is judged without; some ms."""

ENTERING_MAX = 64
"""Machines of before whose addresses the kernel is asked for at a time: a guest that keeps it from answering holds up
one of these."""

TOLD_AT_ONCE = 8
"""Machines in one network namespace that are chosen anew as soon as something changes there; more of them wait for
their turn."""

LATER_FIRST_SECONDS = 1.0
LATER_LAST_SECONDS = 60.0
"""Where a machine's namespace could not be entered in time, or for want of a descriptor, it is tried again, at
intervals that double, for as long as the machine is there: what was in the way may go at any time, and a try takes
0.1 ms."""

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

    async def settled(self) -> None:
        """Wait until all is known that the kernel knows of those that are followed."""


class SeeingNothing:
    """An Outside that does not look."""

    def follow(self, name: str, interfaces: Iterable[int], /) -> None: ...

    def forget(self, name: str, /) -> None: ...

    def addresses(self, _name: str, /) -> tuple[Address, ...]:
        return ()

    def port_of(self, _bridge: int, _family: int, _packed: bytes, /) -> int:
        return 0

    async def settled(self) -> None: ...


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


@dataclass(slots=True, eq=False)
class Followed:
    """What is kept of one machine, until Addressing.forget()."""

    name: str
    process: Process
    namespace: NetworkNamespace | None = None
    later: asyncio.Task[None] | None = None
    """Tries again to have one."""
    judged: Judged = NOT_JUDGED
    """What became of its addresses when they were chosen last."""
    seen_by: tuple[int, ...] = ()
    """The host-side interfaces by which it is looked at from outside."""
    seen: tuple[Address, ...] = ()
    """What was seen there, when its addresses were chosen last."""
    behind: bool = False
    """Of before a restart, and not looked at since."""
    settling: asyncio.Task[None] | None = None

    @property
    def network(self) -> Network:
        if self.namespace is None or not self.namespace.watcher.known.is_set():
            return Network.UNKNOWN
        return Network.HOST if self.namespace.is_host else Network.OWN

    def explained(self) -> tuple[Explained, ...]:
        """All addresses, as they were judged last."""
        return tuple(Explained(verdict, self._interface(verdict.address)) for verdict in self.judged.verdicts)

    def _interface(self, address: Address) -> str:
        if address.source is AddressSource.GUEST:
            return "" if self.namespace is None else self.namespace.watcher.interface_name(address.ifindex)
        try:
            name = socket.if_indextoname(address.ifindex)
        except OSError:
            return ""  # it has just gone
        # The kernel takes nearly any bytes for a name. Answers are text.
        return os.fsencode(name).decode(errors="replace")


class Addressing:
    """Follows machines from follow() or remember() on, until forget().

    `find` gives a registered machine and what is followed of it, by its name's key; `keys` those of all. `update` takes
    machines that have other addresses now, all at once.
    """

    def __init__(self, opener: NetlinkOpener, links: HostLinks, outside: Outside,
                 keys: Callable[[], Iterator[str]], find: Callable[[str], tuple[Machine, Followed] | None],
                 update: Callable[[Sequence[Machine]], None]) -> None:
        self._namespaces = NetworkNamespaces(opener, self._on_namespace)
        self._links = links
        self._outside = outside
        self._keys = keys
        self._find = find
        self._update = update
        self._choosing: asyncio.Task[None] | None = None
        self._pending = HostChange()
        self._late: dict[str, None] = {}  # keys of machines that are to be chosen anew
        self._catching_up: asyncio.Task[None] | None = None
        self._entering = asyncio.Semaphore(ENTERING_MAX)
        self._turn = asyncio.Lock()

    def close(self) -> None:
        """Choose no more. What is followed must have been forgotten."""
        for task in (self._choosing, self._catching_up):
            if task is not None:
                task.cancel()
        self._namespaces.close()

    async def follow(self, name: str, process: Process, patience: float = ADDRESSES_SECONDS) -> Followed:
        """Follow a machine that is to be registered; its first addresses are known when this returns."""
        followed = Followed(name, process)
        try:
            await self._enter(followed, patience)
        except BaseException:
            self.forget(followed)
            raise
        return followed

    def remember(self, name: str, process: Process) -> Followed:
        """Follow a machine of before, later: look-ups have its addresses. It is to be registered with these."""
        return Followed(name, process, behind=True)

    async def _enter(self, followed: Followed, patience: float) -> None:
        """Have its addresses told from now on; the first are known when this returns, or cannot be had."""
        try:
            namespace = followed.namespace = await self._namespace(followed, patience)
            if not namespace.watcher.known.is_set():  # the kernel has mostly answered by now
                await asyncio.wait_for(namespace.watcher.known.wait(), patience)
        except (OSError, NoSuchProcess) as error:
            # A machine without addresses still has users, and can be terminated. Later ones are still told of.
            _log.warning("The addresses of machine %s are not known: %s", followed.name,
                         str(error) or "no answer in time")
            if followed.namespace is None and not isinstance(error, NoSuchProcess):
                followed.later = asyncio.get_running_loop().create_task(self._enter_later(followed))

    async def _namespace(self, followed: Followed, patience: float) -> NetworkNamespace:
        """Entered, at the second or a later try where a busy host did not run the opening thread in time."""
        deadline = time.monotonic() + patience
        while True:
            try:
                return await self._namespaces.enter(followed, followed.name, followed.process)
            except TimeoutError:
                if time.monotonic() >= deadline:
                    raise

    async def _enter_later(self, followed: Followed) -> None:
        pause = LATER_FIRST_SECONDS
        while followed.namespace is None:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LATER_LAST_SECONDS)
            try:
                followed.namespace = await self._namespaces.enter(followed, followed.name, followed.process)
            except NoSuchProcess:
                return
            except OSError:
                continue
        _log.info("The addresses of machine %s are followed now", followed.name)
        self._choose([name_key(followed.name)])  # what was told before it was in there

    def forget(self, followed: Followed) -> None:
        """Let go of a machine, registered or not."""
        if followed.later is not None:
            followed.later.cancel()
        if followed.settling is not None:
            followed.settling.cancel()
        if followed.namespace is not None:
            self._namespaces.leave(followed.namespace, followed)
            followed.namespace = None
        if followed.seen_by:
            self._outside.forget(name_key(followed.name))

    # Machines of before.

    def catch_up(self) -> None:
        """Look at all that are behind, from now on, one in each round of the loop."""
        self._catching_up = asyncio.get_running_loop().create_task(self._catch_up())

    async def _catch_up(self) -> None:
        begun, slow = 0, []
        for key in list(self._keys()):
            task = self._settling(key)
            if task is not None:
                begun += 1
                await asyncio.sleep(0)  # it has its turn, and others
                if not task.done():
                    slow.append(task)
        if slow:
            await asyncio.wait(slow)
        if begun:
            _log.info("%d machines have been looked at again", begun)

    async def settle(self, key: str) -> None:
        """Wait until a machine has the addresses of now. Nothing where it has them, or there is none."""
        task = self._settling(key)
        if task is not None:
            await asyncio.wait([task])  # which goes on where who waits does not

    def _settling(self, key: str) -> asyncio.Task[None] | None:
        found = self._find(key)
        if found is None or not found[1].behind:
            return None
        followed = found[1]
        if followed.settling is None:
            followed.settling = asyncio.get_running_loop().create_task(self._settle(key, followed))
        return followed.settling

    async def _settle(self, key: str, followed: Followed) -> None:
        try:
            async with self._entering:
                await self._enter(followed, RESTORED_SECONDS)
            found = self._find(key)
            if found is None or found[1] is not followed:
                return
            if self._look_from_outside_first(found[0], followed):
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._outside.settled(), OUTSIDE_SECONDS)
                async with self._turn:  # all who have waited for it, one in each round of the loop
                    await asyncio.sleep(0)
            followed.behind = False
            self._choose([key])
        finally:
            followed.settling = None

    def _look_from_outside_first(self, machine: Machine, followed: Followed) -> bool:
        """Where it counts who else is on its bridge; whether there is more to be waited for, before that is known."""
        if not self._is_listed(machine, followed):
            return False
        before = followed.seen_by
        judged = self._judged(machine, followed)
        if judged.ports and followed.seen_by != before:
            self._judge_anew(machine, followed, judged)
            return True
        return False

    # Choosing.

    def choose(self, machine: Machine | Registration, followed: Followed) -> Judged:
        """What becomes of the machine's addresses as they are now. What counts is said when it is registered: its class
        and its interfaces."""
        followed.seen = self._outside.addresses(name_key(followed.name))
        judged = followed.judged = self._judged(machine, followed)
        return judged

    def _judged(self, machine: Machine | Registration, followed: Followed) -> Judged:
        if not self._is_listed(machine, followed):
            return self._judge(machine, followed, listed=False)
        assert followed.namespace is not None
        known = followed.namespace.judged
        judged = known.get(machine.network_interfaces)
        if judged is not None:
            self._look_from_outside(followed, judged.ports)
        else:
            judged = self._judge(machine, followed, listed=True)
            if judged.concern is not None:
                known[machine.network_interfaces] = judged
        return judged

    @staticmethod
    def _is_listed(machine: Machine | Registration, followed: Followed) -> bool:
        """What a container says of itself is whole. A VM says nothing; its leader may have a network of its own."""
        return followed.network is Network.OWN and machine.machine_class is MachineClass.CONTAINER

    def _judge(self, machine: Machine | Registration, followed: Followed, listed: bool) -> Judged:
        addresses: tuple[Address, ...] = () if followed.namespace is None else followed.namespace.watcher.addresses
        if not listed:
            addresses += followed.seen
        try:
            reach = self._reach(machine, followed)
            ports = reach.ports
            self._look_from_outside(followed, ports if listed else machine.network_interfaces)
            verdicts = judge(addresses, reach)
        except (OSError, NetlinkError, NoSuchProcess) as error:
            _log.warning("The way to machine %s is not known: %s", machine.name, error)
            return Judged(addresses)
        return Judged(addresses, verdicts, given(verdicts), ports, reach.concern())

    def _reach(self, machine: Machine | Registration, followed: Followed) -> Reach:
        watcher = None if followed.namespace is None else followed.namespace.watcher
        peers, masters = ((), {}) if watcher is None else (watcher.peers, watcher.masters)
        return Reach(self._links, followed.process, machine.network_interfaces, peers, masters, self._outside.port_of)

    def _look_from_outside(self, followed: Followed, interfaces: tuple[int, ...]) -> None:
        """Those that do not list their addresses; and the ports of bridges, since others there may claim theirs."""
        if interfaces == followed.seen_by:
            return
        key = name_key(followed.name)
        if interfaces:
            self._outside.follow(key, interfaces)
        else:
            self._outside.forget(key)
        followed.seen_by = interfaces

    def _choose(self, keys: Iterable[str]) -> None:
        """Choose the addresses of these machines anew. Those that are behind have their time."""
        changed = []
        for key in keys:
            found = self._find(key)
            if found is not None and not found[1].behind:
                machine, judged = found[0], self.choose(*found)
                if (judged.addresses, judged.chosen) != (machine.addresses, machine.chosen):
                    changed.append(but(machine, addresses=judged.addresses, chosen=judged.chosen))
        if changed:
            self._update(changed)

    # What has changed.

    def _on_namespace(self, namespace: NetworkNamespace) -> None:
        namespace.judged.clear()
        keys = list(dict.fromkeys(namespace.machines.values()))
        self._choose(keys[:TOLD_AT_ONCE])
        if len(keys) > TOLD_AT_ONCE:
            self._late.update(dict.fromkeys(keys[TOLD_AT_ONCE:]))
            self._choose_soon()

    def seen(self, key: str) -> None:
        """What is seen of a machine from outside has changed."""
        found = self._find(key)
        if found is None:
            return
        machine, followed = found
        before = followed.seen
        if followed.behind:
            followed.seen = self._outside.addresses(key)
        else:
            self._judge_anew(machine, followed, followed.judged)
            self._choose([key])
        moved = set(before) ^ set(followed.seen)
        # Another one on the bridge may claim what is known to be this one's, or may now have it.
        self.host_changed(HostChange(networks=frozenset(Prefix.of_address(address) for address in moved)))

    def host_changed(self, change: HostChange) -> None:
        """Choose addresses anew, soon, where the host's change may make others right."""
        if change == HostChange():
            return
        self._pending |= change
        self._choose_soon()

    def _choose_soon(self) -> None:
        if self._choosing is None or self._choosing.done():
            self._choosing = asyncio.get_running_loop().create_task(self._choose_again())

    async def _choose_again(self) -> None:
        while self._late or self._pending != HostChange():
            change, self._pending = self._pending, HostChange()
            late, self._late = self._late, {}
            began = time.thread_time()
            turn_ends = began + TURN_SECONDS
            for key in list(self._keys()) if change != HostChange() else late:
                if key in late or self._concerned(key, change):
                    self._choose([key])
                if time.thread_time() >= turn_ends:
                    await asyncio.sleep(0)  # others have their turn
                    turn_ends = time.thread_time() + TURN_SECONDS
            await asyncio.sleep((time.thread_time() - began) * (CHOOSING_SHARE - 1))

    def _concerned(self, key: str, change: HostChange) -> bool:
        found = self._find(key)
        if found is None or found[1].behind:
            return False
        machine, followed = found
        concern = followed.judged.concern
        if concern is not None and not concern.by(change):
            return False
        self._judge_anew(machine, followed, followed.judged)
        return True

    @staticmethod
    def _judge_anew(machine: Machine, followed: Followed, judged: Judged) -> None:
        """Others in the network namespace have gone by the same judgement: the first of them asks again."""
        known = {} if followed.namespace is None else followed.namespace.judged
        if known.get(machine.network_interfaces) is judged:
            del known[machine.network_interfaces]
