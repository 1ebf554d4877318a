# SPDX-License-Identifier: MIT
"""Updates as messages (RFC 2136), with dnspython. No input or output.

dnspython's names: `present` and `absent` add prerequisites, `add` and `delete` updates.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.tsig
import dns.update

MARK_LABEL = "_mymachines"
"""Of the name that holds our mark. No machine has it: '_' is in no host name."""

_FORMAT = "mymachines1"


@dataclass(frozen=True, slots=True)
class Mark:
    """The TXT record beside the machines': who owns the host's name, and the digest of what is published below it."""

    owner: str
    digest: str

    def text(self) -> str:
        """In a zone file's form, quoted."""
        return f'"{_FORMAT} owner={self.owner} records={self.digest}"'

    @classmethod
    def parse(cls, text: str) -> "Mark | None":
        """None for what is no mark of ours."""
        words = text.strip('"').split(" ")
        values = dict(word.partition("=")[::2] for word in words[1:])
        if words[0] != _FORMAT or not values.get("owner"):
            return None
        return cls(values["owner"], values.get("records", ""))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a host publishes: the zone, the host's own name in it, and the seconds that others may keep an answer."""

    zone: dns.name.Name
    host: dns.name.Name
    ttl: int

    @property
    def mark(self) -> dns.name.Name:
        return dns.name.from_text(MARK_LABEL, self.host)

    def name(self, machine: str) -> dns.name.Name:
        return dns.name.from_text(machine, self.host)


def update(place: Place, key: dns.tsig.Key | None, known: str | None, mark: Mark | None,
           changes: Mapping[str, frozenset[str]]) -> dns.update.UpdateMessage:
    """An update that is done only where the mark is `known`, as text, None where there is none; `mark` is the next.

    Each name of `changes` then has these addresses and no others.
    """
    message = dns.update.UpdateMessage(place.zone, keyring=key)
    if known is None:
        message.absent(place.mark, dns.rdatatype.TXT)
    else:
        message.present(place.mark, "TXT", known)
        message.delete(place.mark, "TXT")
    if mark is not None:
        message.add(place.mark, place.ttl, "TXT", mark.text())
    for machine, addresses in changes.items():
        name = place.name(machine)
        message.delete(name, "A")
        message.delete(name, "AAAA")
        for address in sorted(addresses):
            message.add(name, place.ttl, "AAAA" if ":" in address else "A", address)
    return message
