# SPDX-License-Identifier: MIT
"""The little of rtnetlink(7) that addresses need: bytes in, messages out, and back. No sockets.

The structs are those of linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h, linux/if_link.h and linux/neighbour.h, in
the host's byte order. What comes is read in C, into rows (nss_module/netlink.h). All this rather than pyroute2, for
importing that costs 110 ms and 24 MB of memory (measured), where the whole daemon aims at 250 ms and 48 MB.

    datagram  = { message }
    message   = nlmsghdr, payload, padding to 4
    payload   = fixed struct of the type, { attribute }      ; ifaddrmsg, ifinfomsg, ndmsg, rtgenmsg
              | errno, the request's nlmsghdr                ; NLMSG_ERROR
              | errno                                        ; NLMSG_DONE
    attribute = rtattr, value, padding to 4
"""

import struct
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

_IFLA_EXT_MASK, _NETNSA_PID, _RTA_DST = 29, 2, 1
_RTEXT_FILTER_SKIP_STATS = 8

READ_AT_ONCE = 64
"""Messages of a datagram that C puts into rows at a time: mostly all, in 6 KB."""

_NLMSGHDR = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, interface index
_IFINFOMSG = struct.Struct("=BxHiII")  # family, device type, interface index, flags, change mask
_RTGENMSG = struct.Struct("=Bxxx")  # family
_ROUTE_TO = struct.Struct("=BBxxxxxxxxxxHH")  # rtmsg: family, length of the destination's prefix; rtattr, as below
_NDMSG = struct.Struct("=BxxxiHBB")  # family, interface index, state, flags, type
_RTATTR = struct.Struct("=HH")  # length, type
_U32 = struct.Struct("=I")


Subject = tuple[int | bytes, ...] | int | None


class NetlinkError(Exception):
    """Bytes that are no rtnetlink."""


_ERRORS = {
    lib.NETLINK_SHORT_HEADER: "a message's header is cut short",
    lib.NETLINK_BAD_LENGTH: "a message is longer than what is left, or shorter than its header",
    lib.NETLINK_SHORT_BODY: "a message is cut short",
    lib.NETLINK_BAD_ATTRIBUTE: "an attribute is longer than what is left, or shorter than its header or value",
    lib.NETLINK_BAD_ADDRESS: "an address or prefix is not as long as its family's",
}
_NUMBER, _ADDRESS, _LINK, _ROUTE, _NEIGHBOUR = (
    lib.ROW_NUMBER, lib.ROW_ADDRESS, lib.ROW_LINK, lib.ROW_ROUTE, lib.ROW_NEIGHBOUR)
_rows = ffi.new("struct netlink_row[]", READ_AT_ONCE)  # of one datagram after the other
_rows_bytes = ffi.buffer(_rows)
_read_up_to = ffi.new("uint32_t *")
_ROW = struct.Struct("=IIIIiiiiIIIIIIIIIIIIII")
_new = tuple.__new__  # all that a NamedTuple's own constructor does, which is a function of Python's around it
assert _ROW.size * READ_AT_ONCE == len(_rows_bytes)


class Link(NamedTuple):
    """A network interface, by its index.

    `master` is the index of the bridge, bond or VRF that it is a port of, else 0, and `port_kind` what that is.
    `link` is its peer's index (veth) or its lower interface's (macvlan), else 0, in the network namespace that
    `link_netnsid` names from inside of this one; None means this one. `kind` is the driver's name for virtual ones
    (`tun`, `veth`, `bridge`), else empty; `hardware` its own MAC address.
    """

    interface: int
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


Body = Address | Link | Neighbour | Route | int | None


class Message(NamedTuple):
    """One message. `body` fits the type; None for those of no interest here.

    The body of NLMSG_ERROR and NLMSG_DONE is an errno or 0, that of RTM_NEWNSID the id or -1. `subject` tells what the
    message is about from all else in its network namespace, in whatever state: an address of an interface, a link, a
    neighbour or a bridge's entry for a MAC address; None for other messages.
    """

    type: int
    sequence: int
    interrupted: bool
    body: Body
    subject: Subject = None


def dump_request(kind: int, sequence: int) -> bytes:
    """Ask for all links (RTM_GETLINK) or the addresses of all families (RTM_GETADDR)."""
    return _message(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, _ALL_LINKS if kind == RTM_GETLINK else _ALL_ADDRESSES)


def neighbours_request(family: int, sequence: int) -> bytes:
    """Ask for the neighbours of all interfaces: family 0 for those of IP, AF_BRIDGE for bridges' forwarding tables."""
    return _message(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, sequence, _NDMSG.pack(family, 0, 0, 0, 0))


def link_request(index: int, sequence: int) -> bytes:
    """Ask for one link."""
    return _message(RTM_GETLINK, NLM_F_REQUEST, sequence, _IFINFOMSG.pack(0, 0, index, 0, 0) + _WITHOUT_STATISTICS)


def nsid_request(pid: int, sequence: int) -> bytes:
    """Ask which id the socket's network namespace has for the one that the process is in."""
    return _message(RTM_GETNSID, NLM_F_REQUEST, sequence, _RTGENMSG.pack(0) + _attribute(_NETNSA_PID, _U32.pack(pid)))


def route_request(family: int, packed: bytes, sequence: int) -> bytes:
    """Ask how packets to an address go, as `ip route get` does."""
    fixed = _ROUTE_TO.pack(family, 8 * len(packed), _RTATTR.size + len(packed), _RTA_DST)
    return _message(RTM_GETROUTE, NLM_F_REQUEST, sequence, fixed + packed)


def parse(datagram: bytes) -> list[Message]:
    """The messages of one datagram. NetlinkError for anything that does not fit the grammar, and nothing else."""
    messages: list[Message] = []
    _read_up_to[0] = 0
    count = READ_AT_ONCE
    while count == READ_AT_ONCE:
        count = lib.netlink_read(datagram, len(datagram), _read_up_to, _rows, READ_AT_ONCE)
        if count < 0:
            raise NetlinkError(_ERRORS[count])
        for (kind, sequence, interrupted, about, number, interface, master, link, family, length, state, flags, at, end,
             other_at, other_end, name_at, name_end, kind_at, kind_end, port_kind_at,
             port_kind_end) in _ROW.iter_unpack(_rows_bytes[:count * _ROW.size]):
            body: Body = None
            subject: Subject = None
            if about == _ADDRESS:
                packed = datagram[at:end]
                # IPv4 may have one address twice, with two prefixes or two peers. IPv6 may not, and changes the peer in
                # place.
                subject = ((interface, family, packed, length, datagram[other_at:other_end]) if family == AF_INET
                           else (interface, family, packed))
                body = Address(family, packed, interface, state, flags)
            elif about == _NUMBER:
                body = number
            elif about == _LINK:
                subject = interface
                name, kind_name, port_kind = (
                    datagram[name_at:name_end], datagram[kind_at:kind_end], datagram[port_kind_at:port_kind_end])
                body = Link(interface, name.decode(errors="replace"), master, port_kind.decode(errors="replace"), link,
                            None if number < 0 else number, kind_name.decode(errors="replace"),
                            datagram[other_at:other_end])
            elif about == _ROUTE:
                destination = datagram[at:end] if at else bytes(16 if family == AF_INET6 else 4)
                body = Route(state, interface, flags != 0, family, destination, length)
            elif about == _NEIGHBOUR:
                packed, hardware = datagram[at:end], datagram[other_at:other_end]
                subject = (master or interface, packed or hardware)
                body = Neighbour(family, interface, state, flags, packed, hardware, master)
            messages.append(_new(Message, (kind, sequence, interrupted != 0, body, subject)))
    return messages


def _attribute(kind: int, value: bytes) -> bytes:
    return _RTATTR.pack(_RTATTR.size + len(value), kind) + value  # all of ours are multiples of four


def _message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    return _NLMSGHDR.pack(_NLMSGHDR.size + len(payload), kind, flags, sequence, 0) + payload


_WITHOUT_STATISTICS = _attribute(_IFLA_EXT_MASK, _U32.pack(_RTEXT_FILTER_SKIP_STATS))
_ALL_LINKS = _IFINFOMSG.pack(0, 0, 0, 0, 0) + _WITHOUT_STATISTICS
_ALL_ADDRESSES = _IFADDRMSG.pack(0, 0, 0, 0, 0)
