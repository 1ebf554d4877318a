# SPDX-License-Identifier: MIT
"""A lease, and what parsers of lease files have in common.

The host name that a client sends is its own claim, and of no interest here; so is its client identifier.
"""

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from resolver.core.addresses import AF_INET, AF_INET6

LEASES_MAX = 16384
"""Leases of one file: a /18 network. Each takes some 300 bytes here."""

PROBLEMS_MAX = 5
"""Problems of one file that are told of."""

FOREVER = 0.0

_MAC = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}")
_EXPIRY_MAX = 2**53  # what a float holds exactly


class Lease(NamedTuple):
    """`mac` is 6 bytes, `packed` an IP address as in resolver.core.machine.Address. `expires` is in seconds of
    CLOCK_REALTIME, FOREVER for never. `interface` is the name of the host's interface that the server serves, empty
    where the file does not tell.
    """

    mac: bytes
    family: int
    packed: bytes
    expires: float
    interface: str = ""


@dataclass(slots=True)
class Parsed:
    """What a file says: what is right of it, and what is wrong with the rest. `dropped` counts that."""

    leases: list[Lease] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    dropped: int = 0

    def add(self, lease: Lease) -> None:
        if len(self.leases) < LEASES_MAX:
            self.leases.append(lease)
        else:
            self.problem(f"more than {LEASES_MAX} leases")

    def problem(self, text: str) -> None:
        self.dropped += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(text)

    def in_force(self, now: float) -> Iterator[Lease]:
        """Those that have not expired by then."""
        return (lease for lease in self.leases if lease.expires == FOREVER or lease.expires > now)


def mac_of(text: object) -> bytes:
    """The bytes of an Ethernet address as aa:bb:cc:dd:ee:ff. ValueError for everything else."""
    if not isinstance(text, str) or not _MAC.fullmatch(text):
        raise ValueError(f"no Ethernet address: {str(text)[:40]!r}")
    return bytes.fromhex(text.replace(":", ""))


def address_of(text: object) -> tuple[int, bytes]:
    """Family and bytes of an IP address. ValueError for everything else."""
    if not isinstance(text, str) or len(text) > 45 or "%" in text:
        raise ValueError(f"no address: {str(text)[:40]!r}")
    address = ipaddress.ip_address(text)
    return (AF_INET if address.version == 4 else AF_INET6), address.packed


def expiry_of(value: object) -> float:
    """A time in seconds since 1970. ValueError for everything else."""
    if type(value) is not int or not 0 <= value <= _EXPIRY_MAX:
        raise ValueError(f"no time: {str(value)[:40]!r}")
    return float(value)
