# SPDX-License-Identifier: MIT
"""Lease files that are JSON: libvirt's and systemd-networkd's.

libvirt: /var/lib/libvirt/dnsmasq/BRIDGE.status, an array of one object a lease, that the helper writes which dnsmasq
calls for each change (libvirt_leaseshelper; dnsmasq(8), --dhcp-script): `ip-address`, `mac-address`, `expiry-time` in
seconds since 1970 or 0, `hostname`, `client-id`, and for DHCPv6 `iaid` and `server-duid`. The MAC of a DHCPv6 client is
what dnsmasq knows of the link, and not of the client's own word; it may be missing.

systemd-networkd: /var/lib/systemd/network/dhcp-server-lease/INTERFACE, one object with an array `Leases`, as version
257 writes it when it gives a lease, and not when one is given back or expires (PersistLeases= in systemd.network(5);
before 256 it wrote none): `Address` and `HardwareAddress` as bytes in arrays, `HardwareAddressLength`,
`HardwareAddressType` (1 is Ethernet, RFC 1700), `ExpirationRealtimeUSec`.
"""

import json
from collections.abc import Callable
from typing import Any

from resolver.core.addresses import AF_INET
from resolver.leases.lease import FOREVER, Lease, Parsed, address_of, expiry_of, mac_of

_ETHERNET, _MAC_LENGTH, _IPV4_LENGTH = 1, 6, 4
_NEVER = 2**64 - 1  # systemd's USEC_INFINITY


def parse_libvirt(data: bytes, interface: str = "") -> Parsed:
    """The leases of a status file. Total. Before the first lease the file is empty."""
    return _parse(data, interface, lambda whole: whole, _libvirts) if data.strip() else Parsed()


def parse_networkd(data: bytes, interface: str = "") -> Parsed:
    """The leases of systemd-networkd's server on one interface. Total."""
    return _parse(data, interface, lambda whole: whole.get("Leases", []), _networkds)


def _parse(data: bytes, interface: str, entries: Callable[[Any], Any],
           lease_of: Callable[[dict[str, Any], str], Lease | None]) -> Parsed:
    parsed = Parsed()
    try:
        found = entries(json.loads(data))
        if not isinstance(found, list):
            raise ValueError("no array of leases")
    except (ValueError, AttributeError, RecursionError) as error:  # AttributeError: no object
        parsed.problem(str(error))
        return parsed
    for entry in found:
        try:
            if not isinstance(entry, dict):
                raise ValueError(f"no lease: {str(entry)[:40]!r}")
            lease = lease_of(entry, interface)
            if lease is not None:
                parsed.add(lease)
        except (ValueError, RecursionError) as error:
            parsed.problem(str(error))
    return parsed


def _libvirts(entry: dict[str, Any], interface: str) -> Lease | None:
    if "mac-address" not in entry:
        return None
    family, packed = address_of(entry.get("ip-address"))
    return Lease(mac_of(entry["mac-address"]), family, packed, expiry_of(entry.get("expiry-time", 0)), interface)


def _networkds(entry: dict[str, Any], interface: str) -> Lease | None:
    if (entry.get("HardwareAddressType"), entry.get("HardwareAddressLength")) != (_ETHERNET, _MAC_LENGTH):
        return None
    expires = entry.get("ExpirationRealtimeUSec", _NEVER)
    return Lease(_bytes(entry.get("HardwareAddress"), _MAC_LENGTH, 16), AF_INET,
                 _bytes(entry.get("Address"), _IPV4_LENGTH, _IPV4_LENGTH),
                 FOREVER if expires == _NEVER else expiry_of(expires) / 1e6, interface)


def _bytes(value: object, length: int, length_max: int) -> bytes:
    """The first `length` of an array of bytes."""
    if not isinstance(value, list) or not length <= len(value) <= length_max:
        raise ValueError(f"no bytes: {str(value)[:40]!r}")
    if not all(type(number) is int and 0 <= number < 256 for number in value):
        raise ValueError(f"no bytes: {str(value)[:40]!r}")
    return bytes(value[:length])
