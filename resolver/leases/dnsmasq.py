# SPDX-License-Identifier: MIT
"""dnsmasq's own lease file (dnsmasq(8), --dhcp-leasefile).

    file   = { lease, newline }
    lease  = expiry, MAC, IPv4 address, host name, client id     ; seconds since 1970, 0 for never; * for unknown
           | "duid", the server's DUID                           ; all that follow are DHCPv6's
           | expiry, IAID, IPv6 address, host name, client's DUID

A MAC of another kind than Ethernet has its number before it (06-aa:bb...). DHCPv6's leases are passed over: of their
client they have the DUID, which is to be compared and not looked into (RFC 8415 section 11). It may hold the MAC of
some interface, or of the machine that this one is a copy of. The neighbour table has these addresses.
"""

from resolver.leases.lease import Lease, Parsed, address_of, expiry_of, mac_of

_FIELDS = 5
_DHCPV6 = "duid"


def parse_dnsmasq(data: bytes, interface: str = "") -> Parsed:
    """The leases of a file. Total. A last line without its end is not whole: dnsmasq is writing it."""
    parsed = Parsed()
    lines = data.split(b"\n")
    if lines.pop():
        parsed.problem("the last line is cut short")
    for line in lines:
        words = line.decode("ascii", "replace").split(" ")
        if words[0] == _DHCPV6:
            break
        try:
            if len(words) < _FIELDS or not (words[0].isascii() and words[0].isdecimal() and len(words[0]) < 20):
                raise ValueError(f"no lease: {line[:40]!r}")
            if "-" in words[1]:
                continue
            family, packed = address_of(words[2])
            parsed.add(Lease(mac_of(words[1]), family, packed, expiry_of(int(words[0])), interface))
        except ValueError as error:
            parsed.problem(str(error))
    return parsed
