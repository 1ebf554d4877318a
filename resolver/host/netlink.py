# SPDX-License-Identifier: MIT
"""The little of rtnetlink(7) that addresses need: bytes in, messages out, and back. No sockets.

The structs are those of linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h, linux/if_link.h and linux/neighbour.h, in
the host's byte order. Written here rather than taken from pyroute2: importing that costs 110 ms and 24 MB of memory
(measured), where the whole daemon aims at 250 ms and 48 MB.

    datagram  = { message }
    message   = nlmsghdr, payload, padding to 4
    payload   = fixed struct of the type, { attribute }      ; ifaddrmsg, ifinfomsg, ndmsg, rtgenmsg
              | errno, the request's nlmsghdr                ; NLMSG_ERROR
              | errno                                        ; NLMSG_DONE
    attribute = rtattr, value, padding to 4
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from resolver._table import ffi, lib
from resolver.core.addresses import AF_INET, AF_INET6
from resolver.core.machine import Address

# linux/netlink.h
NLMSG_NOOP, NLMSG_ERROR, NLMSG_DONE, NLMSG_OVERRUN = 1, 2, 3, 4
NLM_F_REQUEST, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x01, 0x10, 0x300
# linux/rtnetlink.h
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWNSID, RTM_GETNSID = 88, 90
RTMGRP_NEIGH = 0x4
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE = 0x40, 0x400
RTMGRP_IPV4_RULE, RTMGRP_IPV6_RULE, RTMGRP_NEXTHOP = 0x80, 0x40000, 0x80000000  # 1 << (RTNLGRP_* - 1)
RTN_UNICAST, RTN_LOCAL = 1, 2

# linux/socket.h: in messages about neighbours, a bridge's forwarding table
AF_BRIDGE = 7

_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 5, 10, 18
_IFLA_EXT_MASK, _IFLA_LINK_NETNSID = 29, 37
_IFLA_INFO_KIND, _IFLA_INFO_SLAVE_KIND = 1, 4
_NDA_DST, _NDA_LLADDR, _NDA_MASTER = 1, 2, 9
_NETNSA_NSID, _NETNSA_PID = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH, _RTA_VIA = 1, 4, 5, 9, 18
_RTEXT_FILTER_SKIP_STATS = 8

_NLMSGHDR = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, interface index
_IFINFOMSG = struct.Struct("=BxHiII")  # family, device type, interface index, flags, change mask
_RTGENMSG = struct.Struct("=Bxxx")  # family
_RTMSG = struct.Struct("=BBxxxxxBxxxx")  # family, length of the destination's prefix, type
_NDMSG = struct.Struct("=BxxxiHBB")  # family, interface index, state, flags, type
_RTATTR = struct.Struct("=HH")  # length, type
_U32 = struct.Struct("=I")
_S32 = struct.Struct("=i")


class NetlinkError(Exception):
    """Bytes that are no rtnetlink."""


class _Wanted:
    """The attributes that are of use of a kind of message, in the order of their types."""

    def __init__(self, *types: int) -> None:
        assert list(types) == sorted(types)
        self._types = sum(1 << kind for kind in types)
        self._found = ffi.new("struct attribute[]", len(types))  # of one message after the other
        self._bytes = ffi.buffer(self._found)
        self._places = struct.Struct(f"={2 * len(types)}I")

    def find(self, payload: bytes, at: int) -> tuple[int, ...]:
        """Where each one's value begins and ends in the payload, whose attributes begin at `at`: both 0 where it is not
        there. The last of a type counts, as in the kernel's nla_parse()."""
        if lib.attributes_find(payload, len(payload), at, self._types, self._found) < 0:
            raise NetlinkError("an attribute is longer than what is left, or shorter than its header")
        return self._places.unpack(self._bytes)


_OF_ADDRESS = _Wanted(_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS)
_OF_LINK = _Wanted(_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_LINK_NETNSID)
_OF_LINKINFO = _Wanted(_IFLA_INFO_KIND, _IFLA_INFO_SLAVE_KIND)
_OF_ROUTE = _Wanted(_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH, _RTA_VIA)
_OF_NEIGHBOUR = _Wanted(_NDA_DST, _NDA_LLADDR, _NDA_MASTER)
_OF_NSID = _Wanted(_NETNSA_NSID)

_PACKED_LENGTH = {AF_INET: 4, AF_INET6: 16}


class AddressEntry(NamedTuple):
    """An address of an interface. `key` tells it from all others of its network namespace, whatever its state."""

    key: tuple[int, int, bytes, int, bytes]
    address: Address


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface.

    `master` is the index of the bridge, bond or VRF that it is a port of, else 0, and `port_kind` what that is.
    `link` is its peer's index (veth) or its lower interface's (macvlan), else 0, in the network namespace that
    `link_netnsid` names from inside of this one; None means this one. `kind` is the driver's name for virtual ones
    (`tun`, `veth`, `bridge`), else empty; `hardware` its own MAC address.
    """

    index: int
    name: str
    master: int = 0
    port_kind: str = ""
    link: int = 0
    link_netnsid: int | None = None
    kind: str = ""
    hardware: bytes = b""


class Neighbour(NamedTuple):
    """An entry of a neighbour table, or of a bridge's forwarding table (`family` AF_BRIDGE).

    `destination` is an IP address, empty in a forwarding table. `hardware` is the MAC address that it is at, or that is
    forwarded; empty where it is not known. `interface` is the index of the interface; in a forwarding table that of
    the port, and `master` that of the bridge. `state` is NUD_*, `flags` NTF_* of linux/neighbour.h.
    """

    family: int
    interface: int
    state: int
    flags: int
    destination: bytes = b""
    hardware: bytes = b""
    master: int = 0


class Route(NamedTuple):
    """A route, or the answer where packets to one address go.

    `kind` is RTN_*: RTN_UNICAST for what leaves the host, RTN_LOCAL for what is its own. `interface` is the index of
    the one that it leads out of, 0 where it is not the only one. `gateway`: to a router there. `destination` and
    `length` are the network that it is for, the whole family where the length is 0.
    """

    kind: int
    interface: int
    gateway: bool
    family: int
    destination: bytes
    length: int


Body = AddressEntry | Link | Neighbour | Route | int | None


class Message(NamedTuple):
    """One message. `body` fits the type; None for those of no interest here.

    The body of NLMSG_ERROR and NLMSG_DONE is an errno or 0, that of RTM_NEWNSID the id or -1.
    """

    type: int
    sequence: int
    interrupted: bool
    body: Body


def dump_request(kind: int, sequence: int) -> bytes:
    """Ask for all links (RTM_GETLINK) or the addresses of all families (RTM_GETADDR)."""
    fixed = _IFINFOMSG.pack(0, 0, 0, 0, 0) if kind == RTM_GETLINK else _IFADDRMSG.pack(0, 0, 0, 0, 0)
    attributes = _without_statistics() if kind == RTM_GETLINK else b""
    return _message(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, fixed + attributes)


def neighbours_request(family: int, sequence: int) -> bytes:
    """Ask for the neighbours of all interfaces: family 0 for those of IP, AF_BRIDGE for bridges' forwarding tables."""
    return _message(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, sequence, _NDMSG.pack(family, 0, 0, 0, 0))


def link_request(index: int, sequence: int) -> bytes:
    """Ask for one link."""
    return _message(RTM_GETLINK, NLM_F_REQUEST, sequence, _IFINFOMSG.pack(0, 0, index, 0, 0) + _without_statistics())


def nsid_request(pid: int, sequence: int) -> bytes:
    """Ask which id the socket's network namespace has for the one that the process is in."""
    return _message(RTM_GETNSID, NLM_F_REQUEST, sequence, _RTGENMSG.pack(0) + _attribute(_NETNSA_PID, _U32.pack(pid)))


def route_request(family: int, packed: bytes, sequence: int) -> bytes:
    """Ask how packets to an address go, as `ip route get` does."""
    fixed = _RTMSG.pack(family, 8 * len(packed), 0)
    return _message(RTM_GETROUTE, NLM_F_REQUEST, sequence, fixed + _attribute(_RTA_DST, packed))


def parse(datagram: bytes) -> Iterator[Message]:
    """The messages of one datagram. NetlinkError for anything that does not fit the grammar, and nothing else."""
    at = 0
    while at < len(datagram):
        if len(datagram) - at < _NLMSGHDR.size:
            raise NetlinkError("a message's header is cut short")
        length, kind, flags, sequence, _ = _NLMSGHDR.unpack_from(datagram, at)
        if not _NLMSGHDR.size <= length <= len(datagram) - at:
            raise NetlinkError(f"a message of {length} bytes, where {len(datagram) - at} are left")
        read = _BODIES.get(kind)
        try:
            body = None if read is None else read(datagram[at + _NLMSGHDR.size : at + length])
        except struct.error as error:  # from any unpack below: fewer bytes than the struct has
            raise NetlinkError(f"a message of type {kind} is cut short") from error
        yield Message(kind, sequence, bool(flags & NLM_F_DUMP_INTR), body)
        at += _aligned(length)


def _errno(payload: bytes) -> int:
    return -int(_S32.unpack_from(payload)[0])


def _done(payload: bytes) -> int:
    return _errno(payload) if payload else 0  # older kernels leave it out


def _nsid(payload: bytes) -> int:
    nsid = _number(payload, *_OF_NSID.find(payload, _RTGENMSG.size))
    return -1 if nsid is None else nsid


def _address(payload: bytes) -> AddressEntry | None:
    family, prefix_length, flags, scope, index = _IFADDRMSG.unpack_from(payload)
    if family not in _PACKED_LENGTH:
        return None
    peer_at, peer_end, own_at, own_end, flags_at, flags_end = _OF_ADDRESS.find(payload, _IFADDRMSG.size)
    # On a point-to-point link IFA_ADDRESS is the peer's and IFA_LOCAL our own; IPv6 without a peer has IFA_ADDRESS
    # alone (the comment in linux/if_addr.h).
    peer = payload[peer_at:peer_end]
    packed = payload[own_at:own_end] if own_at else peer
    if len(packed) != _PACKED_LENGTH[family]:
        raise NetlinkError(f"an address of {len(packed)} bytes in family {family}")
    if flags_at:  # the field has 8 bits, and flags have outgrown it
        (flags,) = _U32.unpack_from(payload[flags_at:flags_end])
    # IPv4 may have one address twice, with two prefixes or two peers. IPv6 may not, and changes the peer in place.
    key = (index, family, packed, prefix_length, peer) if family == AF_INET else (index, family, packed, 0, b"")
    return AddressEntry(key, Address(family, packed, index, scope, flags))


def _link(payload: bytes) -> Link | None:
    family, _, index, _, _ = _IFINFOMSG.unpack_from(payload)
    if family != 0:  # AF_BRIDGE's RTM_DELLINK means that a port left its bridge, not that the link is gone
        return None
    (hardware_at, hardware_end, name_at, name_end, link_at, link_end, master_at, master_end, info_at, info_end, nsid_at,
     nsid_end) = _OF_LINK.find(payload, _IFINFOMSG.size)
    kind = port_kind = ""
    if info_at:
        info = payload[info_at:info_end]
        kind_at, kind_end, port_at, port_end = _OF_LINKINFO.find(info, 0)
        kind, port_kind = _text(info[kind_at:kind_end]), _text(info[port_at:port_end])
    return Link(
        index,
        _text(payload[name_at:name_end]),
        _number(payload, master_at, master_end) or 0,
        port_kind,
        _number(payload, link_at, link_end) or 0,
        _number(payload, nsid_at, nsid_end),
        kind,
        payload[hardware_at:hardware_end],
    )


def _route(payload: bytes) -> Route | None:
    family, length, kind = _RTMSG.unpack_from(payload)
    if family not in _PACKED_LENGTH:
        return None
    (destination_at, destination_end, interface_at, interface_end, gateway_at, _, multipath_at, _, via_at,
     _) = _OF_ROUTE.find(payload, _RTMSG.size)
    destination = payload[destination_at:destination_end] if destination_at else bytes(_PACKED_LENGTH[family])
    if len(destination) != _PACKED_LENGTH[family] or length > 8 * len(destination):
        raise NetlinkError(f"a route to {len(destination)} bytes, {length} bits of them, in family {family}")
    gateway = bool(gateway_at or multipath_at or via_at)
    return Route(kind, _number(payload, interface_at, interface_end) or 0, gateway, family, destination, length)


def _neighbour(payload: bytes) -> Neighbour | None:
    family, interface, state, flags, _ = _NDMSG.unpack_from(payload)
    if family not in _PACKED_LENGTH and family != AF_BRIDGE:
        return None
    (destination_at, destination_end, hardware_at, hardware_end, master_at,
     master_end) = _OF_NEIGHBOUR.find(payload, _NDMSG.size)
    destination = b""
    if family != AF_BRIDGE:  # a forwarding table of VXLAN has one too: the host where the MAC is
        destination = payload[destination_at:destination_end]
        if len(destination) != _PACKED_LENGTH[family]:
            raise NetlinkError(f"a neighbour of {len(destination)} bytes in family {family}")
    return Neighbour(family, interface, state, flags, destination, payload[hardware_at:hardware_end],
                     _number(payload, master_at, master_end) or 0)


def _number(payload: bytes, at: int, end: int) -> int | None:
    """The value there, None where the attribute is not there."""
    return int(_S32.unpack_from(payload[at:end])[0]) if at else None


def _text(value: bytes) -> str:
    return value.partition(b"\0")[0].decode(errors="replace")


def _without_statistics() -> bytes:
    return _attribute(_IFLA_EXT_MASK, _U32.pack(_RTEXT_FILTER_SKIP_STATS))


def _attribute(kind: int, value: bytes) -> bytes:
    return _RTATTR.pack(_RTATTR.size + len(value), kind) + value  # all of ours are multiples of four


def _message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    return _NLMSGHDR.pack(_NLMSGHDR.size + len(payload), kind, flags, sequence, 0) + payload


def _aligned(length: int) -> int:
    return (length + 3) & ~3


_BODIES: Mapping[int, Callable[[bytes], Body]] = {
    RTM_NEWADDR: _address, RTM_DELADDR: _address, RTM_NEWLINK: _link, RTM_DELLINK: _link, RTM_NEWROUTE: _route,
    RTM_DELROUTE: _route, RTM_NEWNEIGH: _neighbour, RTM_DELNEIGH: _neighbour, RTM_NEWNSID: _nsid, NLMSG_ERROR: _errno,
    NLMSG_DONE: _done}
