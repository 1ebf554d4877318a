# SPDX-License-Identifier: MIT
"""Tells what has changed of the host's own links, addresses and routes: other addresses may be right then."""

import asyncio
import errno
import logging
import time
from collections.abc import Callable

from resolver.core.machine import Address
from resolver.host import netlink
from resolver.host.netns import netlink_socket
from resolver.host.reach import HostChange, Prefix

WAKE_EVENTS = 200
"""Read in one round of the loop; some 3 ms."""

PAUSE_SECONDS = 0.003
"""Between two rounds: what comes together, such as a new link with its addresses and routes, is told of once. It is a
part of the 10 ms within which a change shall be seen."""

SHARE = 10
"""Of ten seconds of the loop, one at the most: a route that flaps delays nobody."""

RECEIVE_BUFFER = 4 * 1024 * 1024
"""Bytes that the kernel keeps, some 5000 events: where some are lost, all machines are chosen anew."""

_DATAGRAM_MAX = 32768
_GROUPS = (netlink.RTMGRP_LINK | netlink.RTMGRP_IPV4_IFADDR | netlink.RTMGRP_IPV6_IFADDR | netlink.RTMGRP_IPV4_ROUTE
           | netlink.RTMGRP_IPV6_ROUTE | netlink.RTMGRP_IPV4_RULE | netlink.RTMGRP_IPV6_RULE | netlink.RTMGRP_NEXTHOP)
_BY_FAMILY_ALONE = frozenset({netlink.RTM_NEWLINK, netlink.RTM_DELLINK, netlink.RTM_NEWADDR, netlink.RTM_DELADDR,
                              netlink.RTM_NEWROUTE, netlink.RTM_DELROUTE})
_EVERYTHING = HostChange(everything=True)

_log = logging.getLogger(__name__)


class HostWatcher:
    """Calls `on_change` on the running loop until closed; where events were lost, everything may have changed."""

    def __init__(self, on_change: Callable[[HostChange], object]) -> None:
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._socket = netlink_socket(_GROUPS, RECEIVE_BUFFER)
        self._timer: asyncio.TimerHandle | None = None
        self._listen()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _listen(self) -> None:
        self._timer = None
        self._loop.add_reader(self._socket, self._on_readable)

    def _on_readable(self) -> None:
        self._loop.remove_reader(self._socket)
        began = time.thread_time()
        change = self._read()
        spent = time.thread_time() - began
        self._timer = self._loop.call_later(max(PAUSE_SECONDS, spent * (SHARE - 1)), self._listen)
        if change != HostChange():
            self._on_change(change)

    def _read(self) -> HostChange:
        messages: list[netlink.Message] = []
        try:
            for _ in range(WAKE_EVENTS):
                datagram, (port, _groups) = self._socket.recvfrom(_DATAGRAM_MAX)
                if port == 0:  # from the kernel
                    messages.extend(netlink.parse(datagram))
        except BlockingIOError:
            pass
        except netlink.NetlinkError as error:
            _log.warning("following the host's routes: %s", error)
            return _EVERYTHING
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                _log.warning("following the host's routes: %s", error)
            return _EVERYTHING
        return change_of(messages)


def change_of(messages: list[netlink.Message]) -> HostChange:
    """What these events may have changed."""
    interfaces: set[int] = set()
    networks: set[Prefix] = set()
    for message in messages:
        match message.body:
            case netlink.Link(interface=index):
                interfaces.add(index)
            case Address(ifindex=index):
                interfaces.add(index)
            case netlink.Route() as route:
                networks.add(Prefix.of(route))
            case _ if message.type not in _BY_FAMILY_ALONE:  # a rule, a next hop: seldom, and of any consequence
                return _EVERYTHING
    return HostChange(frozenset(interfaces)) | HostChange(networks=frozenset(networks))
