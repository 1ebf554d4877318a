# SPDX-License-Identifier: MIT
"""Which addresses look-ups give, and why."""

from collections.abc import Mapping
from ipaddress import ip_address

from resolver.core.addresses import (
    AF_INET,
    AF_INET6,
    GIVEN,
    MACHINE_ADDRESSES_MAX,
    REASONS,
    Reason,
    Verdict,
    Way,
    given,
    judge,
)
from resolver.core.machine import Address


def guest(text: str, scope: int = 0, flags: int = 0, ifindex: int = 2) -> Address:
    packed = ip_address(text).packed
    return Address(AF_INET if len(packed) == 4 else AF_INET6, packed, ifindex, scope, flags)


class Host:
    """A host whose ways are as told, by default straight to the machine."""

    def __init__(self, ways: Mapping[str, Way], otherwise: Way, scope_ids: Mapping[int, int]) -> None:
        self._ways, self._otherwise, self._scope_ids = ways, otherwise, scope_ids
        self.asked = 0

    def scope_id(self, address: Address) -> int:
        return self._scope_ids.get(address.ifindex, 0)

    def leads_out(self, address: Address) -> bool:
        return address.ifindex in self._scope_ids

    def way(self, address: Address) -> Way:
        self.asked += 1
        return self._ways.get(str(ip_address(address.packed)), self._otherwise)


def verdicts(*addresses: Address, ways: Mapping[str, Way] | None = None, otherwise: Way = Way.STRAIGHT,
             scope_ids: Mapping[int, int] | None = None) -> tuple[Verdict, ...]:
    return judge(addresses, Host(ways or {}, otherwise, {2: 9} if scope_ids is None else scope_ids))


def reasons(found: tuple[Verdict, ...]) -> list[Reason]:
    return [verdict.reason for verdict in found]


def chosen(found: tuple[Verdict, ...]) -> list[tuple[str, int, bool]]:
    return [(str(ip_address(a.packed)), a.scope_id, a.reverse) for a in given(found)]


def test_what_the_host_routes_elsewhere_is_left_out() -> None:
    """A guest may give itself any address, and have a bridge of its own inside."""
    found = verdicts(guest("8.8.8.8"), guest("172.17.0.1", ifindex=3), guest("10.0.0.2"), guest("fd00::2"),
                     ways={"10.0.0.2": Way.STRAIGHT}, otherwise=Way.ELSEWHERE)
    assert chosen(found) == [("10.0.0.2", 0, True)]
    assert reasons(found) == [Reason.ROUTED_ELSEWHERE, Reason.ROUTED_ELSEWHERE, Reason.ROUTED, Reason.ROUTED_ELSEWHERE]


def test_what_is_the_hosts_or_anothers_is_never_given() -> None:
    found = verdicts(guest("10.0.0.1"), guest("10.0.0.3"), guest("10.9.0.9"), scope_ids={},
                     ways={"10.0.0.1": Way.HOST, "10.0.0.3": Way.ANOTHER_PORT}, otherwise=Way.ELSEWHERE)
    assert reasons(found) == [Reason.OF_THE_HOST, Reason.ANOTHER_PORT, Reason.UNROUTED]


def test_where_the_host_routes_to_none_all_are_given_and_none_is_believed() -> None:
    found = verdicts(guest("10.0.0.2"), guest("fd00::2"), guest("fe80::1", 253), otherwise=Way.ELSEWHERE, scope_ids={})
    assert chosen(found) == [("10.0.0.2", 0, False), ("fd00::2", 0, False)]
    assert reasons(found)[2] is Reason.NO_SCOPE


def test_a_link_local_address_that_works_is_given_beside_others_that_do_not() -> None:
    """The host has no route to the link's own: glibc puts the link-local one first, and it connects."""
    found = verdicts(guest("10.0.0.2"), guest("172.17.0.1", ifindex=3), guest("fe80::1", 253),
                     guest("fe80::2", 253, ifindex=3), ways={"172.17.0.1": Way.INSIDE}, otherwise=Way.ELSEWHERE)
    assert chosen(found) == [("10.0.0.2", 0, False), ("fe80::1", 9, False)]
    assert reasons(found) == [Reason.UNROUTED, Reason.INSIDE, Reason.ONLY_LINK_LOCAL, Reason.NO_SCOPE]


def test_on_a_shared_link_its_own_addresses_alone_are_given() -> None:
    """macvlan: the host has a route onto the link, and no answer there."""
    found = verdicts(guest("192.0.2.5"), guest("8.8.8.8"), guest("fe80::1", 253), ways={"192.0.2.5": Way.BESIDE},
                     otherwise=Way.ELSEWHERE)
    assert chosen(found) == [("192.0.2.5", 0, False)]
    assert reasons(found) == [Reason.BESIDE, Reason.ROUTED_ELSEWHERE, Reason.LINK_LOCAL]


def test_global_addresses_leave_no_others() -> None:
    found = verdicts(guest("127.0.0.1", 254, ifindex=1), guest("::1", 254, ifindex=1), guest("10.0.0.2"),
                     guest("fe80::1", 253), guest("fd00::2"), guest("169.254.3.4", 253))
    assert chosen(found) == [("10.0.0.2", 0, True), ("fd00::2", 0, True)]
    assert reasons(found) == [Reason.LOOPBACK, Reason.LOOPBACK, Reason.ROUTED, Reason.LINK_LOCAL, Reason.ROUTED,
                              Reason.LINK_LOCAL]


def test_link_local_where_nothing_else_is() -> None:
    addresses = guest("fe80::1", 253), guest("169.254.3.4", 253)
    assert chosen(verdicts(*addresses)) == [("fe80::1", 9, False), ("169.254.3.4", 0, False)]
    found = verdicts(*addresses, scope_ids={}, otherwise=Way.ELSEWHERE)
    assert reasons(found) == [Reason.NO_SCOPE, Reason.ROUTED_ELSEWHERE]


def test_each_link_local_address_has_the_scope_of_its_own_link() -> None:
    found = verdicts(guest("fe80::1", 253), guest("fe80::2", 253, ifindex=3), scope_ids={2: 9, 3: 11})
    assert chosen(found) == [("fe80::1", 9, False), ("fe80::2", 11, False)]


def test_unusable_addresses_are_left_out() -> None:
    flags = {0x08: Reason.DUPLICATE, 0x40: Reason.TENTATIVE, 0x20: Reason.DEPRECATED}  # linux/if_addr.h
    for flag, reason in flags.items():
        found = verdicts(guest("fd00::2", flags=flag), guest("10.0.0.2"))
        assert chosen(found) == [("10.0.0.2", 0, True)]
        assert reasons(found)[0] is reason


def test_what_is_no_interfaces_own_is_left_out() -> None:
    for text in ("224.0.0.1", "255.255.255.255", "0.0.0.0", "ff02::1", "::", "::ffff:10.0.0.2"):
        assert reasons(verdicts(guest(text))) == [Reason.NOT_UNICAST], text


def test_each_once_and_not_too_many() -> None:
    found = verdicts(guest("10.0.0.2"), guest("10.0.0.2", ifindex=3))
    assert chosen(found) == [("10.0.0.2", 0, True)]
    assert reasons(found) == [Reason.ROUTED, Reason.REPEATED]
    many = [guest(f"10.0.{n // 256}.{n % 256}") for n in range(300)]
    host = Host({}, Way.STRAIGHT, {})
    found = judge(many, host)
    assert len(given(found)) == MACHINE_ADDRESSES_MAX == host.asked
    assert reasons(found)[MACHINE_ADDRESSES_MAX:] == [Reason.TOO_MANY] * (300 - MACHINE_ADDRESSES_MAX)
    local = [guest(f"fe80::{n:x}", 253) for n in range(1, 300)]
    assert len(given(verdicts(*local))) == MACHINE_ADDRESSES_MAX


def test_an_address_that_is_given_is_not_repeated_by_one_that_is_not() -> None:
    found = verdicts(guest("fd00::2", flags=0x40), guest("fd00::2", ifindex=3))
    assert reasons(found) == [Reason.TENTATIVE, Reason.ROUTED]


def test_every_reason_has_its_text() -> None:
    assert set(REASONS) == set(Reason) > GIVEN


def test_addresses_that_lead_nowhere_push_out_none_that_does() -> None:
    """As with a load balancer's, which lie on an interface inside by the hundred: they may come first."""
    many = [guest(f"10.96.{i // 256}.{i % 256}", ifindex=3) for i in range(MACHINE_ADDRESSES_MAX * 4)]
    found = verdicts(*many, guest("10.0.0.2"), ways={"10.0.0.2": Way.STRAIGHT}, otherwise=Way.INSIDE)
    assert chosen(found) == [("10.0.0.2", 0, True)]
    assert found[-1].reason is Reason.ROUTED
