# SPDX-License-Identifier: MIT
"""Question in, records out."""

import ipaddress
from typing import Any

import dns.name
import dns.rdata
import pytest
from dns.rcode import Rcode
from dns.rdatatype import RdataType

from resolver.core.registry import Registry
from resolver.dns.answers import Answer, Answers, Host, Record, Zone, reverse_apex
from resolver.dns.options import Listen, Options, parse, zone_name
from tests.dns.serving import machine

ZONE = "machines.internal."
SOA = f"{ZONE} SOA {ZONE} hostmaster.{ZONE} 7 3600 600 86400 0"


class GoneError(Exception):
    """The directory cannot tell."""


class Machines:
    """A directory straight from a registry."""

    def __init__(self, *machines: tuple[str, ...]) -> None:
        self._registry = Registry()
        self.gone = False
        for number, (name, *addresses) in enumerate(machines):
            self._registry.add(machine(name, *addresses, number=number + 2))

    def host_by_name(self, name: str) -> Host | None:
        return self._host(self._registry.by_name(name))

    def host_by_address(self, family: int, packed: bytes) -> Host | None:
        return self._host(self._registry.by_address(family, packed))

    def names(self) -> list[str]:
        return [entry.machine.name.lower() for entry in self._registry]

    def _host(self, entry: Any) -> Host | None:
        if self.gone:
            raise GoneError
        return None if entry is None else (entry.machine.name, entry.addresses)


MACHINES = [
    ("web", "10.1.2.3", "10.1.2.4", "fd00::1", "fe80::1%7"),
    ("Four", "10.1.2.5"),
    ("bare",),
    ("local", "169.254.3.4", "fe80::2%7"),
    ("deep.er.down", "10.1.2.6"),
]


def answers(directory: Machines | None = None, **zone: Any) -> Answers:
    zone = {"addresses": (bytes((10, 1, 2, 1)),), **zone}
    return Answers(Zone(dns.name.from_text(ZONE), **zone), directory or Machines(*MACHINES), GoneError, 7)


def ask(name: str, rdtype: str, source: Answers | None = None) -> Answer | None:
    qualified = dns.name.from_text(name if name.endswith(".") else f"{name}.{ZONE}")
    return (source or answers()).answer(qualified, RdataType.from_text(rdtype) if rdtype != "0" else RdataType.NONE)


def texts(records: Any) -> list[str]:
    return [f"{record.owner} {record.rdtype.name} {_rdata(record)}" for record in records]


def _rdata(record: Record) -> str:
    return dns.rdata.from_wire("IN", record.rdtype, record.data, 0, len(record.data)).to_text()


@pytest.mark.parametrize(("name", "rdtype", "expected"), [
    ("web", "A", ["10.1.2.3", "10.1.2.4"]),
    ("web", "AAAA", ["fd00::1"]),
    ("WEB", "A", ["10.1.2.3", "10.1.2.4"]),
    ("four", "A", ["10.1.2.5"]),
    ("deep.er.down", "A", ["10.1.2.6"]),
    ("web", "ANY", ["10.1.2.3", "10.1.2.4"]),   # RFC 8482: one set is enough
    (ZONE, "A", ["10.1.2.1"]),
    (ZONE, "NS", [ZONE]),
    (ZONE, "SOA", [SOA.split(" SOA ")[1]]),
    (ZONE, "ANY", [SOA.split(" SOA ")[1]]),
    ("3.2.1.10.in-addr.arpa.", "PTR", [f"web.{ZONE}"]),
    ("3.2.1.10.in-addr.arpa.", "NS", [ZONE]),
    ("3.2.1.10.IN-ADDR.arpa.", "PTR", [f"web.{ZONE}"]),
    ("6.2.1.10.in-addr.arpa.", "PTR", [f"deep.er.down.{ZONE}"]),
    ("5.2.1.10.in-addr.arpa.", "PTR", [f"Four.{ZONE}"]),
    (f"{'.'.join(reversed(ipaddress.ip_address('fd00::1').exploded.replace(':', '')))}.ip6.arpa.", "PTR",
     [f"web.{ZONE}"]),
])
def test_records(name: str, rdtype: str, expected: list[str]) -> None:
    answer = ask(name, rdtype)
    assert answer is not None
    assert answer.rcode == Rcode.NOERROR
    assert [text.split(" ", 2)[2] for text in texts(answer.answer)] == expected
    assert answer.authority == ()


@pytest.mark.parametrize(("name", "rdtype"), [
    ("web", "MX"), ("four", "AAAA"), ("bare", "A"), ("bare", "ANY"), ("local", "A"), ("local", "AAAA"),
    ("er.down", "A"), ("down", "ANY"), ("DOWN", "TXT"), (ZONE, "AAAA"), (ZONE, "DS")])
def test_there_but_not_of_that_type(name: str, rdtype: str) -> None:
    answer = ask(name, rdtype)
    assert answer is not None
    assert (answer.rcode, answer.answer, texts(answer.authority)) == (Rcode.NOERROR, (), [SOA])


@pytest.mark.parametrize("name", [
    "nobody", "x.web", "www.web", "eb", "deep", "x.deep.er.down", "deep\\.er.down", "w\\000eb", "w\\255eb", "_web",
    "m" * 63, ".".join(["m" * 20] * 8), "*", "web\\.machines.internal"])
@pytest.mark.parametrize("rdtype", ["A", "PTR", "ANY"])
def test_not_there(name: str, rdtype: str) -> None:
    answer = ask(name, rdtype)
    assert answer is not None
    assert (answer.rcode, answer.answer, texts(answer.authority)) == (Rcode.NXDOMAIN, (), [SOA])


@pytest.mark.parametrize("name", [
    ".", "web.", "internal.", "machines.", "example.com.", "xmachines.internal.", "machines.internal.example.",
    "in-addr.arpa.", "10.in-addr.arpa.", "9.2.1.10.in-addr.arpa.", "4.3.254.169.in-addr.arpa.x.",
    "x.3.2.1.10.in-addr.arpa.",
    "03.2.1.10.in-addr.arpa.", "300.2.1.10.in-addr.arpa.", "ip6.arpa.", "zz.ip6.arpa.", f"{'0.' * 31}ip6.arpa.",
    "3.2.1.10.ip6.arpa.", f"{'0.' * 33}ip6.arpa."])
def test_others(name: str) -> None:
    assert ask(name, "PTR") is None
    assert ask(name, "A") is None


def test_an_address_is_a_zone_of_its_own() -> None:
    answer = ask("3.2.1.10.in-addr.arpa.", "A")
    assert answer is not None
    assert (answer.rcode, answer.answer) == (Rcode.NOERROR, ())
    assert answer.authority[0].owner == dns.name.from_text("3.2.1.10.in-addr.arpa.")


@pytest.mark.parametrize(("name", "rcode"), [
    ("3.2.1.10.in-addr.arpa.", Rcode.NOERROR), ("1.10.in-addr.arpa.", Rcode.NOERROR),
    ("2.1.10.in-addr.arpa.", Rcode.NOERROR), ("9.2.1.10.in-addr.arpa.", Rcode.NXDOMAIN),
    ("x.9.2.1.10.in-addr.arpa.", Rcode.NXDOMAIN), ("300.1.10.in-addr.arpa.", Rcode.NXDOMAIN),
    ("x.1.10.in-addr.arpa.", Rcode.NXDOMAIN), ("2.10.in-addr.arpa.", None)])
def test_a_network_that_is_the_machines_alone(name: str, rcode: Rcode | None) -> None:
    source = answers(reverse=(reverse_apex(ipaddress.ip_network("10.1.0.0/16")),))
    answer = ask(name, "TXT", source)
    assert (None if answer is None else answer.rcode) == rcode
    if answer is not None:
        assert answer.authority[0].owner == dns.name.from_text("1.10.in-addr.arpa.")


@pytest.mark.parametrize(("network", "apex"), [
    ("10.0.0.0/8", "10.in-addr.arpa."), ("10.1.2.0/24", "2.1.10.in-addr.arpa."), ("fd00::/8", "d.f.ip6.arpa."),
    ("fd00:1::/36", "0.1.0.0.0.0.0.d.f.ip6.arpa."), ("10.0.0.0/9", None), ("fd00::/9", None), ("0.0.0.0/0", None)])
def test_reverse_zones(network: str, apex: str | None) -> None:
    if apex is None:
        with pytest.raises(ValueError, match="prefix"):
            reverse_apex(ipaddress.ip_network(network))
    else:
        assert reverse_apex(ipaddress.ip_network(network)).to_text() == apex


@pytest.mark.parametrize(("rdtype", "rcode"), [
    ("AXFR", Rcode.REFUSED), ("IXFR", Rcode.REFUSED), ("OPT", Rcode.FORMERR), ("TSIG", Rcode.FORMERR),
    ("MAILB", Rcode.NOTIMP), ("0", Rcode.FORMERR)])
def test_types_that_no_record_has(rdtype: str, rcode: Rcode) -> None:
    assert ask("web", rdtype) == Answer(rcode)


def test_where_nobody_can_tell() -> None:
    directory = Machines(*MACHINES)
    directory.gone = True
    source = answers(directory)
    assert ask("web", "A", source) == Answer(Rcode.SERVFAIL)
    assert ask("3.2.1.10.in-addr.arpa.", "PTR", source) is None
    answer = ask(ZONE, "SOA", source)
    assert answer is not None
    assert answer.rcode == Rcode.NOERROR


def test_ttl() -> None:
    source = answers(ttl=30)
    found, missing = ask("web", "A", source), ask("nobody", "A", source)
    assert found is not None
    assert missing is not None
    assert [record.ttl for record in (*found.answer, *missing.authority)] == [30, 30, 30]
    assert texts(missing.authority)[0].endswith(" 86400 30")


def test_bare_names() -> None:
    source = answers()
    answer = source.answer_machine(dns.name.from_text("web."), RdataType.A)
    assert answer is not None
    assert len(answer.answer) == 2
    for other in ("x.web.", "nobody.", ".", "er.down."):
        assert source.answer_machine(dns.name.from_text(other), RdataType.A) is None


# --- options ---

@pytest.mark.parametrize(("text", "expected"), [
    ("10.0.0.1", Listen("10.0.0.1")), ("10.0.0.1:5353", Listen("10.0.0.1", 5353)), ("::1", Listen("::1")),
    ("[::1]:5353", Listen("::1", 5353)), ("[fe80::1%br0]:53", Listen("fe80::1", 53, "br0")),
    ("fe80::1%br0", Listen("fe80::1", 53, "br0")), ("[::]", Listen("::"))])
def test_where_to_listen(text: str, expected: Listen) -> None:
    assert Listen.parse(text) == expected


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0.1:", "10.0.0.1:x", "10.0.0.1:65536", "[::1", "[::1]x",
                                  "1:2:3"])
def test_nowhere_to_listen(text: str) -> None:
    with pytest.raises(ValueError):
        Listen.parse(text)


@pytest.mark.parametrize("arguments", [
    [], ["--listen=127.0.0.1", "--forward=127.0.0.1"], ["--listen=x"], ["--listen=127.0.0.1", "--zone=."],
    ["--listen=127.0.0.1", "--zone=a..b"], ["--listen=127.0.0.1", "--ttl=-1"],
    ["--listen=127.0.0.1", "--reverse=10.0.0.0/9"], ["--listen=127.0.0.1", "--reverse=10.0.0.1/8"]])
def test_wrong_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(arguments)
    assert left.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_the_zones_own_addresses_are_those_that_mean_something_to_others() -> None:
    options = Options(tuple(map(Listen, ("0.0.0.0", "127.0.0.1", "10.1.2.1", "fe80::1", "::", "fd00::1", "10.1.2.1"))))
    assert options.make_zone().addresses == (bytes((10, 1, 2, 1)), ipaddress.ip_address("fd00::1").packed)
    assert zone_name("lab").to_text() == "lab."
