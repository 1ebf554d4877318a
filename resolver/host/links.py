# SPDX-License-Identifier: MIT
"""The host's side of a machine's links: through which of the host's interfaces its link-local addresses are reached."""

import socket
from collections.abc import Callable, Collection, Iterable, Iterator

from resolver.core.machine import Address
from resolver.host import netlink
from resolver.host.netns import netlink_socket
from resolver.host.process import NoSuchProcess, Process

MASTERS_MAX = 4
"""A port of a bond that is a port of a bridge is two; the kernel allows eight (MAX_NEST_DEV)."""

# A VRF's port keeps its addresses and routes: its own index serves, and the VRF's does not (drivers/net/vrf.c refuses
# link-local destinations). Of all the others the master has them: a bridge's port as scope id gives no connection.
_KEEPS_ADDRESSES = "vrf"


class HostLinks:
    """Questions about the host's own links. Each is one message to the kernel, which answers at once.

    OSError and netlink.NetlinkError where the kernel does not, NoSuchProcess for a machine whose leader has exited.
    """

    def __init__(self, opened: socket.socket | None = None) -> None:
        """`opened` is a netlink socket of another network namespace, to ask about its links instead."""
        self._socket = netlink_socket() if opened is None else opened
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def host_interface(self, process: Process, registered: Collection[int], peers: Iterable[tuple[int, int]]) -> int:
        """The index of the host-side interface of a machine, the first where it has several, 0 where none is known."""
        return next((link.interface for link in self.host_interfaces(process, registered, peers)), 0)

    def host_interfaces(self, process: Process, registered: Collection[int],
                        peers: Iterable[tuple[int, int]]) -> Iterator[netlink.Link]:
        """A machine's host-side interfaces, as they are asked for.

        The `registered` ones (NETIF) that exist, then those others of the `peers` that the guest tells of (index
        inside, index there) which the host's side confirms: that interface leads to this very index in this very
        namespace. The guest alone is not believed: it chooses its indices, and could name another machine's interface.
        """
        for index in registered:
            if (link := self._link(index)) is not None:
                yield link
        nsid = None
        for inside, there in peers:
            link = None if there in registered else self._link(there)
            if link is not None and link.link == inside and link.link_netnsid is not None:
                nsid = self._nsid(process) if nsid is None else nsid
                if link.link_netnsid == nsid:
                    yield link

    def route(self, address: Address) -> netlink.Route | None:
        """How this host's packets to an address go, None where they go nowhere."""
        body = self._ask(netlink.route_request, address.family, address.packed)
        return body if isinstance(body, netlink.Route) else None

    def masters(self, interface: netlink.Link | int) -> Iterator[int]:
        """The bridge, bond or VRF that an interface is a port of, and what that is a port of.

        It is asked about first, where only its index is known.
        """
        link = self._link(interface) if isinstance(interface, int) else interface
        for _ in range(MASTERS_MAX):
            if link is None or link.master == 0:
                return
            yield link.master
            link = self._link(link.master)

    def scope_id(self, index: int) -> int:
        """The scope id for link-local addresses behind a host-side interface, 0 where it is gone.

        Itself, or the bridge or bond that it is a port of.
        """
        for _ in range(MASTERS_MAX):
            link = self._link(index)
            if link is None:
                return 0
            if link.master == 0 or link.port_kind == _KEEPS_ADDRESSES:
                return index
            index = link.master
        return 0

    def host_scope_id(self, process: Process, registered: Collection[int], peers: Iterable[tuple[int, int]]) -> int:
        """Both in one, for resolver.core.addresses.choose_addresses()."""
        return self.scope_id(self.host_interface(process, registered, peers))

    def _link(self, index: int) -> netlink.Link | None:
        if not 0 < index < 2**31:
            return None
        body = self._ask(netlink.link_request, index)
        return body if isinstance(body, netlink.Link) else None

    def _nsid(self, process: Process) -> int:
        """Which id the host's network namespace has for the process's, -1 for none."""
        body = self._ask(netlink.nsid_request, process.pid)
        if process.exited():  # the number may have been another's when it was asked about
            raise NoSuchProcess(process.pid)
        return body if isinstance(body, int) else -1

    def _ask(self, request: Callable[..., bytes], *about: object) -> object:
        """The body of the kernel's one reply, None for an error. The kernel has replied when send() returns."""
        self._sequence += 1
        self._socket.send(request(*about, self._sequence))
        while True:
            try:
                datagram, (port, _) = self._socket.recvfrom(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            if port != 0:
                continue
            for message in netlink.parse(datagram):
                if message.sequence == self._sequence:
                    return None if message.type == netlink.NLMSG_ERROR else message.body
