# SPDX-License-Identifier: MIT
"""A host-side interface of a machine: what the host knows of it, and what was seen behind it."""

from dataclasses import dataclass, field

from resolver.host import netlink

MACS_KEPT_MAX = 64
"""MAC addresses behind one port: a guest's own, and those of guests in it. Root in a guest can use any number."""

ADDRESSES_KEPT_MAX = 256
"""IP addresses behind one port: twice what look-ups give. A guest can answer for whole networks."""

MAC_LENGTH = 6

_TAP, _MACVTAP = "tun", "macvtap"
_GUEST_KINDS = frozenset({_TAP, _MACVTAP, "veth"})
"""Behind these there is one machine. Behind a physical interface is the world, behind a bridge are others' ports."""

_HOST_GIVEN = 0xFE
"""libvirt gives a guest's tap the guest's own MAC with this first byte, the highest: a bridge takes the lowest of its
ports' for its own. The guest cannot change it. Where it is there by chance it tells nothing: no guest has the rest."""

Key = tuple[int, bytes]
"""A neighbour: the interface that it is on, and its IP address."""


@dataclass(eq=False, slots=True)
class Port:
    """`link` is the bridge that has it, or else itself, and 0 while nothing behind it counts."""

    index: int
    machine: str
    link: int = 0
    given: bytes = b""
    """The MAC address that the host gave the guest, without its first byte; empty where the host does not tell."""
    macs: dict[bytes, bool] = field(default_factory=dict)
    """MAC addresses seen behind it, oldest first, and whether the bridge still has them."""
    keys: dict[Key, None] = field(default_factory=dict)
    """The neighbours seen behind it, in the order in which they came."""
    forgotten: set[Key] = field(default_factory=set)
    """Those of them that the kernel has no longer."""
    generation: int = 0
    coveted: bool = False
    """Somebody else would have something of it, if it went."""
    incomplete: bool = False
    """Neighbours were left out."""

    def describe(self, link: netlink.Link | None) -> tuple[int, bytes]:
        """`link` and `given` as the kernel's message has it; None where the interface is gone."""
        if link is None or link.kind not in _GUEST_KINDS:
            return 0, b""
        # A macvtap is the guest's own card, and on no bridge.
        known = link.kind == _MACVTAP or (link.kind == _TAP and link.hardware[:1] == bytes([_HOST_GIVEN]))
        given = link.hardware[1:] if known and len(link.hardware) == MAC_LENGTH else b""
        return (link.master if link.master and link.port_kind == "bridge" else self.index), given

    def room_for_a_mac(self) -> tuple[bool, bytes]:
        """Whether one more can be kept, and which has to go for it: the oldest that the bridge has forgotten."""
        if len(self.macs) < MACS_KEPT_MAX:
            return True, b""
        oldest = next((mac for mac, known in self.macs.items() if not known), b"")
        return bool(oldest), oldest
