# SPDX-License-Identifier: MIT
"""Question in, records out. No input or output but the directory's look-ups.

The zone has a machine's name under its own, `web.machines.internal.`; a machine `a.b` makes `b` an empty non-terminal
(RFC 8020). An address of a machine is a reverse zone of its own, for whom else its neighbours belong to is not known
here; where a whole network is the machines', it can be said to be theirs, and is one zone.
"""

import ipaddress
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import dns.exception
import dns.name
import dns.reversename
from dns.name import Name
from dns.rcode import Rcode
from dns.rdatatype import RdataType

from resolver.core.addresses import AF_INET, AF_INET6
from resolver.core.machine import ChosenAddress
from resolver.core.names import MACHINE_NAME_MAX

REFRESH, RETRY, EXPIRE = 3600, 600, 86400
"""Of the SOA, in seconds. For secondaries, of which there are none: a transfer is refused."""

_OCTET = re.compile(rb"0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5]")
_NIBBLE = re.compile(rb"[0-9a-fA-F]")

_FAMILY_BY_SIZE = {4: AF_INET, 16: AF_INET6}

META_TYPES = {
    RdataType.NONE: Rcode.FORMERR, RdataType.OPT: Rcode.FORMERR,
    RdataType.TKEY: Rcode.NOTIMP, RdataType.TSIG: Rcode.FORMERR,
    RdataType.IXFR: Rcode.REFUSED, RdataType.AXFR: Rcode.REFUSED,
    RdataType.MAILB: Rcode.NOTIMP, RdataType.MAILA: Rcode.NOTIMP,
}
"""What no record has as its type (RFC 6895 section 3.1), but ANY."""

Host = tuple[str, tuple[ChosenAddress, ...]]
Node = dict[RdataType, list[bytes]]
"""What is at one name: by type, each record's data in wire form without compression."""


class Directory(Protocol):
    """Where machines are: resolver.table.reader.TableReader. None: no machine's."""

    def host_by_name(self, name: str, /) -> Host | None: ...
    def host_by_address(self, family: int, packed: bytes, /) -> Host | None: ...
    def names(self) -> list[str]: ...


class Record(NamedTuple):
    """`owner` is the name that was asked or one above it; `data` is without compression."""

    owner: Name
    rdtype: RdataType
    ttl: int
    data: bytes


class Answer(NamedTuple):
    """With rcode NOERROR and no records: there is the name, but not that type."""

    rcode: Rcode
    answer: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()


@dataclass(frozen=True)
class Zone:
    """`ttl` in seconds, also of negative answers. `addresses` are the server's own, packed. `reverse` are the apexes
    of networks that are the machines' alone."""

    name: Name
    ttl: int = 0
    addresses: tuple[bytes, ...] = ()
    reverse: tuple[Name, ...] = ()


class Answers:
    """Good for as long as the directory says the same; `serial` is the zone's for that time.

    `unavailable` are the exceptions by which the directory says that it cannot tell.
    """

    def __init__(self, zone: Zone, directory: Directory, unavailable: type[Exception], serial: int = 1) -> None:
        self._zone = zone
        self._directory = directory
        self._unavailable = unavailable
        self._serial = serial

    def answer(self, name: Name, rdtype: RdataType) -> Answer | None:
        """The answer to a question of class IN; None where the name is not ours to know."""
        try:
            if rdtype in META_TYPES:
                return Answer(META_TYPES[rdtype])
            if name.is_subdomain(self._zone.name):
                return self._select(name, self._node(name), rdtype, self._zone.name)
            return self._answer_reverse(name, rdtype)
        except self._unavailable:
            return Answer(Rcode.SERVFAIL)

    def answer_machine(self, name: Name, rdtype: RdataType) -> Answer | None:
        """The same for a machine's bare name, as it is used on this host; None where there is no such machine, or
        nobody can tell."""
        try:
            host = self._host(name.relativize(dns.name.root))
        except self._unavailable:
            return None
        return None if host is None else self._select(name, _address_node(host[1]), rdtype, None)

    def owns(self, name: Name) -> bool:
        """Whether the name is in the zone, there or not."""
        return name.is_subdomain(self._zone.name)

    # The zone.

    def _node(self, name: Name) -> Node | None:
        """What is at a name of the zone. None: nothing, nor below it."""
        inside = name.relativize(self._zone.name)
        if inside == dns.name.empty:
            return self._apex | _node_of(self._zone.addresses)
        host = self._host(inside)
        if host is not None:
            return _address_node(host[1])
        return {} if _text(inside) in self._non_terminals else None

    def _host(self, inside: Name) -> Host | None:
        text = _text(inside)
        return self._directory.host_by_name(text) if text else None

    @cached_property
    def _non_terminals(self) -> frozenset[str]:
        parents: set[str] = set()
        for name in self._directory.names():
            labels = name.split(".")
            parents.update(".".join(labels[i:]) for i in range(1, len(labels)))
        return frozenset(parents)

    # The addresses.

    def _answer_reverse(self, name: Name, rdtype: RdataType) -> Answer | None:
        network = next((apex for apex in self._zone.reverse if name.is_subdomain(apex)), None)
        packed = _address_of(name)
        try:
            host = self._directory.host_by_address(_FAMILY_BY_SIZE[len(packed)], packed) if packed else None
        except self._unavailable:
            if network is None:
                return None
            raise
        apex = network or name
        node: Node | None = None
        if host is not None:
            node = {RdataType.PTR: [_wire(dns.name.from_text(host[0], self._zone.name))]}
        elif network is None:
            return None
        elif packed is None and _leads_to_addresses(name):
            node = {}
        if name == apex:
            node = self._apex | (node or {})
        return self._select(name, node, rdtype, apex)

    # Both.

    @property
    def _apex(self) -> Node:
        # Who serves is the apex itself, as in RFC 6303 section 3: any name below could be a machine's.
        return {RdataType.SOA: [self._soa], RdataType.NS: [_wire(self._zone.name)]}

    @cached_property
    def _soa(self) -> bytes:
        zone = self._zone
        return (_wire(zone.name) + b"\x0ahostmaster" + _wire(zone.name)
                + struct.pack("!5I", self._serial, REFRESH, RETRY, EXPIRE, zone.ttl))

    def _select(self, name: Name, node: Node | None, rdtype: RdataType, apex: Name | None) -> Answer:
        ttl = self._zone.ttl
        if node and rdtype == RdataType.ANY:
            rdtype = next(iter(node))   # one set is enough: RFC 8482 section 4.1
        if node and rdtype in node:
            return Answer(Rcode.NOERROR, tuple(Record(name, rdtype, ttl, data) for data in node[rdtype]))
        authority = () if apex is None else (Record(apex, RdataType.SOA, ttl, self._soa),)
        return Answer(Rcode.NXDOMAIN if node is None else Rcode.NOERROR, (), authority)


def _wire(name: Name) -> bytes:
    wire = name.to_wire()
    assert wire is not None     # it is, where no file to write to was given
    return wire


def _text(inside: Name) -> str | None:
    """A relative name as machines' names are written; None where it cannot be one."""
    if any(b"." in label for label in inside.labels):
        return None     # a dot within a label
    text = b".".join(inside.labels)
    return text.decode().lower() if text.isascii() and len(text) <= MACHINE_NAME_MAX else None


def _address_node(addresses: tuple[ChosenAddress, ...]) -> Node:
    return _node_of(address.packed for address in addresses if not address.scoped)


def _node_of(addresses: Iterable[bytes]) -> Node:
    node: Node = {}
    for packed in addresses:
        if is_for_others(packed):
            node.setdefault(RdataType.A if len(packed) == 4 else RdataType.AAAA, []).append(packed)
    return node


def is_for_others(packed: bytes) -> bool:
    """Whether the address means the same to whoever asks: a link-local one needs an interface that only we know."""
    address = ipaddress.ip_address(packed)
    return not (address.is_link_local or address.is_loopback or address.is_unspecified or address.is_multicast)


def _address_of(name: Name) -> bytes | None:
    """The address whose reverse name this is (RFC 1035 section 3.5, RFC 3596 section 2.5)."""
    if not (name.is_subdomain(dns.reversename.ipv4_reverse_domain)
            or name.is_subdomain(dns.reversename.ipv6_reverse_domain)):
        return None
    try:
        text = dns.reversename.to_address(name)
        return ipaddress.ip_address(text).packed if dns.reversename.from_address(text) == name else None
    except (dns.exception.DNSException, ValueError):
        return None


def _leads_to_addresses(name: Name) -> bool:
    """Whether it is the reverse name of some octets, or nibbles, of an address, but not of all."""
    for domain, label, all_of_them in ((dns.reversename.ipv4_reverse_domain, _OCTET, 4),
                                       (dns.reversename.ipv6_reverse_domain, _NIBBLE, 32)):
        if name.is_subdomain(domain):
            inside = name.relativize(domain).labels
            return len(inside) < all_of_them and all(map(label.fullmatch, inside))
    return False


def reverse_apex(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Name:
    """The apex of a network's reverse zone. ValueError where its prefix ends within an octet (IPv6: a nibble)."""
    bits = 8 if network.version == 4 else 4
    if network.prefixlen % bits or not network.prefixlen:
        raise ValueError(f"{network}: the prefix must be a multiple of {bits} bits")
    name = dns.reversename.from_address(str(network.network_address))
    return Name(name.labels[(network.max_prefixlen - network.prefixlen) // bits:])
