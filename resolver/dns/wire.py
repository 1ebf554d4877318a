# SPDX-License-Identifier: MIT
"""Queries and responses as bytes (RFC 1035 section 4, EDNS of RFC 6891). No input or output.

dnspython reads and writes messages too, at 50 us and more each; and all that a server of one zone needs of a query is
its question and one OPT record, all that it writes is records whose owners are in the question. So nothing follows a
compression pointer here, and no query takes more time than its length.
"""

import struct
from typing import NamedTuple

import dns.name
from dns.opcode import Opcode
from dns.rcode import Rcode
from dns.rdatatype import RdataType

from resolver.dns.answers import Answer, Record

HEADER_SIZE = 12
NAME_MAX = 255
"""Octets of a name, RFC 1035 section 2.3.4."""

QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
"""Bits of the header's second word; RFC 4035 section 3 has the last two."""

DO = 0x8000
"""Of OPT's TTL: the asker takes DNSSEC records. Copied, as RFC 3225 section 3 wants, though there are none."""

UDP_SIZE = 1232
"""The longest datagram that is sent: what fits IPv6's smallest MTU without fragments (dnsflagday.net/2020)."""

UDP_SIZE_WITHOUT_EDNS = 512
"""RFC 1035 section 4.2.1."""

TCP_SIZE = 65535
"""RFC 1035 section 4.2.2: the length before a message has two octets."""

_HEADER = struct.Struct("!6H")
_TYPE_CLASS = struct.Struct("!2H")
_RECORD = struct.Struct("!2HIH")    # type, class, TTL, length of the data
_OPTION = struct.Struct("!2H")

CLASS_IN = 1


class Edns(NamedTuple):
    payload: int
    version: int
    dnssec: bool


class Query(NamedTuple):
    """`packet` as it came. `question` is its question section, letters as asked; `name` the name alone."""

    packet: bytes
    flags: int
    question: bytes
    name: bytes
    rdtype: int
    rdclass: int
    edns: Edns | None

    @property
    def udp_size(self) -> int:
        """What a datagram that answers may have."""
        if self.edns is None:
            return UDP_SIZE_WITHOUT_EDNS
        return max(UDP_SIZE_WITHOUT_EDNS, min(self.edns.payload, UDP_SIZE))


class BadQuery(Exception):
    """No query that can be answered with records; `response` says why to whom asked, empty where nobody is told."""

    def __init__(self, response: bytes = b"") -> None:
        super().__init__(response)
        self.response = response


def parse(packet: bytes) -> Query:
    """BadQuery for all that is no query with one question."""
    if len(packet) < HEADER_SIZE:
        raise BadQuery
    _, flags, questions, answers, authorities, additional = _HEADER.unpack_from(packet)
    if flags & QR:
        raise BadQuery  # two servers that answer each other's answers never end
    if flags >> 11 & 15 != Opcode.QUERY:
        raise BadQuery(_error(packet, flags, Rcode.NOTIMP))
    try:
        if questions != 1 or answers:   # RFC 9619
            raise ValueError
        name_end = _skip_name(packet, HEADER_SIZE, pointers=False)
        rdtype, rdclass = _TYPE_CLASS.unpack_from(packet, name_end)
        edns = _find_edns(packet, name_end + 4, authorities, additional)
    except (ValueError, IndexError, struct.error):
        raise BadQuery(_error(packet, flags, Rcode.FORMERR)) from None
    return Query(packet, flags, packet[HEADER_SIZE:name_end + 4], packet[HEADER_SIZE:name_end], rdtype, rdclass, edns)


def name_of(wire: bytes) -> dns.name.Name:
    """A name that parse() has let pass."""
    labels, at = [], 0
    while length := wire[at]:
        labels.append(wire[at + 1:at + 1 + length])
        at += 1 + length
    return dns.name.Name((*labels, b""))


class Sections(NamedTuple):
    """The part of a response that is the same whoever asks, and however its letters are written."""

    flags: int
    counts: tuple[int, int]
    records: bytes
    extended_rcode: int = 0


def sections(query: Query, answer: Answer, authoritative: bool = True) -> Sections:
    """Owners are pointers into the question (RFC 1035 section 4.1.4), and so have the letters that were asked for."""
    labels = len(name_of(query.name).labels)
    records = b"".join(_render(query.name, labels, record) for record in (*answer.answer, *answer.authority))
    return Sections((AA if authoritative else 0) | answer.rcode & 15, (len(answer.answer), len(answer.authority)),
                    records, answer.rcode >> 4)


def response(query: Query, body: Sections, size: int, recursion: bool = False) -> bytes:
    """The bytes; where they are more than `size`, without records and marked as truncated."""
    flags = QR | query.flags & (RD | CD) | body.flags | (RA if recursion else 0)
    opt = b"" if query.edns is None else _opt(query.edns, body.extended_rcode)
    if HEADER_SIZE + len(query.question) + len(body.records) + len(opt) > size:
        flags, body = flags | TC, Sections(0, (0, 0), b"")
    counts = (1, *body.counts, 1 if opt else 0)
    return query.packet[:2] + struct.pack("!5H", flags, *counts) + query.question + body.records + opt


def truncated(answer: bytes) -> bytes:
    """A response cut to its header and question, which is no longer than its query, and marked so."""
    flags, = struct.unpack_from("!H", answer, 2)
    try:
        end = _skip_name(answer, HEADER_SIZE, pointers=False) + 4
    except (ValueError, IndexError):
        end = HEADER_SIZE
    question = answer[HEADER_SIZE:end] if end <= len(answer) else b""
    return answer[:2] + struct.pack("!5H", flags | TC, bool(question), 0, 0, 0) + question


def record_wire(record: Record) -> bytes:
    """The record alone, its owner written out."""
    return (record.owner.to_wire() or b"") + _data(record)


def _error(packet: bytes, flags: int, rcode: Rcode) -> bytes:
    """A header alone: whatever follows could not be read."""
    return packet[:2] + struct.pack("!5H", QR | flags & (0x7800 | RD) | rcode, 0, 0, 0, 0)


def _skip_name(packet: bytes, at: int, pointers: bool) -> int:
    """The offset behind a name. ValueError, or IndexError where the packet ends within it."""
    start = at
    while length := packet[at]:
        if length > 63:
            if length < 192 or not pointers:
                raise ValueError("a label of a type that no name here has")
            return at + 2
        at += 1 + length
        if at + 1 - start > NAME_MAX:
            raise ValueError("a name of more than 255 octets")
    return at + 1


def _find_edns(packet: bytes, at: int, authorities: int, additional: int) -> Edns | None:
    edns = None
    for number in range(authorities + additional):
        root = packet[at] == 0
        at = _skip_name(packet, at, pointers=True)
        rdtype, payload, ttl, length = _RECORD.unpack_from(packet, at)
        at += _RECORD.size + length
        if at > len(packet):
            raise ValueError("a record ends behind its packet")
        if rdtype == RdataType.OPT:
            if edns is not None or not root or number < authorities:
                raise ValueError("RFC 6891 section 6.1.1: one OPT, its name the root")
            _check_options(packet[at - length:at])
            edns = Edns(payload, ttl >> 16 & 255, bool(ttl & DO))
    if at != len(packet):
        raise ValueError("bytes behind the last record")
    return edns


def _check_options(data: bytes) -> None:
    at = 0
    while at < len(data):
        _, length = _OPTION.unpack_from(data, at)
        at += _OPTION.size + length
    if at != len(data):
        raise ValueError("an option ends behind its record")


def _opt(edns: Edns, extended_rcode: int) -> bytes:
    return b"\0" + _RECORD.pack(RdataType.OPT, UDP_SIZE, extended_rcode << 24 | (DO if edns.dnssec else 0), 0)


def _render(asked: bytes, asked_labels: int, record: Record) -> bytes:
    offset = 0
    for _ in range(asked_labels - len(record.owner.labels)):
        offset += 1 + asked[offset]
    return struct.pack("!H", 0xC000 | HEADER_SIZE + offset) + _data(record)


def _data(record: Record) -> bytes:
    return _RECORD.pack(record.rdtype, CLASS_IN, record.ttl, len(record.data)) + record.data
