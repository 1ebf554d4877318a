# SPDX-License-Identifier: MIT
"""The addresses in a machine's network namespace, followed by event.

One netlink socket there, opened once, tells of every change; it is first asked for what there is (a dump). Both come
through the one socket, mixed. So, while a dump is read, an event overrules what the dump says of the same address,
before or after: the kernel may read an address for the dump, then delete it and queue the event first (dumps hold no
lock since Linux 6.9), but whatever changes after the dump has read it has an event of its own. A dump that the kernel
calls interrupted, and events that were lost (ENOBUFS), lead to a new dump.

What a guest does here costs the daemon a bounded share: a wake-up reads WAKE_BYTES, and what it took is paid for with
rest, SHARE times as long. Some of that may be owed (AHEAD_SECONDS), so that changes are seen at once, unless they go on
and on. What comes faster than that ends in ENOBUFS and a new dump, so the last state is seen in any case.
"""

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable, Iterable, Sequence

from resolver.core.machine import Address
from resolver.host import netlink
from resolver.host.once import Once
from resolver.host.readable import Readable

ADDRESSES_KEPT_MAX = 1024
"""Addresses kept of one network namespace: eight times what look-ups give, and 200 KB. Root there can make millions."""

PEERS_KEPT_MAX = 64
"""Interfaces of one machine that lead to another namespace. A container has one or two."""

LINKS_KEPT_MAX = 256
"""Interfaces of one machine whose names are kept, for people to read."""

EVENTS_KEPT_MAX = 4096
"""Addresses and links that events tell of while a dump is read; some more, with the last datagram. Beyond, the dump is
repeated."""

WAKE_BYTES = 32 * 1024
"""Read in one wake-up: a page of a dump, or some 300 events; 4 ms of Python."""

SHARE = 20
"""A network namespace gets one part in so many of a processor's time, in the long run."""

PAUSE_SECONDS = 0.005
"""The least that a wake-up costs, in rest: half of the 10 ms within which a change shall be seen."""

PAUSE_MAX_SECONDS = 0.5
"""Longest rest, whatever the clock says."""

AHEAD_SECONDS = 0.1
"""Of rest that may be owed: of the processor it is 5 ms, or 20 wake-ups. A guest that configures its network makes a
dozen changes in a second, and each is seen at once."""

_DUMP_COST = WAKE_BYTES // 8  # so that asking, and being refused, ends a wake-up too
_EVENT_COST = 100  # bytes; reading a datagram costs something, however short it is
_DATAGRAM_MAX = 65536  # the kernel's dumps come in at most 32 KiB; a link's own message may be longer
GROUPS = netlink.RTMGRP_LINK | netlink.RTMGRP_IPV4_IFADDR | netlink.RTMGRP_IPV6_IFADDR

_log = logging.getLogger(__name__)
_buffer = memoryview(bytearray(_DATAGRAM_MAX))  # one for all watchers: it is used between two awaits, on one loop


class _State:
    """What is known of one network namespace."""

    __slots__ = ("addresses", "incomplete", "masters", "names", "peers")

    def __init__(self) -> None:
        self.addresses: dict[netlink.Subject, Address] = {}
        self.peers: dict[int, int] = {}
        self.masters: dict[int, int] = {}
        self.names: dict[int, str] = {}
        self.incomplete = False
        """Something was left out that there may be room for."""

    def apply(self, messages: Iterable[netlink.Message]) -> None:
        for message in messages:
            body = message.body
            if isinstance(body, Address):
                if message.type != netlink.RTM_NEWADDR:
                    self.addresses.pop(message.subject, None)
                elif (len(self.addresses) < ADDRESSES_KEPT_MAX or message.subject in self.addresses
                        or self._make_room(body)):
                    self.addresses[message.subject] = body
            elif isinstance(body, netlink.Link):
                self._apply_link(body, message.type == netlink.RTM_NEWLINK)

    def _apply_link(self, link: netlink.Link, there: bool) -> None:
        index = link.interface
        leads_out = there and link.link > 0 and link.link_netnsid is not None
        if not leads_out:
            self.peers.pop(index, None)
        elif len(self.peers) < PEERS_KEPT_MAX or index in self.peers:
            self.peers[index] = link.link
        else:
            self.incomplete = True
        if leads_out and link.master and index in self.peers:
            self.masters[index] = link.master
        else:
            self.masters.pop(index, None)
        if not there:
            self.names.pop(index, None)
        elif len(self.names) < LINKS_KEPT_MAX or index in self.names:
            self.names[index] = link.name

    def _make_room(self, wanted: Address) -> bool:
        """For an address on a link of the host's, at the cost of one on a link that leads nowhere: events tell of those
        before a dump tells of the others."""
        self.incomplete = True
        if self._leads_out(wanted.ifindex):
            for subject, address in self.addresses.items():
                if not self._leads_out(address.ifindex):
                    del self.addresses[subject]
                    return True
        return False

    def _leads_out(self, index: int) -> bool:
        return index in self.peers or index in self.masters.values()


class _Dump:
    """A dump that is being read: what it tells, overruled by the events since it was asked for."""

    def __init__(self) -> None:
        self.state = _State()
        self.kind = 0
        self.sequence = 0
        self._told_by_events: set[netlink.Subject] = set()
        self.spoiled = False
        """It has to be repeated: interrupted, or more events came than can be remembered."""

    def apply_events(self, messages: Sequence[netlink.Message]) -> None:
        if len(self._told_by_events) < EVENTS_KEPT_MAX:
            self._told_by_events.update([message.subject for message in messages])
            self.state.apply(messages)
        else:
            self.spoiled = True

    def apply(self, messages: Sequence[netlink.Message]) -> None:
        told = self._told_by_events
        self.state.apply([message for message in messages if message.subject not in told] if told else messages)


class AddressWatcher:
    """Follows the addresses in one network namespace until closed. Use it on one event loop, and close it when no
    machine there is left: the socket keeps the network namespace alive.

    `on_change` is called with all addresses, on the loop, once they are first known and then after each wake-up that
    changed them or the peers. `known` is set from the first time on.
    """

    __slots__ = ("_ahead", "_dump", "_dump_wanted", "_loop", "_name", "_on_change", "_readable", "_sequence", "_socket",
                 "_state", "_timer", "_told", "_told_overflow", "_told_trouble", "addresses", "known", "masters",
                 "peers")

    def __init__(self, name: str, readable: Readable, on_change: Callable[[tuple[Address, ...]], object]) -> None:
        """`name` is of a machine there, for the log."""
        self.known = Once()
        self.addresses: tuple[Address, ...] = ()
        self.peers: tuple[tuple[int, int], ...] = ()
        """Interfaces inside that lead out: index inside, index there, as the guest has it (see links.py)."""
        self.masters: dict[int, int] = {}
        """The bridges inside that these are ports of, by the index of the port."""
        self._name = name
        self._readable = readable
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._timer: asyncio.Handle | None = None
        self._ahead = 0.0  # when all that it took will be paid for; a time of the loop's clock
        self._state = _State()
        self._dump: _Dump | None = None
        self._dump_wanted = True
        self._sequence = 0
        self._told = False
        self._told_trouble = False
        self._told_overflow = False

    def follow(self, opened: socket.socket) -> None:
        """Begin, with a netlink socket of that network namespace, member of GROUPS, which is then ours."""
        self._socket = opened
        self._wake()

    def interface_name(self, index: int) -> str:
        """The name of an interface inside, as the guest gave it; empty where it is not known."""
        return self._state.names.get(index, "")

    def close(self) -> None:
        """Stop. May be called again, and from within on_change."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._readable.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _wake(self) -> None:
        """Read at most WAKE_BYTES, tell, rest if too much is owed."""
        began = time.thread_time()  # the processor's: a busy host is not this guest's doing
        try:
            self._read()
            self._tell()
        finally:
            if self._socket is not None:
                self._rest(max(PAUSE_SECONDS, (time.thread_time() - began) * SHARE))

    def _rest(self, cost: float) -> None:
        now = self._loop.time()
        self._ahead = min(max(self._ahead, now) + cost, now + AHEAD_SECONDS + PAUSE_MAX_SECONDS)
        rest = self._ahead - now - AHEAD_SECONDS
        if rest > 0:
            self._timer = self._loop.call_later(rest, self._go_on)
        elif self._dump_wanted or self._dump is not None:
            self._timer = self._loop.call_soon(self._go_on)  # others have their turn
        else:
            self._listen()

    def _go_on(self) -> None:
        self._timer = None
        if self._dump_wanted or self._dump is not None:
            self._wake()
        else:
            self._listen()

    def _listen(self) -> None:
        if self._socket is not None:
            self._readable.once(self._socket.fileno(), self._wake)

    def _read(self) -> None:
        budget = WAKE_BYTES
        if self._sequence == 0:  # the first time, when nothing can have been lost
            if not self._start_dump():
                return
            budget -= _DUMP_COST
        while budget > 0 and self._socket is not None:
            try:
                # MSG_TRUNC: the length that the datagram had
                length, (port, groups) = self._socket.recvfrom_into(_buffer, 0, socket.MSG_TRUNC)
            except BlockingIOError:
                # Not sooner: after ENOBUFS the kernel drops events, and does not say so again, until the queue has
                # been empty once (netlink_rcv_wake() in net/netlink/af_netlink.c).
                if not self._start_dump():
                    return
                budget -= _DUMP_COST
                continue
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    self._trouble(error)
                    return
                self._dump_wanted = True
                continue
            budget -= max(length, _EVENT_COST)
            if port != 0:  # not from the kernel: root in the guest may write to our socket
                continue
            dump = self._dump
            try:
                if length > _DATAGRAM_MAX:
                    raise netlink.NetlinkError(f"a datagram of {length} bytes")
                messages = netlink.parse(bytes(_buffer[:length]))
                if groups != 0:
                    self._on_events(messages)
                else:
                    self._on_answers(messages)
            except netlink.NetlinkError as error:
                self._trouble(error)
                return
            if dump is not None and self._dump is None and not self._dump_wanted:
                return  # all is known; what has happened since wakes us again

    def _on_events(self, messages: Sequence[netlink.Message]) -> None:
        self._state.apply(messages)
        if self._dump is not None:
            self._dump.apply_events(messages)

    def _on_answers(self, messages: Sequence[netlink.Message]) -> None:
        dump = self._dump
        if dump is None:
            return
        answers = [message for message in messages if message.sequence == dump.sequence]
        if not answers:
            return
        dump.spoiled |= any(message.interrupted for message in answers)
        dump.apply(answers)
        last = answers[-1]
        if last.type not in (netlink.NLMSG_DONE, netlink.NLMSG_ERROR):
            return
        if last.body:
            self._dump = None
            raise netlink.NetlinkError(f"error {last.body}")
        if dump.kind == netlink.RTM_GETLINK:
            self._ask(dump, netlink.RTM_GETADDR)
        else:
            self._state, self._dump_wanted = dump.state, self._dump_wanted or dump.spoiled
            self._dump = None
            self.known.set()

    def _start_dump(self) -> bool:
        """Whether there is now more to read. The queue is empty."""
        if self._dump is not None:  # its end never came
            self._dump, self._dump_wanted = None, True
            return False
        if not self._dump_wanted:
            return False
        self._dump_wanted = False
        self._dump = _Dump()
        return self._ask(self._dump, netlink.RTM_GETLINK)

    def _ask(self, dump: _Dump, kind: int) -> bool:
        assert self._socket is not None
        self._sequence += 1
        dump.kind, dump.sequence = kind, self._sequence
        try:
            self._socket.send(netlink.dump_request(kind, self._sequence))
        except OSError as error:  # the kernel has no memory for it now
            self._trouble(error)
            return False
        return True

    def _trouble(self, error: Exception) -> None:
        """What should not happen: tell once, and ask anew after the pause."""
        if not self._told_trouble:
            self._told_trouble = True
            _log.warning("machine %s: following its addresses: %s", self._name, error)
        self._dump, self._dump_wanted = None, True

    def _tell(self) -> None:
        """Tell the daemon what has changed, if anything has, and there is a whole picture to tell."""
        if self._socket is None or not self.known.is_set():
            return
        state = self._state
        if state.incomplete:
            if not self._told_overflow:
                self._told_overflow = True
                _log.warning("machine %s has more than %d addresses, or %d links to elsewhere; the others are left out",
                             self._name, ADDRESSES_KEPT_MAX, PEERS_KEPT_MAX)
            # Room again: what was left out is not known, so ask.
            if len(state.addresses) < ADDRESSES_KEPT_MAX and len(state.peers) < PEERS_KEPT_MAX:
                state.incomplete, self._dump_wanted = False, True
        # The same address may be there twice, with two prefixes.
        addresses, peers = tuple(dict.fromkeys(state.addresses.values())), tuple(state.peers.items())
        now = addresses, peers, state.masters
        if now != (self.addresses, self.peers, self.masters) or not self._told:
            self._told = True
            self.addresses, self.peers, self.masters = addresses, peers, dict(state.masters)
            self._on_change(addresses)
