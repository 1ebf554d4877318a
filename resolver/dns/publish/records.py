# SPDX-License-Identifier: MIT
"""Which records a host's machines have, how they differ from others, and a digest of all. No input or output."""

import hashlib
import ipaddress
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

Records = Mapping[str, frozenset[str]]
"""Addresses as text by the machine's name in lower case, relative to the host's name. No name without an address."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NAMES_IN_UPDATE = 200
"""Names changed by one update: some 20 KiB, of the 64 that a message over TCP may have (RFC 1035 section 4.2.2), with
eight addresses each. A server holds others up for as long as it applies one."""

ADDRESSES_OF_NAME = 32
"""Of each family: an answer then fits a datagram of 1232 bytes (RFC 9715) for either family."""

LABEL_MAX = 63
NAME_MAX = 253  # in text, without the last dot (RFC 1035 section 2.3.4)


def records_of(name: str, addresses: Iterable[str], networks: Sequence[Network]) -> tuple[str, frozenset[str]] | None:
    """A machine's records; None where it has none to publish.

    `networks`: those whose addresses others reach, and all that are neither link-local nor loopback where none is
    given.
    """
    if any(not 0 < len(label) <= LABEL_MAX for label in name.split(".")):
        return None
    found = sorted({address for address in map(ipaddress.ip_address, addresses) if _is_for_others(address, networks)},
                   key=lambda address: (address.version, address.packed))
    chosen = itertools.chain.from_iterable(
        itertools.islice((each for each in found if each.version == version), ADDRESSES_OF_NAME) for version in (4, 6))
    texts = frozenset(map(str, chosen))
    return (name.lower(), texts) if texts else None


def _is_for_others(address: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: Sequence[Network]) -> bool:
    if address.is_link_local or address.is_loopback or address.is_multicast or address.is_unspecified:
        return False
    return not networks or any(address.version == each.version and address in each for each in networks)


def digest_of(records: Records) -> str:
    """The same for the same records, whatever their order; 32 hexadecimal digits."""
    state = hashlib.sha256()
    for name in sorted(records):
        state.update(f"{name} {' '.join(sorted(records[name]))}\n".encode())
    return state.hexdigest()[:32]


def differences(there: Records, wanted: Records) -> dict[str, frozenset[str]]:
    """What each name that differs should have, by name; nothing, for one that should go."""
    return {name: wanted.get(name, frozenset()) for name in sorted({*there, *wanted})
            if there.get(name) != wanted.get(name)}


def in_updates(changes: Mapping[str, frozenset[str]]) -> Iterator[dict[str, frozenset[str]]]:
    """The same in portions of NAMES_IN_UPDATE."""
    items = iter(changes.items())
    while portion := dict(itertools.islice(items, NAMES_IN_UPDATE)):
        yield portion


def changed(records: Records, changes: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """What there is when these changes are made."""
    return {name: addresses for name, addresses in {**records, **changes}.items() if addresses}
