# SPDX-License-Identifier: MIT
"""Follows the host's neighbour tables and its bridges' forwarding tables, by event, for the machines behind ports.

One netlink socket for the whole host. As with a machine's own addresses (addresses.py), what there is comes through it
mixed with what happens, and an event overrules what a dump says of the same thing. Lost events (ENOBUFS), and machines
that are newly followed, lead to a new dump: of links, of forwarding tables, of neighbours, in this order, for each of
them tells what the next is about. Many machines that are followed in a row share one.

Guests fill these tables, so what they cost is bounded: a wake-up reads WAKE_BYTES, and the pause to the next one is in
proportion to the time that it took. The first event after quiet is seen at once. And the first dump is read without
pauses, for a start waits for it; it is as long as the tables, and where events come faster than they are read, it has
pauses as well.
"""

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable, Iterable

from resolver.host import netlink
from resolver.host.neighbourhood import Neighbourhood
from resolver.host.netns import netlink_socket

WAKE_BYTES = 64 * 1024
"""Read in one wake-up: two pages of a dump, or some 800 events; about 10 ms of Python."""

PAUSE_SECONDS = 0.005
"""Shortest pause after a wake-up: half of the 10 ms within which a change shall be seen."""

PAUSE_MAX_SECONDS = 0.5
"""Longest one, whatever the clock says."""

SHARE = 10
"""All of this gets one part in so many of a processor's time, in the long run."""

EVENTS_KEPT_MAX = 8192
"""Things that events tell of while a dump is read; beyond, the dump is repeated."""

RECEIVE_BUFFER = 1024 * 1024
"""Bytes that the kernel keeps for us: some 1500 events, as it counts them. Beyond, we ask anew (ENOBUFS)."""

GROUPS = netlink.RTMGRP_LINK | netlink.RTMGRP_NEIGH

_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
_DUMP_COST = WAKE_BYTES // 8
_EVENT_COST = 80  # bytes; reading a datagram costs something, however short it is
_DATAGRAM_MAX = 65536
_STAGES: tuple[Callable[[int], bytes], ...] = (
    lambda sequence: netlink.dump_request(netlink.RTM_GETLINK, sequence),
    lambda sequence: netlink.neighbours_request(netlink.AF_BRIDGE, sequence),
    lambda sequence: netlink.neighbours_request(0, sequence),
)

_log = logging.getLogger(__name__)
_buffer = memoryview(bytearray(_DATAGRAM_MAX))


class _Dump:
    """A dump that is being read. `told_by_events` is since its stage was asked for, `pauses` between wake-ups."""

    def __init__(self, pauses: bool) -> None:
        self.pauses = pauses
        self.stage = 0
        self.sequence = 0
        self.told_by_events: set[netlink.Subject] = set()
        self.spoiled = False
        """It has to be repeated: interrupted, or more events came than can be remembered."""


class NeighbourWatcher:
    """Keeps a Neighbourhood in step with the kernel, on the running loop, until closed. OSError without netlink.

    `on_change` is called with the names of the machines of which something is different, after each wake-up. `known` is
    set when the tables have been read for the first time, and `settled` while nothing of them is left to be read for
    those that are followed.
    """

    def __init__(self, on_change: Callable[[set[str]], object], opened: socket.socket | None = None) -> None:
        """`opened` is a netlink socket of another network namespace, member of GROUPS, to follow that instead."""
        self.known = asyncio.Event()
        self.settled = asyncio.Event()
        self.neighbourhood = Neighbourhood()
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = netlink_socket(GROUPS) if opened is None else opened
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
        except PermissionError:  # without CAP_NET_ADMIN: as much as everybody may have
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._timer: asyncio.TimerHandle | None = None
        self._resting = False
        self._dump: _Dump | None = None
        self._dump_wanted = True
        self._sequence = 0
        self._told_trouble = False
        self._rest(0)

    def close(self) -> None:
        """Stop. May be called again, and from within on_change."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def follow(self, name: str, interfaces: Iterable[int]) -> None:
        """As Neighbourhood.follow(); what the kernel knows of them already is told soon."""
        self.neighbourhood.follow(name, interfaces)
        if self.neighbourhood.dump_wanted:
            self.settled.clear()
        self._wake_if_wanted()

    def forget(self, name: str) -> None:
        self.neighbourhood.forget(name)
        self.neighbourhood.changed.discard(name)
        self._wake_if_wanted()

    def _wake_if_wanted(self) -> None:
        if self._socket is not None and not self._resting and (self.neighbourhood.dump_wanted
                                                               or self.neighbourhood.changed):
            self._loop.remove_reader(self._socket)
            self._rest(0)  # not now: there may be more to follow

    def _rest(self, seconds: float) -> None:
        self._resting = True
        self._timer = self._loop.call_later(seconds, self._after_rest)

    def _after_rest(self) -> None:
        self._timer, self._resting = None, False
        if self._dump_wanted or self._dump is not None or self.neighbourhood.dump_wanted or self.neighbourhood.changed:
            self._wake()
        elif self._socket is not None:
            self._loop.add_reader(self._socket, self._wake)

    def _wake(self) -> None:
        """Read at most WAKE_BYTES, tell, rest."""
        began = time.thread_time()  # the processor's: a busy host is nobody's doing
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
        self._resting = True
        try:
            self._read()
            if self.known.is_set() and self.neighbourhood.changed:
                changed, self.neighbourhood.changed = self.neighbourhood.changed, set()
                self._on_change(changed)
        finally:
            if self._socket is not None:
                spent = time.thread_time() - began
                pauses = self._dump is None or self._dump.pauses
                self._rest(min(max(PAUSE_SECONDS, spent * (SHARE - 1)), PAUSE_MAX_SECONDS) if pauses else 0)

    def _read(self) -> None:
        budget = WAKE_BYTES
        while budget > 0 and self._socket is not None:
            try:
                length, (port, groups) = self._socket.recvfrom_into(_buffer, 0, socket.MSG_TRUNC)
            except BlockingIOError:
                # Not sooner: the kernel drops events after ENOBUFS until the queue has been empty (af_netlink.c).
                if not self._start_dump():
                    return
                budget -= _DUMP_COST
                continue
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    self._trouble(error)
                    return
                self._dump_wanted = True
                if self._dump is not None:
                    self._dump.pauses = True
                continue
            budget -= max(length, _EVENT_COST)
            if port != 0:  # not from the kernel
                continue
            try:
                if length > _DATAGRAM_MAX:
                    raise netlink.NetlinkError(f"a datagram of {length} bytes")
                for message in netlink.parse(bytes(_buffer[:length])):
                    self._on_message(message, is_event=groups != 0)
            except netlink.NetlinkError as error:
                self._trouble(error)
                return

    def _on_message(self, message: netlink.Message, is_event: bool) -> None:
        if is_event:
            if self._dump is not None:
                if len(self._dump.told_by_events) < EVENTS_KEPT_MAX:
                    self._dump.told_by_events.add(message.subject)
                else:
                    self._dump.spoiled = True
            self.neighbourhood.apply(message)
        elif self._dump is not None and message.sequence == self._dump.sequence:
            self._dump.spoiled |= message.interrupted
            if message.type not in (netlink.NLMSG_DONE, netlink.NLMSG_ERROR):
                if message.subject not in self._dump.told_by_events:
                    wanted = self.neighbourhood.dump_wanted
                    self.neighbourhood.apply(message)
                    self.neighbourhood.dump_wanted = wanted  # what it wants now, it is about to be told
            elif message.body:
                self._dump = None
                raise netlink.NetlinkError(f"error {message.body}")
            elif self._dump.stage + 1 < len(_STAGES):
                self._dump.stage += 1
                self._ask(self._dump)
            else:
                self.neighbourhood.finish()
                self._dump_wanted |= self._dump.spoiled
                self._dump = None
                self.known.set()
                if not self._dump_wanted and not self.neighbourhood.dump_wanted:
                    self.settled.set()

    def _start_dump(self) -> bool:
        """Whether there is now more to read. The queue is empty."""
        if self._dump is not None:  # its end never came
            self._dump, self._dump_wanted = None, True
            return False
        if not self._dump_wanted and not self.neighbourhood.dump_wanted:
            return False
        self._dump_wanted = self.neighbourhood.dump_wanted = False
        self.neighbourhood.begin()
        self._dump = _Dump(pauses=self._sequence > 0)
        return self._ask(self._dump)

    def _ask(self, dump: _Dump) -> bool:
        assert self._socket is not None
        self._sequence += 1
        dump.sequence = self._sequence
        dump.told_by_events.clear()  # what has been told before it is asked for, is in it
        try:
            self._socket.send(_STAGES[dump.stage](self._sequence))
        except OSError as error:  # the kernel has no memory for it now
            self._trouble(error)
            return False
        return True

    def _trouble(self, error: Exception) -> None:
        """What should not happen: tell once, and ask anew after the pause."""
        if not self._told_trouble:
            self._told_trouble = True
            _log.warning("following the host's neighbours: %s", error)
        self._dump, self._dump_wanted = None, True
