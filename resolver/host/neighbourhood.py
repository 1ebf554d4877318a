# SPDX-License-Identifier: MIT
"""Who is behind which of the host's interfaces, as the kernel's messages tell it. No sockets.

A machine is followed by its host-side interfaces, its ports. A port of a bridge shares one link with others: the
bridge. Which MAC addresses are behind the port is in the bridge's forwarding table, and which IP addresses these have
in the neighbour table of the bridge. A port of no bridge is a link of its own: all its neighbours are the machine's.

Everybody on a link can claim whatever MAC and IP address he likes, and the kernel's tables have who said it last. Here
it counts who was first: a MAC address belongs to the port that it was first seen behind, an IP address to the port
whose MAC it was first seen at, until that port goes or nobody answers there any more. Where the host gave a guest its
MAC address and tells so by the tap's own, that counts more than what was seen.

A guest that is silent is still there. So a port keeps its MAC addresses when the bridge forgets them (after 300 s), and
a MAC address the last IP address of a kind when the kernel forgets that one without having asked (arp(7), gc_thresh1;
and all of a bridge's whenever its own MAC address changes).

What a guest can fill is bounded for each port; what is nobody's, or not yet, for all together.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from resolver.core.addresses import AF_INET
from resolver.host import netlink
from resolver.host.port import ADDRESSES_KEPT_MAX, MAC_LENGTH, MACS_KEPT_MAX, Key, Port

PORTS_MAX = 64
"""Interfaces of one machine. QEMU takes some thirty network cards."""

UNOWNED_KEPT_MAX = 4096
"""Neighbours on followed links whose MAC has not been seen behind a port: a megabyte. Beyond, the oldest go."""

# linux/neighbour.h. An entry counts where the neighbour has answered, however long ago: REACHABLE, STALE, DELAY and
# PROBE (where it is asked again); or where the administrator says so: PERMANENT. Not INCOMPLETE and FAILED: nobody
# answered. Not NOARP: on links without ARP the kernel makes one for whatever the host itself sends there.
_ANSWERED = 0x02 | 0x04 | 0x08 | 0x10
_PERMANENT = 0x80
_NTF_PROXY = 0x08  # the host answers for it

_MULTICAST = 0x01  # in a MAC address's first byte
_VLAN = "vlan"
_LINK_KINDS = frozenset({"bridge", _VLAN})
"""Besides ports, where a DHCP server may serve guests."""

_I = TypeVar("_I")
_V = TypeVar("_V")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Neighbour:
    """An IP address that somebody answers at. `port` is None where it is not known behind which."""

    family: int
    link: int
    mac: bytes
    port: Port | None
    generation: int
    disputed: bool = False
    """Somebody behind another port has claimed it since. What becomes of the kernel's entry then is not the port's."""
    forgotten: bool = False
    """The kernel has it no longer, and did not say that nobody answers."""


class Neighbourhood:
    """All interfaces that machines are behind."""

    def __init__(self) -> None:
        self.changed: set[str] = set()
        """Machines of which something is different; who reads it empties it."""
        self.dump_wanted = False
        """The kernel has what was left out here and is of interest now; who asks it resets this."""
        self._machines: dict[str, tuple[int, ...]] = {}
        self._claims: dict[int, dict[str, None]] = {}  # machines by interface, first come first
        self._ports: dict[int, Port] = {}
        self._links: dict[int, set[int]] = {}  # ports by link
        self._vlans: dict[int, int] = {}  # interface to the one below
        self._names: dict[str, int] = {}
        self._named: dict[int, str] = {}
        self._owners: dict[tuple[int, bytes], Port] = {}  # by link and MAC
        self._seen: dict[bytes, list[Port]] = {}  # by MAC, first come first
        self._given: dict[bytes, list[Port]] = {}
        self._neighbours: dict[Key, Neighbour] = {}
        self._holders: dict[bytes, set[Key]] = {}  # those behind ports, by IP address
        self._unowned: dict[Key, None] = {}
        self._waiting: dict[tuple[int, bytes], set[Key]] = {}  # those by link and MAC
        self._told: set[tuple[str, str]] = set()
        self._generation = 0

    # Questions.

    def ports(self, name: str) -> Iterator[Port]:
        """The ports of a machine."""
        for index in self._machines.get(name, ()):
            port = self._ports.get(index)
            if port is not None and port.machine == name:
                yield port

    def neighbours(self, port: Port) -> Iterator[tuple[Key, Neighbour]]:
        """What is seen behind a port, the newest first."""
        for key in reversed(port.keys):
            yield key, self._neighbours[key]

    def owner(self, mac: bytes, link: int = 0) -> Port | None:
        """The port that a MAC address is behind: on that link, or on any."""
        given = [port for port in self._given.get(mac[1:], ()) if link in (0, port.link)]
        if given and len({port.machine for port in given}) == 1:
            return given[0]
        if link == 0:
            return next(iter(self._seen.get(mac, ())), None)
        if link in self._ports and self._ports[link].link == link:
            return self._ports[link]
        return self._owners.get((link, mac))

    def neighbour(self, key: Key) -> Neighbour | None:
        """What is known of an address on an interface."""
        return self._neighbours.get(key)

    def index_of(self, name: str) -> int:
        """The index of a port, a bridge or a VLAN interface by its name, else 0."""
        return self._names.get(name, 0)

    def link_of(self, interface: int) -> int:
        """The link that an interface of the host's is on: itself, or a bridge below it; 0 where no port is on it."""
        link = interface if interface in self._links else self._vlans.get(interface, 0)
        return link if link in self._links else 0

    def holders(self, packed: bytes) -> list[tuple[Key, Neighbour]]:
        """The neighbours of that IP address behind ports: one on each link."""
        return [(key, self._neighbours[key]) for key in self._holders.get(packed, ())]

    # Machines.

    def follow(self, name: str, interfaces: Iterable[int]) -> None:
        """From now on these are the machine's interfaces, whether they exist yet or not. Of two machines with the same
        interface the first has it."""
        wanted = tuple(islice(dict.fromkeys(interfaces), PORTS_MAX))
        had = self._machines.get(name, ())
        self._machines[name] = wanted
        for index in set(had) - set(wanted):
            self._unclaim(name, index)
        for index in wanted:
            self._claims.setdefault(index, {}).setdefault(name)
            self._add(index)

    def forget(self, name: str) -> None:
        for index in self._machines.pop(name, ()):
            self._unclaim(name, index)
        self._told = {told for told in self._told if told[0] != name}

    def _unclaim(self, name: str, index: int) -> None:
        claims = self._claims[index]
        del claims[name]
        if index in self._ports and self._ports[index].machine == name:
            self._move(self._ports.pop(index), 0, b"")
        if claims:
            self._add(index)
        else:
            del self._claims[index]

    def _add(self, index: int) -> None:
        if index not in self._ports:
            self._ports[index] = Port(index, next(iter(self._claims[index])))
            self.dump_wanted = True

    # What the kernel tells.

    def begin(self) -> None:
        """All that there is comes now."""
        self._generation += 1
        for port in self._ports.values():
            port.macs = dict.fromkeys(port.macs, False)

    def finish(self) -> None:
        """What has not been told of since begin() is no longer there."""
        for port in self._ports.values():
            if port.generation != self._generation:
                self._move(port, 0, b"")
        for key in [key for key, found in self._neighbours.items()
                    if found.generation != self._generation and not found.forgotten]:
            self._on_forgotten(key)

    def apply(self, message: netlink.Message) -> None:
        """Take in one message, of a dump or of an event."""
        body = message.body
        if isinstance(body, netlink.Link):
            self._on_link(body, message.type == netlink.RTM_NEWLINK)
        elif isinstance(body, netlink.Neighbour):
            there = message.type == netlink.RTM_NEWNEIGH
            if body.family == netlink.AF_BRIDGE:
                self._on_forwarding(body, there)
            else:
                self._on_neighbour(body, there)

    def _on_link(self, link: netlink.Link, there: bool) -> None:
        if there and link.kind == _VLAN and link.link_netnsid is None:
            self._vlans[link.interface] = link.link
        else:
            self._vlans.pop(link.interface, None)
        port = self._ports.get(link.interface)
        self._name(link.interface, link.name if there and (port is not None or link.kind in _LINK_KINDS) else "")
        if port is not None:
            port.generation = self._generation
            self._move(port, *port.describe(link if there else None))

    def _name(self, index: int, name: str) -> None:
        if self._named.get(index, "") == name:
            return
        old = self._named.pop(index, "")
        if self._names.get(old) == index:
            del self._names[old]
        if name:
            self._named[index], self._names[name] = name, index

    def _on_forwarding(self, entry: netlink.Neighbour, there: bool) -> None:
        """Which MAC address a bridge has seen behind a port. PERMANENT ones are the port's own (br_fdb.c)."""
        port = self._ports.get(entry.interface)
        mac = entry.hardware
        if port is None or port.link != entry.master or entry.state & _PERMANENT or not _is_one_mac(mac):
            return
        if not there:
            if mac in port.macs:
                port.macs[mac] = False
        elif mac in port.macs:
            port.macs[mac] = True
        else:
            self._see(port, mac)

    def _see(self, port: Port, mac: bytes) -> None:
        """A MAC address is behind a port, where nobody has it already."""
        owner = self.owner(mac, port.link)
        if owner is not None and owner is not port:
            owner.coveted = True
            if owner.machine != port.machine:
                self._tell(port, "mac", f"sends from the MAC address of machine {owner.machine}; it is not believed")
            return
        room, oldest = port.room_for_a_mac()
        if not room:
            self._tell(port, "macs", f"uses more than {MACS_KEPT_MAX} MAC addresses; the others are left out")
            return
        if oldest:
            self._unsee(port, oldest)
        port.macs[mac] = True
        self._owners[port.link, mac] = port
        self._seen.setdefault(mac, []).append(port)
        self.changed.add(port.machine)
        for key in list(self._waiting.get((port.link, mac), ())):
            self._settle(key, self._take(key), port)

    def _unsee(self, port: Port, mac: bytes) -> None:
        """The port has it no longer, nor what was seen at it."""
        del port.macs[mac], self._owners[port.link, mac]
        seen = self._seen[mac]
        seen.remove(port)
        if not seen:
            del self._seen[mac]
        for key in [key for key in port.keys if self._neighbours[key].mac == mac]:
            self._take(key)
        self.changed.add(port.machine)

    def _on_neighbour(self, entry: netlink.Neighbour, there: bool) -> None:
        key = entry.interface, entry.destination
        link = self.link_of(entry.interface)
        if not link:
            return
        counts = entry.state & (_ANSWERED | _PERMANENT) and not entry.flags & _NTF_PROXY
        if not counts or not _is_one_mac(entry.hardware) or not _is_somebodys(entry):
            self._on_gone(key)
            return
        if not there:
            self._on_forgotten(key)
            return
        port = self.owner(entry.hardware, link)
        if port is not None and port.link == port.index:  # of no bridge: MAC addresses are known from here alone
            if entry.hardware in port.macs:
                port.macs[entry.hardware] = True
            else:
                self._see(port, entry.hardware)
        found = self._neighbours.get(key)
        if found is None:
            found = Neighbour(entry.family, link, entry.hardware, None, self._generation)
            self._settle(key, found, port)
            return
        found.generation = self._generation
        if found.port is None:
            if (found.mac, port) != (entry.hardware, None):
                self._take(key)
                found.mac = entry.hardware
                self._settle(key, found, port)
        elif port is found.port:
            found.mac, found.disputed, found.forgotten = entry.hardware, False, False
            found.port.forgotten.discard(key)
            self._drop_forgotten(key, found, found.port)
        elif port is not None and port.machine == found.port.machine:
            self._take(key)
            found.mac = entry.hardware
            self._settle(key, found, port)
        else:
            found.disputed = found.port.coveted = True
            if port is not None:
                self._tell(port, "address",
                           f"claims the IP address of machine {found.port.machine}; it is not believed")

    def _on_gone(self, key: Key) -> None:
        found = self._neighbours.get(key)
        # Where another has claimed it last, it is that one who does not answer: the owner has not been asked.
        if found is not None and not found.disputed:
            self._take(key)

    def _on_forgotten(self, key: Key) -> None:
        found = self._neighbours.get(key)
        if found is None or found.disputed:
            return
        port = found.port
        if port is None or any(other != key and self._is_like(other, key, found) for other in port.keys):
            self._take(key)
        else:
            found.forgotten = True
            port.forgotten.add(key)

    def _drop_forgotten(self, key: Key, found: Neighbour, port: Port) -> None:
        """This one is known: those that it may have come in place of are not kept any longer."""
        for other in [other for other in port.forgotten if self._is_like(other, key, found)]:
            self._take(other)

    def _is_like(self, other_key: Key, key: Key, found: Neighbour) -> bool:
        """Whether it is at the same MAC address, and of the same kind."""
        other = self._neighbours[other_key]
        return (other.mac, other.family, _is_link_local(other_key)) == (found.mac, found.family, _is_link_local(key))

    # The indices.

    def _settle(self, key: Key, found: Neighbour, port: Port | None) -> None:
        """Keep a neighbour, as far as there is room."""
        found.port = port
        if port is None:
            while len(self._unowned) >= UNOWNED_KEPT_MAX:
                self._take(next(iter(self._unowned)))
            self._unowned[key] = None
            self._waiting.setdefault((found.link, found.mac), set()).add(key)
        elif len(port.keys) >= ADDRESSES_KEPT_MAX:
            port.incomplete = True
            self._tell(port, "addresses",
                       f"answers at more than {ADDRESSES_KEPT_MAX} addresses; the others are left out")
            return
        else:
            self._drop_forgotten(key, found, port)
            port.keys[key] = None
            self._holders.setdefault(key[1], set()).add(key)
            self.changed.add(port.machine)
        self._neighbours[key] = found

    def _take(self, key: Key) -> Neighbour:
        """Out of all indices."""
        found = self._neighbours.pop(key)
        port = found.port
        if port is None:
            del self._unowned[key]
            _discard(self._waiting, (found.link, found.mac), key)
        else:
            del port.keys[key]
            port.forgotten.discard(key)
            _discard(self._holders, key[1], key)
            self.changed.add(port.machine)
            if port.incomplete and len(port.keys) <= ADDRESSES_KEPT_MAX // 2:
                port.incomplete, self.dump_wanted = False, True
        return found

    def _move(self, port: Port, link: int, given: bytes) -> None:
        """A port is on another link now, 0 for none: what was seen behind it is not known to be there."""
        if given and link and (port.given, port.link) != (given, link):
            self._take_back(given, link)
        if port.given != given:
            if port.given:
                _remove(self._given, port.given, port)
            port.given = given
            if given:
                self._given.setdefault(given, []).append(port)
            self.dump_wanted |= link != 0
            self.changed.add(port.machine)
        if port.link == link:
            return
        for mac in list(port.macs):
            self._unsee(port, mac)
        for key in list(port.keys):
            self._take(key)
        old, port.link = port.link, link
        self.dump_wanted |= port.coveted or link != 0
        port.coveted = port.incomplete = False
        if old:
            _discard(self._links, old, port.index)
            if old not in self._links:
                for key in [key for key in self._unowned if self._neighbours[key].link == old]:
                    self._take(key)
        if link:
            self._links.setdefault(link, set()).add(port.index)
        self.changed.add(port.machine)

    def _take_back(self, given: bytes, link: int) -> None:
        """Who was seen with a MAC address before its owner came has it no longer."""
        for first in range(256):
            mac = bytes([first]) + given
            other = self._owners.get((link, mac))
            if other is not None and other.given != given:
                self._unsee(other, mac)

    def _tell(self, port: Port, what: str, text: str) -> None:
        """Once for each machine."""
        if (port.machine, what) not in self._told:
            self._told.add((port.machine, what))
            _log.warning("machine %s %s", port.machine, text)


def _is_one_mac(mac: bytes) -> bool:
    return len(mac) == MAC_LENGTH and not mac[0] & _MULTICAST and any(mac)


def _is_somebodys(entry: netlink.Neighbour) -> bool:
    """Not of this host alone, of nobody, or of many: RFC 6890, RFC 4291."""
    packed = entry.destination
    if entry.family == AF_INET:
        return packed[0] not in (0, 127) and packed[0] < 224
    return packed[0] != 0xFF and any(packed[:15])


def _is_link_local(key: Key) -> bool:
    packed = key[1]
    return packed[:2] == b"\xa9\xfe" if len(packed) == 4 else packed[0] == 0xFE and packed[1] & 0xC0 == 0x80


def _discard(index: dict[_I, set[_V]], at: _I, value: _V) -> None:
    found = index[at]
    found.discard(value)
    if not found:
        del index[at]


def _remove(index: dict[bytes, list[Port]], at: bytes, port: Port) -> None:
    index[at].remove(port)
    if not index[at]:
        del index[at]
