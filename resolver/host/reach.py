# SPDX-License-Identifier: MIT
"""The host's way to one machine, asked of the kernel; and which changes of the host may lead to other answers."""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from resolver.core.addresses import AF_INET, AF_INET6, Way
from resolver.core.machine import Address, AddressSource
from resolver.host import netlink
from resolver.host.links import HostLinks
from resolver.host.process import Process

PortOf = Callable[[int, int, bytes], int]
"""(bridge, family, packed): the index of the port behind which the host has found that address, 0 where it has not."""

NETWORKS_MAX = 64
"""Changes of routes that are told apart; each is compared with every machine's addresses. Where there are more at a
time, a routing daemon is at work, and everything may have changed."""

_BITS = {AF_INET: 32, AF_INET6: 128}


class Prefix(NamedTuple):
    """A network that a route of the host's is for, and the interface it leads out of, 0 where it is not the only one.

    `number` is the address as a big-endian number, without the bits behind the prefix.
    """

    family: int
    number: int
    length: int
    interface: int

    @classmethod
    def of(cls, route: netlink.Route) -> "Prefix":
        shift = _BITS[route.family] - route.length
        number = int.from_bytes(route.destination, "big") >> shift << shift
        return cls(route.family, number, route.length, route.interface)

    @classmethod
    def of_address(cls, address: Address) -> "Prefix":
        """The address alone, wherever it leads."""
        return cls(address.family, int.from_bytes(address.packed, "big"), _BITS[address.family], 0)

    def holds(self, family: int, number: int) -> bool:
        return family == self.family and (number ^ self.number) >> _BITS[family] - self.length == 0


class HostChange(NamedTuple):
    """What changed of the host's: links and addresses by interface, routes by network; or too much to be told apart."""

    interfaces: frozenset[int] = frozenset()
    networks: frozenset[Prefix] = frozenset()
    everything: bool = False

    def __or__(self, other: "HostChange") -> "HostChange":
        networks = self.networks | other.networks
        if self.everything or other.everything or len(networks) > NETWORKS_MAX:
            return HostChange(everything=True)
        return HostChange(self.interfaces | other.interfaces, networks)


class Concern(NamedTuple):
    """What the host was asked about one machine: a change of that may lead to other answers."""

    asked: tuple[tuple[int, int], ...]
    """Families, and addresses as numbers."""
    interfaces: frozenset[int]

    def by(self, change: HostChange) -> bool:
        """Whether way() or scope_id() may answer otherwise after that change."""
        if change.everything or not change.interfaces.isdisjoint(self.interfaces):
            return True
        # A default route takes no address from a longer one. What it may give, it gives out of its own interface.
        return any(network.holds(family, number) for network in change.networks
                   if network.length or network.interface == 0 or network.interface in self.interfaces
                   for family, number in self.asked)


class Reach:
    """What resolver.core.addresses.judge() asks of the host about one machine.

    OSError, and NoSuchProcess where the leader has exited, also when it is made.
    """

    __slots__ = ("_above", "_asked", "_below", "_beside", "_led", "_led_out_of", "_links", "_named", "_port_of",
                 "_ways")

    def __init__(self, links: HostLinks, process: Process, registered: Collection[int],
                 peers: Collection[tuple[int, int]], masters: Mapping[int, int], port_of: PortOf) -> None:
        """`registered` and `peers` as HostLinks.host_interfaces() takes them; `masters` are the bridges inside, by the
        index of their port."""
        self._links = links
        self._port_of = port_of
        self._above = {link.interface: tuple(links.masters(link))
                       for link in links.host_interfaces(process, registered, peers)}
        # Its host-side interfaces, and what they are ports of: who answers there is the machine.
        self._ways = set(self._above).union(*self._above.values())
        # Interfaces inside that are on a link of the host's, or the guest's bridge upon such a one: to the interface
        # here. Others inside, as a bridge for containers of the guest's own, are on none.
        self._led: dict[int, int] = {}
        self._below: list[int] = []
        for inside, there in peers:
            if there in self._above:
                self._led[inside] = there
            else:
                self._below.append(there)
        self._named = {*registered, *self._led.values(), *self._below}
        self._led |= {masters[inside]: there for inside, there in self._led.items() if inside in masters}
        self._beside: set[int] | None = None
        self._asked: list[tuple[int, int]] = []
        self._led_out_of: set[int] = set()

    @property
    def interfaces(self) -> tuple[int, ...]:
        """The machine's host-side interfaces."""
        return tuple(self._above)

    @property
    def ports(self) -> tuple[int, ...]:
        """Those that are ports of something: others may be there too."""
        return tuple([index for index, masters in self._above.items() if masters])

    def concern(self) -> Concern:
        """All that was asked so far."""
        return Concern(tuple(self._asked),
                       frozenset(self._named | self._ways | self._led_out_of | (self._beside or set())))

    def scope_id(self, address: Address) -> int:
        if address.source is not AddressSource.GUEST:
            return self._links.scope_id(address.ifindex)
        # Where the guest has told of none, the interface that was registered is all there is to go by.
        there = self._led.get(address.ifindex, 0) if self._led else next(iter(self._above), 0)
        return self._links.scope_id(there) if there else 0

    def leads_out(self, address: Address) -> bool:
        return address.source is not AddressSource.GUEST or address.ifindex in self._led

    def way(self, address: Address) -> Way:
        self._asked.append((address.family, int.from_bytes(address.packed, "big")))
        route = self._links.route(address)
        if route is not None:
            self._led_out_of.add(route.interface)
            if route.kind == netlink.RTN_LOCAL:
                return Way.HOST
            # Behind a router is whoever that router knows, not this machine: a bridge may have the host's way out too.
            if route.kind == netlink.RTN_UNICAST and not route.gateway:
                if route.interface in self._ways or self._seen_there(address, route.interface):
                    port = self._port_of(route.interface, address.family, address.packed)
                    return Way.STRAIGHT if port == 0 or port in self._above else Way.ANOTHER_PORT
                if route.interface in self._upon():
                    return Way.BESIDE
        inside = self._led and address.source is AddressSource.GUEST and address.ifindex not in self._led
        return Way.INSIDE if inside else Way.ELSEWHERE

    def _upon(self) -> set[int]:
        """The host's interfaces that the machine's may lie upon (macvlan, ipvlan): those that the guest tells of, and
        nobody confirms. It would gain nothing by a lie: what is found there is never believed to be its own."""
        if self._beside is None:
            self._beside = {*self._below, *(master for index in self._below for master in self._links.masters(index))}
        return self._beside

    @staticmethod
    def _seen_there(address: Address, interface: int) -> bool:
        """Whether the host itself has seen the address at that interface: a VLAN upon the bridge, say."""
        return address.source is not AddressSource.GUEST and address.ifindex == interface
