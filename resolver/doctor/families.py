# SPDX-License-Identifier: MIT
"""The trap of AI_ADDRCONFIG: programs that use it (getent ahosts, browsers, ssh) get addresses of those families alone
of which this host has an address itself, loopback not counted."""

from collections.abc import Iterator

from resolver.core.addresses import AF_INET, AF_INET6
from resolver.core.machine import Address, ChosenAddress
from resolver.doctor.finding import Finding, Level, ok
from resolver.host import netlink
from resolver.host.netns import netlink_socket
from resolver.table.reader import TableReader, TableUnavailable

KERNEL_SECONDS = 2.0

NAMES = {AF_INET: "IPv4", AF_INET6: "IPv6"}
EXAMPLES = {AF_INET: "ip address add 192.0.2.1/32 dev lo", AF_INET6: "ip address add fd00::1/128 dev lo"}
"""An address that harms nobody and counts: of the network for documentation, and a unique local one."""

_LOOPBACK = {AF_INET: lambda packed: packed[0] == 127, AF_INET6: lambda packed: packed == bytes(15) + b"\x01"}


def check() -> Iterator[Finding]:
    missing = missing_families()
    if not missing:
        yield ok("this host has addresses of IPv4 and IPv6: AI_ADDRCONFIG leaves nothing out")
        return
    machines = _machines()
    for family in missing:
        alone = sorted(name for name, addresses in machines.items()
                       if addresses and all(address.family == family for address in addresses))
        some = any(address.family == family for addresses in machines.values() for address in addresses)
        text = f"this host has no {NAMES[family]} address but loopback's"
        if alone:
            yield Finding(Level.WARNING, f"{text}, and {', '.join(alone[:5])} no other",
                          "programs that ask with AI_ADDRCONFIG (getent ahosts, browsers, ssh) do not find them",
                          EXAMPLES[family])
        else:
            yield Finding(Level.NOTE, text, f"programs that ask with AI_ADDRCONFIG get no {NAMES[family]} addresses"
                          + (" of machines" if some else "; no machine has any"))


def missing_families() -> list[int]:
    """Those that AI_ADDRCONFIG leaves out."""
    have: set[int] = set()
    with netlink_socket() as sock:
        sock.settimeout(KERNEL_SECONDS)
        sock.send(netlink.dump_request(netlink.RTM_GETADDR, 1))
        done = False
        while not done:
            for message in netlink.parse(sock.recv(65536)):
                body = message.body
                done = done or message.type in (netlink.NLMSG_DONE, netlink.NLMSG_ERROR)
                if isinstance(body, Address) and body.family in NAMES and not _LOOPBACK[body.family](body.packed):
                    have.add(body.family)
    return [family for family in NAMES if family not in have]


def _machines() -> dict[str, tuple[ChosenAddress, ...]]:
    try:
        reader = TableReader()
        return {found[0]: found[1] for found in map(reader.host_by_name, reader.names()) if found is not None}
    except TableUnavailable:
        return {}
