# SPDX-License-Identifier: MIT
"""Addresses of machines that the host cannot look into: VMs, and whatever is behind a bridge's port.

From the host's neighbour tables and from leases, both by MAC address. The guest chooses its MAC address, answers to
every IP address that it likes, and asks DHCP servers for leases in the name of others. What keeps it from taking over
another machine's addresses:

- MAC and IP addresses belong to the port where they were seen first (host/neighbourhood.py).
- A lease belongs to the machine that has its MAC address, whatever name the client gave. An address that a lease gives
  to one machine is no other's, whoever answers there.
- Who asks for a lease with another machine's MAC address gets it, and then uses it from his own. So of a MAC's leases
  those do not count where another MAC address is seen to answer, as long as there are others.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from socket import socket

from resolver.core.addresses import MACHINE_ADDRESSES_MAX, is_link_local
from resolver.core.machine import Address, AddressSource
from resolver.host.neighbours import NeighbourWatcher
from resolver.host.port import Port
from resolver.leases.lease import Lease
from resolver.leases.places import PLACES, Place
from resolver.leases.watcher import LeaseFiles

_RT_SCOPE_LINK = 253  # linux/rtnetlink.h


class OutsideAddresses:
    """Follows machines by their host-side interfaces, on the running loop, until closed.

    `on_change` is called with a machine's name when its addresses, or what port_of() says of them, may have changed;
    once for whatever came together. `known` is set when tables and files have been read for the first time. OSError
    where the kernel gives no sockets.
    """

    def __init__(self, on_change: Callable[[str], object], opened: socket | None = None,
                 places: Sequence[Place] = PLACES) -> None:
        """`opened` is as in NeighbourWatcher."""
        self._on_change = on_change
        self._followed: dict[str, None] = {}
        self._sources = frozenset(AddressSource)
        self._places = tuple(places)
        self._neighbours = NeighbourWatcher(self._on_neighbours, opened)
        self._hood = self._neighbours.neighbourhood
        try:
            self._leases = LeaseFiles(self._on_leases, places)
        except BaseException:
            self._neighbours.close()
            raise

    def close(self) -> None:
        """Stop. May be called again, and from within on_change."""
        self._neighbours.close()
        self._leases.close()

    async def known(self) -> None:
        """Where machines are followed, wait until tables and files have been read for the first time, some ms."""
        if self._followed:
            await asyncio.gather(self._neighbours.known.wait(), self._leases.known.wait())

    async def settled(self) -> None:
        """Wait until all has been told that the kernel knows of those that are followed."""
        await self._neighbours.settled.wait()

    async def use(self, sources: frozenset[AddressSource], places: Sequence[Place]) -> None:
        """From now on addresses come from these sources, and leases from these places. OSError, and nothing is changed.

        What was known stays until the files have been read that are to be read instead.
        """
        if tuple(places) != self._places:
            leases = LeaseFiles(self._on_leases, places)
            try:
                await leases.known.wait()
            except BaseException:
                leases.close()
                raise
            self._leases.close()
            self._leases, self._places = leases, tuple(places)
        elif sources == self._sources:
            return
        self._sources = sources
        self._tell(list(self._followed))

    def follow(self, name: str, interfaces: Iterable[int]) -> None:
        """From now on these are the machine's host-side interfaces, whether they exist yet or not."""
        self._followed[name] = None
        self._neighbours.follow(name, interfaces)

    def forget(self, name: str) -> None:
        """Nothing where it is not followed."""
        self._followed.pop(name, None)
        self._neighbours.forget(name)

    def port_of(self, interface: int, _family: int, packed: bytes, /) -> int:
        """The port, of a followed machine, behind which an address of that link was first seen to answer, else 0.

        `interface` is the bridge, a VLAN interface upon it, or the port itself where that is in no bridge.
        """
        found = self._hood.neighbour((interface, packed))  # its length tells the family
        return found.port.index if found is not None and found.port is not None else 0

    def addresses(self, name: str) -> tuple[Address, ...]:
        """The machine's, the best first, at most MACHINE_ADDRESSES_MAX; `ifindex` is the host's interface.

        First what was leased and answers, then what answers, the newest first, then what was leased and has not been
        heard of.
        """
        if name not in self._followed:
            return ()  # as of most machines
        confirmed: dict[Address, None] = {}
        others: dict[Address, None] = {}
        silent: dict[Address, None] = {}
        for port in tuple(self._hood.ports(name)):
            for lease, interface in self._leased(port):
                address = _address(lease.family, lease.packed, interface, AddressSource.LEASE)
                answers = self.port_of(interface, lease.family, lease.packed) == port.index
                (confirmed if answers else silent)[address] = None
            for (interface, packed), neighbour in self._hood.neighbours(port):
                if not self._leased_to_another(packed, interface, name):
                    others[_address(neighbour.family, packed, interface, AddressSource.NEIGHBOUR)] = None
        places = {(address.ifindex, address.packed) for address in confirmed}
        rest = (address for address in others if (address.ifindex, address.packed) not in places)
        used = (address for address in chain(confirmed, rest, silent) if address.source in self._sources)
        return tuple(islice(used, MACHINE_ADDRESSES_MAX))

    # Leases and whose they are.

    def _leased(self, port: Port) -> Iterator[tuple[Lease, int]]:
        """A port's leases, and the interface of each."""
        tails = dict.fromkeys([port.given] * bool(port.given) + [mac[1:] for mac in port.macs])
        by_mac: dict[tuple[bytes, int], list[tuple[Lease, int]]] = {}
        for lease in chain.from_iterable(self._leases.of_mac(tail) for tail in tails):
            owner, interface = self._owner(lease)
            if owner is port:
                by_mac.setdefault((lease.mac, lease.family), []).append((lease, interface))
        for leases in by_mac.values():
            credible = [(lease, interface) for lease, interface in leases if not self._contradicted(lease, interface)]
            yield from credible or leases

    def _owner(self, lease: Lease) -> tuple[Port | None, int]:
        """The port that a lease's client is behind, and the interface on which."""
        if not lease.interface:
            owner = self._hood.owner(lease.mac)
            return owner, owner.link if owner is not None else 0
        interface = self._hood.index_of(lease.interface)
        link = self._hood.link_of(interface)
        return (self._hood.owner(lease.mac, link), interface) if link else (None, 0)

    def _contradicted(self, lease: Lease, interface: int) -> bool:
        """Whether another MAC address answers there."""
        found = self._hood.neighbour((interface, lease.packed))
        return found is not None and (found.mac != lease.mac or found.disputed)

    def _leased_to_another(self, packed: bytes, interface: int, name: str) -> bool:
        for lease in self._leases.of_address(packed):
            owner, its_interface = self._owner(lease)
            if owner is not None and owner.machine != name and its_interface == interface:
                return True
        return False

    # What has changed.

    def _on_neighbours(self, names: set[str]) -> None:
        # Whose MAC address is known now has its leases; nobody else has these addresses any more.
        leases = (lease for name in names for port in self._hood.ports(name) for lease, _ in self._leased(port))
        self._tell(names | {machine for lease in leases for machine in self._answering(lease)})

    def _on_leases(self, leases: set[Lease]) -> None:
        names: set[str] = set()
        for lease in leases:
            owner, _ = self._owner(lease)
            if owner is not None:
                names.add(owner.machine)
            names.update(self._answering(lease))
        self._tell(names)

    def _answering(self, lease: Lease) -> Iterator[str]:
        for _, neighbour in self._hood.holders(lease.packed):
            if neighbour.port is not None:
                yield neighbour.port.machine

    def _tell(self, names: Iterable[str]) -> None:
        for name in names:
            self._on_change(name)


def _address(family: int, packed: bytes, interface: int, source: AddressSource) -> Address:
    address = Address(family, packed, interface, source=source)
    return Address(family, packed, interface, _RT_SCOPE_LINK, source=source) if is_link_local(address) else address
