# SPDX-License-Identifier: MIT
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.core.machine import Address
from resolver.host import netlink
from resolver.host.netlink import READ_AT_ONCE, Link, Message, Neighbour, NetlinkError, Route, parse
from tests.hostside.wire import address, attribute, link, message, neighbour, route

MAC = bytes.fromhex("525400aabbcc")
V4, V4_PEER = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 9])
V6, V6_PEER = bytes.fromhex("fd00" + 28 * "0"), bytes.fromhex("fd01" + 28 * "0")


def address_of(datagram: bytes) -> Address:
    (only,) = parse(datagram)
    assert isinstance(only.body, Address)
    return only.body


def test_an_ipv4_address() -> None:
    data = address(2, attribute(1, V4), attribute(2, V4), attribute(3, b"e0\0"))
    assert address_of(data) == Address(2, V4, 3, 253, 0)


@pytest.mark.parametrize(("family", "own", "peer"), [(2, V4, V4_PEER), (10, V6, V6_PEER)])
def test_on_a_point_to_point_link_the_address_is_ours_and_not_the_peers(family: int, own: bytes, peer: bytes) -> None:
    assert address_of(address(family, attribute(1, peer), attribute(2, own))).packed == own


def test_ipv6_without_a_peer_has_no_local_attribute() -> None:
    assert address_of(address(10, attribute(1, V6))).packed == V6


def test_long_flags_overrule_the_short_field() -> None:
    assert address_of(address(10, attribute(1, V6), flags=0x80)).flags == 0x80
    assert address_of(address(10, attribute(1, V6), attribute(8, struct.pack("=I", 0x340)), flags=0x80)).flags == 0x340


@pytest.mark.parametrize("data", [
    address(2, attribute(1, V4), attribute(8, b"\x80\0"), attribute(3, b"e0\0")),
    link(attribute(3, b"ve-web\0"), attribute(10, b"\x09\0"), attribute(37, struct.pack("=i", 0))),
])
def test_a_number_ends_with_its_attribute(data: bytes) -> None:
    with pytest.raises(NetlinkError):
        parse(data)


def test_subjects_tell_apart_what_the_kernel_keeps_apart() -> None:
    def subject(data: bytes) -> object:
        (only,) = parse(data)
        assert only.subject is not None
        return only.subject

    one, other = (address(2, attribute(1, peer), attribute(2, V4)) for peer in (V4, V4_PEER))
    assert subject(one) != subject(other)
    # IPv6 changes the peer in place, and flags are no part of it
    assert subject(address(10, attribute(1, V6))) == subject(
        address(10, attribute(1, V6_PEER), attribute(2, V6), flags=0x40))
    assert subject(one) == subject(address(2, attribute(1, V4), attribute(2, V4), kind=netlink.RTM_DELADDR))


def test_a_link() -> None:
    data = link(attribute(3, b"ve-web\0"), attribute(5, struct.pack("=I", 2)), attribute(10, struct.pack("=I", 9)),
                attribute(37, struct.pack("=i", 0)), attribute(18 | 0x8000, attribute(4, b"bridge\0")))
    assert parse(data) == [Message(16, 7, False, Link(5, "ve-web", 9, "bridge", 2, 0), 5)]
    assert parse(link()) == [Message(16, 7, False, Link(5, "", 0, "", 0, None), 5)]


def test_a_taps_kind_and_mac_address() -> None:
    data = link(attribute(1, MAC), attribute(18 | 0x8000, attribute(1, b"tun\0")))
    assert parse(data) == [Message(16, 7, False, Link(5, "", kind="tun", hardware=MAC), 5)]


def test_names_end_with_their_zero_or_their_attribute() -> None:
    data = link(attribute(3, b"a\xff\0b\0"), attribute(18, attribute(1, b"tun") + attribute(4, b"\0vrf")))
    assert [m.body for m in parse(data)] == [Link(5, "a\ufffd", kind="tun")]


def test_of_an_attribute_that_is_there_twice_the_last_counts() -> None:
    data = link(attribute(3, b"one\0"), attribute(5, struct.pack("=I", 2)), attribute(3, b"two\0"))
    assert [m.body for m in parse(data)] == [Link(5, "two", link=2)]


def test_routes() -> None:
    interface = attribute(4, struct.pack("=I", 9))
    data = (route(2, attribute(1, V4), interface) + route(10, interface, attribute(5, V6), length=0)
            + route(2, attribute(9, b""), length=0, type_=2) + route(2, attribute(18, bytes(6)), length=0)
            + route(10, attribute(1, V6), length=128, kind=netlink.RTM_DELROUTE) + route(7, attribute(1, V4)))
    assert [m.body for m in parse(data)] == [
        Route(1, 9, False, 2, V4, 24), Route(1, 9, True, 10, bytes(16), 0), Route(2, 0, True, 2, bytes(4), 0),
        Route(1, 0, True, 2, bytes(4), 0), Route(1, 0, False, 10, V6, 128), None]


@pytest.mark.parametrize("data", [
    message(netlink.RTM_NEWROUTE, bytes(11)), route(2, attribute(1, V6)), route(2, attribute(1, V4), length=33),
    route(10, length=129), route(2, attribute(1, V4), attribute(4, b"xyz"))])
def test_routes_that_are_none(data: bytes) -> None:
    with pytest.raises(NetlinkError):
        parse(data)


def test_the_network_namespaces_ids() -> None:
    data = (message(netlink.RTM_NEWNSID, bytes(4) + attribute(1, struct.pack("=i", 7)))
            + message(netlink.RTM_NEWNSID, bytes(4)))
    assert [m.body for m in parse(data)] == [7, -1]


@pytest.mark.parametrize("count", [0, 1, READ_AT_ONCE - 1, READ_AT_ONCE, READ_AT_ONCE + 1, 2 * READ_AT_ONCE, 700])
def test_as_many_messages_as_there_are(count: int) -> None:
    data = b"".join(link(attribute(3, b"e%d\0" % number)) for number in range(count))
    assert [m.body for m in parse(data)] == [Link(5, f"e{number}") for number in range(count)]
    with pytest.raises(NetlinkError):
        parse(data + b"x")


def test_a_message_needs_no_padding_behind_the_last() -> None:
    data = message(netlink.NLMSG_ERROR, bytes(5))
    assert len(data) == 24
    assert [m.body for m in parse(data[:21])] == [m.body for m in parse(data)] == [0]


def test_neighbours() -> None:
    data = (neighbour(2, attribute(1, V4), attribute(2, MAC))
            + neighbour(10, attribute(1, V6), kind=netlink.RTM_DELNEIGH, state=0x20, flags=0x80)
            + neighbour(7, attribute(2, MAC), attribute(9, struct.pack("=I", 9)), flags=4))
    assert parse(data) == [
        Message(28, 7, False, Neighbour(2, 3, 2, 0, V4, MAC), (3, V4)),
        Message(29, 7, False, Neighbour(10, 3, 0x20, 0x80, V6), (3, V6)),
        Message(28, 7, False, Neighbour(7, 3, 2, 4, b"", MAC, 9), (9, MAC)),
    ]


def test_a_forwarding_table_of_vxlan_names_hosts_and_no_neighbours() -> None:
    assert [m.body for m in parse(neighbour(7, attribute(1, V4), attribute(2, MAC)))] == [
        Neighbour(7, 3, 2, 0, b"", MAC)]


@pytest.mark.parametrize("data", [neighbour(2), neighbour(2, attribute(1, V6)), neighbour(10, attribute(1, V4))])
def test_neighbours_without_an_address_of_their_family(data: bytes) -> None:
    with pytest.raises(NetlinkError):
        parse(data)


def test_a_port_that_leaves_its_bridge_is_no_link_that_goes() -> None:
    assert [m.body for m in parse(link(family=7, kind=netlink.RTM_DELLINK))] == [None]


def test_other_families_and_types_are_passed_over() -> None:
    data = address(12, attribute(1, b"ab")) + message(999, b"abc") + message(netlink.NLMSG_NOOP, b"")
    assert [m.body for m in parse(data)] == [None, None, None]


def test_the_ends() -> None:
    data = message(netlink.NLMSG_DONE, bytes(4), flags=netlink.NLM_F_DUMP_INTR) + message(netlink.NLMSG_DONE, b"")
    assert parse(data) == [Message(3, 7, True, 0), Message(3, 7, False, 0)]
    assert [m.body for m in parse(message(netlink.NLMSG_ERROR, struct.pack("=i", -16) + bytes(16)))] == [16]


@pytest.mark.parametrize("data", [
    b"x",
    bytes(16),
    struct.pack("=IHHII", 15, 3, 0, 0, 0),
    struct.pack("=IHHII", 17, 3, 0, 0, 0),
    message(netlink.RTM_NEWADDR, bytes(7)),
    message(netlink.RTM_NEWLINK, bytes(15)),
    message(netlink.NLMSG_ERROR, b""),
    address(2, attribute(1, V6)),
    address(2),
    address(10, attribute(1, V6), attribute(8, b"x")),
    address(2, struct.pack("=HH", 3, 1)),
    address(2, struct.pack("=HH", 9, 1) + V4),
    link(attribute(5, b"x")),
    link(struct.pack("=HH", 3, 3)),
    link(attribute(18, b"12345")),
])
def test_what_does_not_fit_is_one_error(data: bytes) -> None:
    with pytest.raises(NetlinkError):
        parse(data)


@given(st.binary())
def test_any_bytes_are_messages_or_one_error(data: bytes) -> None:
    try:
        parse(data)
    except NetlinkError:
        pass


WHOLE = (address(2, attribute(1, V4), attribute(2, V4))
         + link(attribute(3, b"e0\0"), attribute(18, attribute(4, b"x\0")))
         + message(netlink.RTM_NEWNSID, bytes(4) + attribute(1, bytes(4))) + message(netlink.NLMSG_DONE, bytes(4)))


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.integers(0, len(WHOLE)))
def test_a_damaged_datagram_is_messages_or_one_error(at: int, byte: int, end: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[at] = byte
    try:
        parse(bytes(damaged[:end]))
    except NetlinkError:
        pass


def test_the_kernel_understands_the_requests() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(5)

        def ask(request: bytes, last: int) -> list[Message]:
            kernel.send(request)
            replies = parse(kernel.recv(65536))
            while replies[-1].type != last:
                replies += parse(kernel.recv(65536))
            return replies

        links = ask(netlink.dump_request(netlink.RTM_GETLINK, 1), netlink.NLMSG_DONE)
        assert Link(1, "lo", hardware=bytes(6)) in [m.body for m in links]
        addresses = ask(netlink.dump_request(netlink.RTM_GETADDR, 2), netlink.NLMSG_DONE)
        assert {m.sequence for m in addresses} == {2}
        assert [m.body for m in ask(netlink.link_request(1, 3), netlink.RTM_NEWLINK)] == [
            Link(1, "lo", hardware=bytes(6))]
        assert [m.body for m in ask(netlink.link_request(2**31 - 1, 4), netlink.NLMSG_ERROR)] == [19]  # ENODEV
