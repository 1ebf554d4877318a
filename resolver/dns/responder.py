# SPDX-License-Identifier: MIT
"""Packets in, packets out, and what is kept of them as long as the table stays the same.

Two stores: a packet that comes again, byte for byte but for its id, gets the bytes that it got before; a question that
comes again, in other letters or with other flags, gets the same records. Whoever asks for names that nobody has fills
them with rubbish, so they are small, and thrown away whole when they are full.
"""

import time
from collections.abc import Callable
from typing import Protocol

from dns.rcode import Rcode
from dns.rdatatype import RdataType

from resolver.dns.answers import Answer, Answers, Directory, Zone
from resolver.dns.wire import (
    CLASS_IN,
    TCP_SIZE,
    BadQuery,
    Query,
    Sections,
    name_of,
    parse,
    response,
    sections,
)

PACKETS_MAX = 8192
"""Datagrams whose answers are kept. With names of usual length some 2 MB; with the longest of both, 12 MB."""

PACKET_SIZE_MAX = 300
"""Bytes of a query worth keeping: the longest name, and an OPT record."""

QUESTIONS_MAX = 4096
"""Questions whose records are kept: a machine has three or four."""

SERIAL_END = 2**32


class Table(Directory, Protocol):
    """A directory that tells when it changes: equal generations, equal answers."""

    def generation(self) -> bytes: ...


class Responder:
    """`forwards`: what is not ours is another's to answer, and the caller knows whose."""

    def __init__(self, zone: Zone, table: Table, unavailable: type[Exception], forwards: bool = False,
                 clock: Callable[[], float] = time.time) -> None:
        self._zone = zone
        self._table = table
        self._unavailable = unavailable
        self._forwards = forwards
        self._clock = clock
        self._serial = 0
        self._generation: bytes | None = None
        self._sections: dict[bytes, Sections | None] = {}
        self.known: dict[bytes, bytes] = {}
        """For datagrams: what follows the id of a query -> what follows it in the response. Call refresh() before."""

    def refresh(self) -> None:
        """Look whether the table has changed. Once for many packets that came together is enough."""
        generation = self._table.generation()
        if generation == self._generation:
            return
        self._generation = generation
        # It moves forward with each change that is noticed, also over a restart of this process (RFC 1982).
        self._serial = max(self._serial + 1, int(self._clock())) % SERIAL_END
        self._answers = Answers(self._zone, self._table, self._unavailable, self._serial)
        self._sections.clear()
        self.known.clear()

    def respond_datagram(self, packet: bytes) -> bytes | Query:
        """The response, empty for none; the query where it is to be forwarded."""
        answer = self._respond(packet, None)
        if isinstance(answer, bytes) and answer and len(packet) <= PACKET_SIZE_MAX:
            if len(self.known) >= PACKETS_MAX:
                self.known.clear()
            self.known[packet[2:]] = answer[2:]
        return answer

    def respond_message(self, packet: bytes) -> bytes | Query:
        """The same for a message of a stream."""
        self.refresh()
        return self._respond(packet, TCP_SIZE)

    def fail(self, query: Query, rcode: Rcode) -> bytes:
        """A response that says no more than this."""
        return response(query, Sections(rcode & 15, (0, 0), b"", rcode >> 4), TCP_SIZE, self._forwards)

    def _respond(self, packet: bytes, size: int | None) -> bytes | Query:
        try:
            query = parse(packet)
        except BadQuery as error:
            return error.response
        if query.edns is not None and query.edns.version > 0:
            return self.fail(query, Rcode.BADVERS)
        body = self._find(query)
        if body is None:
            return query if self._forwards else self.fail(query, Rcode.REFUSED)
        return response(query, body, size or query.udp_size, self._forwards)

    def _find(self, query: Query) -> Sections | None:
        # Bytes of lengths and types are no letters within a name; the type and class behind it are kept as they are.
        key = query.name.lower() + query.question[-4:]
        try:
            return self._sections[key]
        except KeyError:
            pass
        body = self._make(query)
        if len(self._sections) >= QUESTIONS_MAX:
            self._sections.clear()
        self._sections[key] = body
        return body

    def _make(self, query: Query) -> Sections | None:
        if query.rdclass != CLASS_IN:
            return Sections(Rcode.REFUSED, (0, 0), b"")
        answer = self._answers.answer(name_of(query.name), RdataType.make(query.rdtype))
        if answer is None:
            return None
        authoritative = answer.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN)
        return sections(query, answer if authoritative else Answer(answer.rcode), authoritative)
