# SPDX-License-Identifier: MIT
"""The site's DNS server, asked over TCP: messages are large, and each question is to be answered once."""

import asyncio
from collections.abc import Mapping
from typing import NoReturn

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.update
import dns.xfr
import dns.zone
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from resolver.dns.publish.messages import Place

ANSWER_SECONDS = 10.0
"""For an answer. A server that applies an update writes its journal to disk first."""

TRANSFER_SECONDS = 60.0
"""For a whole zone: 100,000 names are some 5 MB."""


class ServerError(Exception):
    """The server did not do it, and may later."""


class Refused(ServerError):
    """The server does not let us: what it is told or we are configured with has to change."""


class MarkDiffers(ServerError):
    """A prerequisite failed: the mark there is not what we knew."""


_REFUSED = {dns.rcode.REFUSED, dns.rcode.NOTAUTH, dns.rcode.NOTZONE, dns.rcode.FORMERR, dns.rcode.NOTIMP}
_DIFFERS = {dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN}


class Server:
    """One server, by its address; `key` signs, and checks what comes back."""

    def __init__(self, address: str, port: int, place: Place, key: dns.tsig.Key | None) -> None:
        self._address = address
        self._port = port
        self._place = place
        self._key = key

    async def update(self, message: dns.update.UpdateMessage) -> None:
        """Have it done, whole or not at all. ServerError; the update may then have been done all the same."""
        await self._ask(message)

    async def mark(self) -> str | None:
        """The text of the mark beside our records, None where there is none. ServerError."""
        query = dns.message.make_query(self._place.mark, dns.rdatatype.TXT)
        query.flags = 0  # of this server's own knowledge
        if self._key is not None:
            query.use_tsig(self._key)
        reply = await self._ask(query)
        found = reply.get_rrset(reply.answer, self._place.mark, query.question[0].rdclass, dns.rdatatype.TXT)
        return None if found is None else sorted(rdata.to_text() for rdata in found)[0]

    async def records(self) -> dict[str, frozenset[str]]:
        """What is published below the host's name, read back by a zone transfer (AXFR, RFC 5936). ServerError."""
        place = self._place
        zone = dns.zone.Zone(place.zone)
        query, _ = dns.xfr.make_query(zone, keyring=self._key)
        try:
            async with asyncio.timeout(TRANSFER_SECONDS):
                # Its own deadline is asyncio.wait_for(), which loses a cancellation now and then before Python 3.12.
                await dns.asyncquery.inbound_xfr(self._address, zone, query, port=self._port, timeout=None)
        except dns.xfr.TransferError as error:
            text = f"a transfer of {place.zone} is answered {dns.rcode.to_text(error.rcode)}"
            raise (Refused if error.rcode in _REFUSED else ServerError)(text) from None
        except (dns.exception.DNSException, OSError, EOFError, TimeoutError) as error:
            _failed(error)
        return records_in(zone, place)

    async def _ask(self, message: dns.message.Message) -> dns.message.Message:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reply = await dns.asyncquery.tcp(message, self._address, port=self._port, timeout=None)
        except (dns.exception.DNSException, OSError, EOFError, TimeoutError) as error:
            _failed(error)
        code = reply.rcode()
        text = dns.rcode.to_text(code)
        if code in _DIFFERS and isinstance(message, dns.update.UpdateMessage):
            raise MarkDiffers(text)
        if code in _REFUSED:
            raise Refused(f"it answers {text}: does it serve {self._place.zone}, and may this key change it?")
        if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise ServerError(f"it answers {text}")
        return reply


def records_in(zone: dns.zone.Zone, place: Place) -> dict[str, frozenset[str]]:
    """The addresses below the host's name, by what precedes it there."""
    found: dict[str, set[str]] = {}
    for name, _, rdata in zone.iterate_rdatas():
        whole = name.derelativize(place.zone)
        if isinstance(rdata, (A, AAAA)) and whole != place.host and whole.is_subdomain(place.host):
            found.setdefault(whole.relativize(place.host).to_text().lower(), set()).add(rdata.address)
    return {name: frozenset(addresses) for name, addresses in found.items()}


_KEY_TROUBLE: Mapping[type[dns.exception.DNSException], str] = {
    dns.tsig.PeerBadKey: "it does not know this key",
    dns.tsig.PeerBadSignature: "it knows a key of this name with another secret",
    dns.tsig.PeerBadTime: "its clock and ours differ",
    dns.tsig.PeerBadTruncation: "it wants longer signatures",
    dns.tsig.BadSignature: "its answer is signed with another secret",
    dns.tsig.BadTime: "its clock and ours differ",
    dns.message.UnknownTSIGKey: "its answer is signed with a key that we do not have",
}


def _failed(error: Exception) -> NoReturn:
    for kind, meaning in _KEY_TROUBLE.items():
        if isinstance(error, kind):
            raise Refused(meaning) from None
    if isinstance(error, (dns.exception.Timeout, TimeoutError)):
        raise ServerError("no answer in time") from None
    raise ServerError(str(error) or type(error).__name__) from None
