# SPDX-License-Identifier: MIT
"""Which addresses look-ups give."""

from collections.abc import Container
from ipaddress import ip_address

from resolver.core.addresses import AF_INET, AF_INET6, MACHINE_ADDRESSES_MAX, choose_addresses
from resolver.core.machine import Address


def guest(text: str, scope: int = 0, flags: int = 0, ifindex: int = 2) -> Address:
    packed = ip_address(text).packed
    return Address(AF_INET if len(packed) == 4 else AF_INET6, packed, ifindex, scope, flags)


class Way:
    """A host that routes to the machine what it is told to; by default everything."""

    def __init__(self, scope_id: int, routed: Container[str] | None) -> None:
        self._scope_id = scope_id
        self._routed = routed

    def scope_id(self) -> int:
        return self._scope_id

    def routes_to(self, address: Address) -> bool:
        return self._routed is None or str(ip_address(address.packed)) in self._routed


def chosen(*addresses: Address, scope_id: int = 9, routed: Container[str] | None = None) -> list[tuple[str, int, bool]]:
    return [(str(ip_address(a.packed)), a.scope_id, a.reverse)
            for a in choose_addresses(addresses, Way(scope_id, routed))]


def test_what_the_host_routes_elsewhere_is_left_out() -> None:
    """A guest may give itself any address, and have a bridge of its own inside."""
    addresses = guest("8.8.8.8"), guest("172.17.0.1", ifindex=3), guest("10.0.0.2"), guest("fd00::2")
    assert chosen(*addresses, routed={"10.0.0.2"}) == [("10.0.0.2", 0, True)]


def test_where_the_host_routes_to_none_all_are_given_and_none_is_believed() -> None:
    assert chosen(guest("10.0.0.2"), guest("fd00::2"), guest("fe80::1", 253), routed=()) == [
        ("10.0.0.2", 0, False), ("fd00::2", 0, False)]


def test_global_addresses_leave_no_others() -> None:
    assert chosen(guest("127.0.0.1", 254, ifindex=1), guest("::1", 254, ifindex=1), guest("10.0.0.2"),
                  guest("fe80::1", 253), guest("fd00::2"), guest("169.254.3.4", 253)) == [
        ("10.0.0.2", 0, True), ("fd00::2", 0, True)]


def test_link_local_where_nothing_else_is() -> None:
    assert chosen(guest("fe80::1", 253), guest("169.254.3.4", 253)) == [
        ("fe80::1", 9, False), ("169.254.3.4", 0, False)]
    assert chosen(guest("fe80::1", 253), scope_id=0) == []


def test_unusable_addresses_are_left_out() -> None:
    for flag in (0x08, 0x20, 0x40):  # dadfailed, deprecated, tentative: linux/if_addr.h
        assert chosen(guest("fd00::2", flags=flag), guest("10.0.0.2")) == [("10.0.0.2", 0, True)]


def test_each_once_and_not_too_many() -> None:
    assert chosen(guest("10.0.0.2"), guest("10.0.0.2", ifindex=3)) == [("10.0.0.2", 0, True)]
    many = [guest(f"10.0.{n // 256}.{n % 256}") for n in range(300)]
    assert len(choose_addresses(many, Way(0, None))) == MACHINE_ADDRESSES_MAX
