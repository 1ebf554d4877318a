# SPDX-License-Identifier: MIT
"""Which of a machine's addresses look-ups give, and why.

Global and site-local ones that the host routes straight to the machine. Where it does so for none of them, as with
macvlan, those that others can reach: on the link that the machine's interface lies on, or else all but those of links
inside the machine. Link-local ones only where no other works, since who connects to them needs a scope id. What is left
out here stays in the machine's full list.

A guest gives itself whatever address it likes, its neighbour's or that of a public name server. So a reverse look-up
answers what the host itself routes to the machine, and nothing else.

Each address gets a verdict, and what look-ups give is made of the verdicts: an explanation cannot differ from what was
done.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum, auto
from typing import NamedTuple, Protocol

from resolver.core.machine import Address, ChosenAddress

AF_INET = 2
AF_INET6 = 10

MACHINE_ADDRESSES_MAX = 128
"""Addresses that look-ups give of one machine: an answer then fits a page, a packet and a small stack."""

# linux/if_addr.h
_IFA_F_DADFAILED, _IFA_F_DEPRECATED, _IFA_F_TENTATIVE = 0x08, 0x20, 0x40
_RT_SCOPE_LINK = 253  # linux/rtnetlink.h; 254 is this host alone (loopback), 255 nowhere


class Way(StrEnum):
    """Where the host's packets to an address go."""

    STRAIGHT = auto()
    """Out of the machine's interface, or the bridge, bond or VRF that it is a port of, with no router in between."""
    BESIDE = auto()
    """Onto the link that the machine's macvlan or ipvlan interface shares with the host's: others there reach it."""
    ANOTHER_PORT = auto()
    """Out of the bridge, but to another port of it: there the host has found who answers."""
    HOST = auto()
    """To the host itself: the address is its own."""
    INSIDE = auto()
    """Anywhere else, or nowhere, for an address of an interface that is on no link of the host's, though others are."""
    ELSEWHERE = auto()
    """Anywhere else, or nowhere."""


class Reason(StrEnum):
    """Why an address is given or left out. REASONS has the text of each."""

    ROUTED = "routed"
    BESIDE = "beside"
    UNROUTED = "unrouted"
    ONLY_LINK_LOCAL = "only-link-local"

    LOOPBACK = "loopback"
    NOT_UNICAST = "not-unicast"
    DUPLICATE = "duplicate"
    TENTATIVE = "tentative"
    DEPRECATED = "deprecated"
    LINK_LOCAL = "link-local"
    NO_SCOPE = "no-scope"
    ROUTED_ELSEWHERE = "routed-elsewhere"
    INSIDE = "inside"
    ANOTHER_PORT = "another-port"
    OF_THE_HOST = "of-the-host"
    REPEATED = "repeated"
    TOO_MANY = "too-many"


GIVEN = frozenset({Reason.ROUTED, Reason.BESIDE, Reason.UNROUTED, Reason.ONLY_LINK_LOCAL})
"""The reasons for which look-ups give an address; for all others it is left out."""

REASONS: Mapping[Reason, str] = {
    Reason.ROUTED: "the host routes straight to it, by the machine's interface",
    Reason.BESIDE: "others on the link that the machine shares reach it, this host may not (macvlan, ipvlan)",
    Reason.UNROUTED: "the host routes to none of the machine's addresses; others may reach it",
    Reason.ONLY_LINK_LOCAL: "link-local, and the host routes to no other",
    Reason.LOOPBACK: "the machine's own loopback",
    Reason.NOT_UNICAST: "no single interface's address",
    Reason.DUPLICATE: "another one on the link has it (duplicate address detection failed)",
    Reason.TENTATIVE: "not usable yet (duplicate address detection is under way)",
    Reason.DEPRECATED: "deprecated: no new connections are to be made to it",
    Reason.LINK_LOCAL: "link-local, and the machine has better ones",
    Reason.NO_SCOPE: "link-local, and the host's interface to the machine is not known",
    Reason.ROUTED_ELSEWHERE: "the host routes elsewhere, or nowhere, for it",
    Reason.INSIDE: "on a link inside the machine, that the host has no part in and no route to",
    Reason.ANOTHER_PORT: "the host finds it behind another port of the bridge",
    Reason.OF_THE_HOST: "the host's own address",
    Reason.REPEATED: "listed already, with another interface or prefix",
    Reason.TOO_MANY: f"look-ups give {MACHINE_ADDRESSES_MAX} of a machine at the most",
}


class Verdict(NamedTuple):
    """What became of an address. `scope_id` is the host's interface to reach it through, 0 where routing tells."""

    address: Address
    reason: Reason
    scope_id: int = 0

    @property
    def given(self) -> ChosenAddress | None:
        """As look-ups give it, None where they do not."""
        if self.reason not in GIVEN:
            return None
        return ChosenAddress(self.address.family, self.address.packed, self.scope_id, scoped=bool(self.scope_id),
                             reverse=self.reason is Reason.ROUTED)


class Reach(Protocol):
    """What the host knows of the way to one machine; resolver.host.reach asks the kernel."""

    def scope_id(self, address: Address) -> int:
        """The host's interface for a link-local address of IPv6, 0 where it is not known: it is of no use then."""

    def leads_out(self, address: Address) -> bool:
        """Whether its interface is known to be on a link of the host's. Costs no question to the kernel."""

    def way(self, address: Address) -> Way:
        """Where the host's packets to that address go."""


def is_link_local(address: Address) -> bool:
    """fe80::/10 (RFC 4291 section 2.5.6) or 169.254.0.0/16 (RFC 3927), whatever scope it was given."""
    if address.family == AF_INET6:
        return address.packed[0] == 0xFE and address.packed[1] & 0xC0 == 0x80
    return address.packed[:2] == b"\xa9\xfe" or address.scope == _RT_SCOPE_LINK


def judge(addresses: Iterable[Address], reach: Reach) -> tuple[Verdict, ...]:
    """A verdict for each address, in the order of the addresses."""
    addresses = tuple(addresses)
    reasons: list[Reason | None] = []
    known: set[tuple[int, bytes]] = set()
    # Of those that somebody could use, the places: of link-local ones, and of all others.
    local: list[int] = []
    wide: list[int] = []
    for at, address in enumerate(addresses):
        key = address.family, address.packed
        reason = _unusable(address) or (Reason.REPEATED if key in known else None)
        reasons.append(reason)
        if reason is None:
            known.add(key)
            (local if is_link_local(address) else wide).append(at)
    if len(wide) > MACHINE_ADDRESSES_MAX:
        # No more are asked about than are given: each is a question to the kernel. A machine that balances load may
        # have hundreds of addresses on an interface that leads nowhere, and these may come first.
        wide = sorted(wide, key=lambda at: not reach.leads_out(addresses[at]))[:MACHINE_ADDRESSES_MAX]
    ways = {at: reach.way(addresses[at]) for at in wide}
    best = next((way for way in _GIVEN_BY if way in ways.values()), None)
    for at, way in ways.items():
        reasons[at] = _GIVEN_BY[way] if way is best else _LEFT_OUT_BY[way]
    scope_ids: dict[int, int] = {}
    for at in local:
        if best in (Way.STRAIGHT, Way.BESIDE):
            reasons[at] = Reason.LINK_LOCAL
        elif addresses[at].family == AF_INET6:
            scope_ids[at] = reach.scope_id(addresses[at])
            reasons[at] = Reason.ONLY_LINK_LOCAL if scope_ids[at] else Reason.NO_SCOPE
        else:  # programs have no scope id to give for it: routes must tell
            routed = reach.way(addresses[at]) is Way.STRAIGHT
            reasons[at] = Reason.ONLY_LINK_LOCAL if routed else Reason.ROUTED_ELSEWHERE
    for at in [at for at, reason in enumerate(reasons) if reason in GIVEN][MACHINE_ADDRESSES_MAX:]:
        reasons[at] = Reason.TOO_MANY
    return tuple([Verdict(address, reason or Reason.TOO_MANY, scope_ids.get(at, 0))
                  for at, (address, reason) in enumerate(zip(addresses, reasons, strict=True))])


def given(verdicts: Iterable[Verdict]) -> tuple[ChosenAddress, ...]:
    """The addresses that look-ups give, in the order of the verdicts."""
    return tuple([address for verdict in verdicts if (address := verdict.given) is not None])


_GIVEN_BY = {Way.STRAIGHT: Reason.ROUTED, Way.BESIDE: Reason.BESIDE, Way.ELSEWHERE: Reason.UNROUTED}
"""The ways by which addresses are given, best first: those of the best that a machine has, and no others."""

_LEFT_OUT_BY = {Way.BESIDE: Reason.ROUTED_ELSEWHERE, Way.ELSEWHERE: Reason.ROUTED_ELSEWHERE,
                Way.INSIDE: Reason.INSIDE, Way.ANOTHER_PORT: Reason.ANOTHER_PORT, Way.HOST: Reason.OF_THE_HOST}


def _unusable(address: Address) -> Reason | None:
    """Why nobody could use the address, whatever the host's routes are."""
    packed = address.packed
    if address.scope > _RT_SCOPE_LINK:  # the guest keeps it to itself
        return Reason.LOOPBACK
    if address.family == AF_INET6:
        if packed == _LOOPBACK:
            return Reason.LOOPBACK
        # Of a group, unspecified, or one that means IPv4 in IPv6's clothes (RFC 4291 section 2.5.5.2), for which
        # programs would use IPv4's routes.
        if packed[0] == 0xFF or packed == _UNSPECIFIED or packed.startswith(_MAPPED):
            return Reason.NOT_UNICAST
    elif packed[0] == 127:
        return Reason.LOOPBACK
    elif not 0 < packed[0] < 224:  # of a group, unspecified, or reserved
        return Reason.NOT_UNICAST
    if address.flags & _UNUSABLE_FLAGS:
        return next(reason for flag, reason in _UNUSABLE.items() if address.flags & flag)
    return None


_LOOPBACK, _UNSPECIFIED, _MAPPED = bytes(15) + b"\x01", bytes(16), bytes(10) + b"\xff\xff"
_UNUSABLE = {_IFA_F_DADFAILED: Reason.DUPLICATE, _IFA_F_TENTATIVE: Reason.TENTATIVE,
             _IFA_F_DEPRECATED: Reason.DEPRECATED}
_UNUSABLE_FLAGS = sum(_UNUSABLE)
