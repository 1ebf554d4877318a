# SPDX-License-Identifier: MIT
"""Which of a machine's addresses look-ups give.

Global and site-local ones that the host routes straight to the machine; where it does so for none of them, as with
macvlan, all of these. Link-local ones only where nothing else exists, since who connects to them needs a scope id. What
is left out here stays in the machine's full list.

A guest gives itself whatever address it likes, its neighbour's or that of a public name server. So a reverse look-up
answers what the host itself routes to the machine, and nothing else.
"""

from collections.abc import Iterable
from typing import Protocol

from resolver.core.machine import Address, ChosenAddress

AF_INET = 2
AF_INET6 = 10

MACHINE_ADDRESSES_MAX = 128
"""Addresses that look-ups give of one machine: an answer then fits a page, a packet and a small stack."""

# linux/if_addr.h: an address that is not, or not yet, or no longer to be used.
_IFA_F_UNUSABLE = 0x08 | 0x20 | 0x40  # DADFAILED, DEPRECATED, TENTATIVE
_RT_SCOPE_LINK = 253  # linux/rtnetlink.h; 254 is this host alone (loopback), 255 nowhere


def is_link_local(address: Address) -> bool:
    """fe80::/10 (RFC 4291 section 2.5.6) or 169.254.0.0/16 (RFC 3927), whatever scope it was given."""
    if address.family == AF_INET6:
        return address.packed[0] == 0xFE and address.packed[1] & 0xC0 == 0x80
    return address.packed[:2] == b"\xa9\xfe" or address.scope == _RT_SCOPE_LINK


def is_loopback(address: Address) -> bool:
    """127.0.0.0/8, ::1, and whatever the guest keeps to itself by scope."""
    if address.family == AF_INET6:
        return address.packed == bytes(15) + b"\x01" or address.scope > _RT_SCOPE_LINK
    return address.packed[0] == 127 or address.scope > _RT_SCOPE_LINK


class Reach(Protocol):
    """What the host knows of the way to one machine; resolver.host.links asks the kernel."""

    def scope_id(self) -> int:
        """The host's interface for the machine's link-local addresses, 0 where it is not known: they are of no use
        then, those of IPv6."""

    def routes_to(self, address: Address) -> bool:
        """Whether the host's packets to that address leave by the machine's interface."""


def choose_addresses(addresses: Iterable[Address], reach: Reach) -> tuple[ChosenAddress, ...]:
    """The addresses that look-ups give, in the kernel's order, at most MACHINE_ADDRESSES_MAX."""
    usable = [a for a in addresses if not a.flags & _IFA_F_UNUSABLE and not is_loopback(a)]
    wide = [a for a in usable if not is_link_local(a)]
    # No more are asked about than are given: each is a question to the kernel.
    routed = [a for a in wide[:MACHINE_ADDRESSES_MAX] if reach.routes_to(a)]
    if wide:
        chosen = [ChosenAddress(a.family, a.packed, reverse=bool(routed)) for a in routed or wide]
    else:
        scope = reach.scope_id() if any(a.family == AF_INET6 for a in usable) else 0
        chosen = [ChosenAddress(a.family, a.packed, scope if a.family == AF_INET6 else 0,
                                scoped=a.family == AF_INET6, reverse=False)
                  for a in usable if a.family == AF_INET or scope]
    # A guest may give the same address to two interfaces; whoever looks it up wants it once.
    return tuple(dict.fromkeys(chosen))[:MACHINE_ADDRESSES_MAX]
