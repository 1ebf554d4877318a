# SPDX-License-Identifier: MIT
"""Tells when the host's own links, addresses or routes have changed: other addresses of machines may be right then."""

import asyncio
import errno
import logging
from collections.abc import Callable

from resolver.host import netlink
from resolver.host.netns import netlink_socket

WAKE_EVENTS = 1000
"""Read in one round of the loop, and thrown away: all that counts is that there were some."""

PAUSE_SECONDS = 0.01
"""Between two rounds: what comes together, such as a new link with its addresses and routes, is told of once."""

_DATAGRAM_MAX = 32768
_GROUPS = (netlink.RTMGRP_LINK | netlink.RTMGRP_IPV4_IFADDR | netlink.RTMGRP_IPV6_IFADDR | netlink.RTMGRP_IPV4_ROUTE
           | netlink.RTMGRP_IPV6_ROUTE)

_log = logging.getLogger(__name__)


class HostWatcher:
    """Calls `on_change` on the running loop until closed; also where events were lost, for then there were some."""

    def __init__(self, on_change: Callable[[], object]) -> None:
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._socket = netlink_socket(_GROUPS)
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
        try:
            for _ in range(WAKE_EVENTS):
                self._socket.recv(_DATAGRAM_MAX)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                _log.warning("following the host's routes: %s", error)
        self._timer = self._loop.call_later(PAUSE_SECONDS, self._listen)
        self._on_change()
