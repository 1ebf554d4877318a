# SPDX-License-Identifier: MIT
"""What the server is told, from its command line."""

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import dns.exception
import dns.name
from dns.name import Name

import resolver
from resolver.dns import DEFAULT_ZONE
from resolver.dns.answers import Zone, is_for_others, reverse_apex
from resolver.table import TABLE_PATH

PROGRAM = "mymachines-dns"

PORT = 53

TTL_MAX = 2**31 - 1
"""RFC 2181 section 8."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PRIVATE = tuple(ipaddress.ip_network(text) for text in (
    "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10",
    "::1/128", "fc00::/7", "fe80::/10"))
"""For whom queries are forwarded unless options say otherwise: a resolver for all the world is a weapon (RFC 5358)."""


@dataclass(frozen=True)
class Listen:
    """An address and port, of this server or of another one."""

    host: str
    port: int = PORT
    interface: str = ""

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def address(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """As the socket module takes it. OSError where the interface of a link-local address is not there."""
        if self.family == socket.AF_INET:
            return self.host, self.port
        return self.host, self.port, 0, socket.if_nametoindex(self.interface) if self.interface else 0

    def __str__(self) -> str:
        host = f"{self.host}%{self.interface}" if self.interface else self.host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "Listen":
        """`ADDRESS`, `IPV4:PORT` or `[IPV6]:PORT`, IPv6 with `%INTERFACE` where it is link-local. ValueError."""
        host, port = text, str(PORT)
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")):
                raise ValueError(f"{text}: write [ADDRESS]:PORT")
            port = rest[1:] or port
        elif text.count(":") == 1:
            host, _, port = text.partition(":")
        host, _, interface = host.partition("%")
        if not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"{text}: no port")
        return cls(str(ipaddress.ip_address(host)), int(port), interface)


@dataclass(frozen=True)
class Options:
    listen: tuple[Listen, ...]
    zone: str = DEFAULT_ZONE
    ttl: int = 0
    reverse: tuple[Network, ...] = ()
    forward: tuple[Listen, ...] = ()
    forward_for: tuple[Network, ...] = PRIVATE
    table: str = TABLE_PATH

    def make_zone(self) -> Zone:
        """What is served. ValueError where the zone is no name, or a network no reverse zone."""
        packed = dict.fromkeys(ipaddress.ip_address(listen.host).packed for listen in self.listen)
        return Zone(zone_name(self.zone), self.ttl, tuple(address for address in packed if is_for_others(address)),
                    tuple(map(reverse_apex, self.reverse)))


def zone_name(text: str) -> Name:
    """ValueError where it is no name, or too long for machines' names before it."""
    try:
        name = dns.name.from_text(text)
        dns.name.Name((*(b"m" * 63, b"m"), *name.labels))
    except dns.exception.DNSException as error:
        raise ValueError(f"{text}: {error}") from None
    if name == dns.name.root:
        raise ValueError("the zone cannot be the root")
    return name


def parse(arguments: Sequence[str]) -> Options:
    """Exits with status 2 where they are wrong."""
    from argparse import ArgumentParser

    parser = ArgumentParser(PROGRAM, description="Answer DNS queries for the machines of this host.")
    parser.add_argument("--listen", metavar="ADDRESS[:PORT]", action="append", type=_listen, default=[],
                        help="where to answer, UDP and TCP; may be given more than once; an IPv6 address with a port: "
                             "[ADDRESS]:PORT")
    parser.add_argument("--zone", default=DEFAULT_ZONE, help="the machines' domain (default: %(default)s)")
    parser.add_argument("--ttl", metavar="SECONDS", type=ttl, default=0,
                        help="how long others may keep an answer (default: not at all)")
    parser.add_argument("--reverse", metavar="NETWORK", action="append", type=_network, default=[],
                        help="a network whose addresses are the machines' alone: none else has a name")
    parser.add_argument("--forward", metavar="ADDRESS[:PORT]", action="append", type=_listen, default=[],
                        help="a server to ask for all other names (default: they are refused)")
    parser.add_argument("--forward-for", metavar="NETWORK", action="append", type=_network, default=[],
                        help="whom to ask it for (default: loopback, private and link-local addresses)")
    parser.add_argument("--table", metavar="PATH", default=TABLE_PATH, help="the table to read (default: %(default)s)")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {resolver.__version__}")
    parsed = parser.parse_args(arguments)
    options = Options(tuple(dict.fromkeys(parsed.listen)), parsed.zone, parsed.ttl, tuple(parsed.reverse),
                      tuple(parsed.forward), tuple(parsed.forward_for) or PRIVATE, parsed.table)
    try:
        check(options)
    except ValueError as error:
        parser.error(str(error))
    return options


def check(options: Options) -> None:
    """ValueError says what is wrong."""
    if not options.listen:
        raise ValueError("nowhere to listen: give --listen")
    if loop := set(options.listen) & set(options.forward):
        raise ValueError(f"{loop.pop()} would be asked for what it asks for")
    options.make_zone()


def _listen(text: str) -> Listen:
    return Listen.parse(text)


def ttl(text: str) -> int:
    """Seconds. ValueError where it is none."""
    seconds = int(text)
    if not 0 <= seconds <= TTL_MAX:
        raise ValueError
    return seconds


def _network(text: str) -> Network:
    return ipaddress.ip_network(text)
