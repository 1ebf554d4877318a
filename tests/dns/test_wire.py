# SPDX-License-Identifier: MIT
"""Packets in, packets out; dnspython, which reads and writes them its own way, is the judge."""

import ipaddress
import random
import struct
from typing import Any

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import pytest
from dns.rcode import Rcode
from hypothesis import given
from hypothesis import strategies as st

from resolver.dns.answers import Zone
from resolver.dns.limiter import EXCESS_MAX, SOURCES_MAX, Limiter, Verdict
from resolver.dns.responder import PACKETS_MAX, QUESTIONS_MAX, Responder
from resolver.dns.wire import BadQuery, Query, parse, truncated
from tests.dns.fuzz import mutate, seeds
from tests.dns.serving import machine
from tests.dns.test_answers import MACHINES, ZONE, GoneError, Machines


class Table(Machines):
    state = b"1"

    def generation(self) -> bytes:
        return self.state


def responder(forwards: bool = False, table: Table | None = None) -> Responder:
    made = Responder(Zone(dns.name.from_text(ZONE)), table or Table(*MACHINES), GoneError, forwards, lambda: 1000.0)
    made.refresh()
    return made


def query(name: str, rdtype: str = "A", **options: Any) -> dns.message.Message:
    return dns.message.make_query(name if name.endswith(".") else f"{name}.{ZONE}", rdtype, **options)


def respond(asked: dns.message.Message, by: Responder | None = None, stream: bool = False) -> dns.message.Message:
    server = by or responder()
    packet = asked.to_wire()
    wire = server.respond_message(packet) if stream else server.respond_datagram(packet)
    assert isinstance(wire, bytes)
    answer = dns.message.from_wire(wire)
    assert asked.is_response(answer)
    return answer


def test_an_answer() -> None:
    answer = respond(query("web"))
    assert answer.flags == dns.flags.QR | dns.flags.AA | dns.flags.RD
    assert answer.rcode() == Rcode.NOERROR
    assert [rrset.to_text() for rrset in answer.answer] == [f"web.{ZONE} 0 IN A 10.1.2.3\nweb.{ZONE} 0 IN A 10.1.2.4"]
    assert answer.edns == -1


def test_no_such_name() -> None:
    answer = respond(query("nobody"))
    assert answer.rcode() == Rcode.NXDOMAIN
    assert [(rrset.name.to_text(), rrset.rdtype.name) for rrset in answer.authority] == [(ZONE, "SOA")]


def test_letters_are_kept() -> None:
    asked = query("wEb.MaChInEs.iNtErNaL.")
    for _ in range(2):  # worked out, and known
        answer = respond(asked)
        assert answer.question[0].name.labels == asked.question[0].name.labels
        assert answer.answer[0].name.labels == asked.question[0].name.labels
    nobody = respond(query("x.MaChInEs.iNtErNaL."))
    assert nobody.authority[0].name.labels[0] == b"MaChInEs"


def test_types_that_are_letters_are_not_mixed_up() -> None:
    """HTTPS is type 65, `A`; type 97 is `a`."""
    by = responder()
    for rdtype in ("HTTPS", "TYPE97", "TYPE16705", "TYPE24929"):
        assert respond(query("web", rdtype), by).question[0].rdtype == dns.rdatatype.from_text(rdtype)
    by.refresh()
    first = query("web", "TYPE65")
    first.id = 0x4141
    assert respond(first, by).id == 0x4141


def test_flags() -> None:
    asked = query("web")
    asked.flags = dns.flags.CD | dns.flags.AD
    assert respond(asked).flags == dns.flags.QR | dns.flags.AA | dns.flags.CD
    assert respond(query("web"), responder(forwards=True)).flags & dns.flags.RA


def test_edns() -> None:
    answer = respond(query("web", use_edns=0, payload=4096, want_dnssec=True))
    assert (answer.edns, answer.payload) == (0, 1232)
    assert answer.ednsflags & dns.flags.DO
    options = [dns.edns.GenericOption("NSID", b"x" * 20)]
    assert respond(query("web", use_edns=0, options=options)).edns == 0


def test_edns_of_another_version() -> None:
    answer = respond(query("web", use_edns=1))
    assert (answer.rcode(), answer.edns, answer.answer) == (Rcode.BADVERS, 0, [])


def many(count: int) -> Table:
    return Table(("many", *(f"10.2.{number >> 8}.{number & 255}" for number in range(count))))


def test_truncation() -> None:
    by = responder(table=many(100))
    plain = respond(query("many"), by)
    assert plain.flags & dns.flags.TC
    assert plain.answer == []
    assert len(respond(query("many"), by, stream=True).answer[0]) == 100
    assert not respond(query("many"), by, stream=True).flags & dns.flags.TC


@pytest.mark.parametrize(("count", "payload", "fits"), [
    (29, None, True), (30, None, False), (28, 512, True), (29, 512, False), (28, 100, True), (70, 65535, True),
    (75, 65535, False)])
def test_how_long_a_datagram_may_be(count: int, payload: int | None, fits: bool) -> None:
    options: dict[str, Any] = {} if payload is None else {"use_edns": 0, "payload": payload}
    wire = responder(table=many(count)).respond_datagram(query("many", **options).to_wire())
    assert isinstance(wire, bytes)
    assert len(wire) <= (512 if payload is None else max(512, min(payload, 1232)))
    assert bool(dns.message.from_wire(wire).flags & dns.flags.TC) is not fits


def test_a_changed_table_is_asked_again() -> None:
    table = Table(*MACHINES)
    by = responder(table=table)
    assert respond(query("new"), by).rcode() == Rcode.NXDOMAIN
    first = respond(query(ZONE, "SOA"), by).answer[0][0].serial
    table._registry.add(machine("new", "10.9.9.9", number=99))
    table.state = b"2"
    by.refresh()
    assert respond(query("new"), by).rcode() == Rcode.NOERROR
    assert respond(query(ZONE, "SOA"), by).answer[0][0].serial > first


@pytest.mark.parametrize(("name", "rdclass"), [("example.com.", "IN"), ("web.", "IN"), ("version.bind.", "CH"),
                                               (f"web.{ZONE}", "CH"), (f"web.{ZONE}", "ANY")])
def test_refused(name: str, rdclass: str) -> None:
    answer = respond(query(name, rdclass=rdclass))
    assert (answer.rcode(), answer.flags & dns.flags.AA) == (Rcode.REFUSED, 0)


def test_forwarded() -> None:
    outcome = responder(forwards=True).respond_datagram(query("example.com.").to_wire())
    assert isinstance(outcome, Query)


NAME = b"\3web\7machines\10internal\0"
QUESTION = NAME + b"\0\1\0\1"


def packet(rest: bytes, questions: int = 1, answers: int = 0, authorities: int = 0, additional: int = 0,
           flags: int = 0) -> bytes:
    return struct.pack("!6H", 77, flags, questions, answers, authorities, additional) + rest


OPT = b"\0\0\x29\4\xd0\0\0\0\0\0\0"


@pytest.mark.parametrize(("wire", "rcode"), [
    (packet(b"", 0), Rcode.FORMERR),
    (packet(QUESTION * 2, 2), Rcode.FORMERR),
    (packet(QUESTION[:-1]), Rcode.FORMERR),
    (packet(QUESTION + b"x"), Rcode.FORMERR),
    (packet(b"\xc0\x0c\0\1\0\1"), Rcode.FORMERR),                       # a name that points to itself
    (packet(b"\3web\xc0\x0c\0\1\0\1"), Rcode.FORMERR),
    (packet(b"\x40a\0\0\1\0\1"), Rcode.FORMERR),                        # label types that were given up
    (packet(b"\x80a\0\0\1\0\1"), Rcode.FORMERR),
    (packet(b"\x3f" + b"a" * 63 + b"\x3f" + b"a" * 63 + b"\x3f" + b"a" * 63 + b"\x3e" + b"a" * 62 + b"\0\0\1\0\1"),
     Rcode.FORMERR),                                                    # 256 octets
    (packet(QUESTION + OPT * 2, additional=2), Rcode.FORMERR),
    (packet(QUESTION + b"\1x" + OPT, additional=1), Rcode.FORMERR),
    (packet(QUESTION + OPT[:-1] + b"\4\0\x0a\0\1", additional=1), Rcode.FORMERR),    # an option longer than its record
    (packet(QUESTION + OPT, authorities=1), Rcode.FORMERR),
    (packet(QUESTION + OPT, additional=2), Rcode.FORMERR),
    (packet(QUESTION, answers=1), Rcode.FORMERR),
    (packet(QUESTION, flags=2 << 11), Rcode.NOTIMP),                    # STATUS
    (packet(QUESTION, flags=4 << 11), Rcode.NOTIMP),                    # NOTIFY
    (packet(QUESTION, flags=5 << 11), Rcode.NOTIMP),                    # UPDATE
    (packet(QUESTION, flags=15 << 11), Rcode.NOTIMP),
])
def test_what_cannot_be_read(wire: bytes, rcode: Rcode) -> None:
    answer = responder().respond_datagram(wire)
    assert isinstance(answer, bytes)
    assert len(answer) <= len(wire)
    assert (answer[:2], answer[3] & 15, answer[2] & 0x80) == (wire[:2], rcode, 0x80)


@pytest.mark.parametrize("wire", [b"", b"x", bytes(11), packet(QUESTION, flags=0x8000), b"\xff" * 100])
def test_what_is_not_answered(wire: bytes) -> None:
    assert responder().respond_datagram(wire) == b""


@given(st.binary(max_size=600))
def test_any_bytes(wire: bytes) -> None:
    answer = responder().respond_datagram(wire)
    assert isinstance(answer, bytes)
    assert len(answer) <= 512 or len(wire) > 12


def test_mutations_are_read_as_dnspython_reads_them() -> None:
    """Whatever we take for a query, dnspython does too, with the same question and the same OPT."""
    random_bytes = random.Random(7)
    taken = 0
    by = responder()
    for _ in range(20000):
        wire = mutate(random_bytes, random_bytes.choice(seeds()))
        answer = by.respond_datagram(wire)
        assert isinstance(answer, bytes)
        if answer:
            dns.message.from_wire(answer)
        try:
            read = parse(wire)
        except BadQuery:
            continue
        taken += 1
        try:
            theirs = dns.message.from_wire(wire)
        except (dns.exception.DNSException, ValueError):
            continue    # it looks into the data of records that mean nothing here
        assert theirs.question[0].name.to_wire() == read.name
        assert theirs.question[0].rdtype == read.rdtype
        assert (theirs.edns if theirs.edns >= 0 else None) == (read.edns.version if read.edns else None)
    assert taken > 1000


def test_stores_are_bounded() -> None:
    by = responder()
    for number in range(PACKETS_MAX + 100):
        by.respond_datagram(query(f"n{number}").to_wire())
    assert len(by.known) <= PACKETS_MAX
    assert len(by._sections) <= QUESTIONS_MAX


# --- the limiter ---

def source(text: str) -> bytes:
    address = ipaddress.ip_address(text)
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def test_a_source_gets_its_share_each_second_and_then_each_other_answer_truncated() -> None:
    limiter = Limiter()
    limiter.tick(1.5)
    victim = source("192.0.2.1")
    assert limiter.charge(victim, EXCESS_MAX) is Verdict.ANSWER
    assert [limiter.charge(victim, 1) for _ in range(4)] == [Verdict.TRUNCATE, Verdict.DROP] * 2
    assert limiter.charge(victim, 0) is Verdict.ANSWER      # nobody gains from that
    assert limiter.charge(source("192.0.2.2"), 1) is Verdict.ANSWER
    limiter.tick(2.0)
    assert limiter.charge(victim, 1) is Verdict.ANSWER


def test_a_network_of_64_bits_is_one_source() -> None:
    limiter = Limiter()
    limiter.tick(1)
    assert limiter.charge(source("2001:db8::1"), EXCESS_MAX) is Verdict.ANSWER
    assert limiter.charge(source("2001:db8::ffff:2"), 1) is not Verdict.ANSWER
    assert limiter.charge(source("2001:db8:0:1::1"), 1) is Verdict.ANSWER


def test_loopback_has_no_limit() -> None:
    limiter = Limiter()
    limiter.tick(1)
    for text in ("127.0.0.1", "127.9.9.9", "::1"):
        assert {limiter.charge(source(text), EXCESS_MAX) for _ in range(9)} == {Verdict.ANSWER}


def test_many_sources_share_one_account() -> None:
    limiter = Limiter()
    limiter.tick(1)
    for number in range(SOURCES_MAX + 5000):
        limiter.charge(number.to_bytes(16)[::-1], 100)
    assert len(limiter._spent) <= SOURCES_MAX + 1
    assert limiter.charge(b"\xfe" * 16, EXCESS_MAX) is not Verdict.ANSWER


def test_a_truncated_answer_is_no_longer_than_its_query() -> None:
    asked = query("many").to_wire()
    answer = responder(table=many(20)).respond_datagram(asked)
    assert isinstance(answer, bytes)
    short = truncated(answer)
    assert len(short) == len(asked)
    message = dns.message.from_wire(short)
    assert message.flags & dns.flags.TC
    assert message.question[0].name == query("many").question[0].name
    assert len(truncated(answer[:12])) == 12
