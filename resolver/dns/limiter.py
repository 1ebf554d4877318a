# SPDX-License-Identifier: MIT
"""How much a source may have by UDP, whose sources anybody can make up.

What somebody gains who asks in another's name is what an answer is longer than its question. So this is what is
counted, for each address (IPv6: each network of 64 bits, which is one host's), by the second. Where it is used up,
each second answer is only "truncated", no longer than the question, and the others are none: a real client, who may
have lost a few, asks again by TCP, which no one can do for another.
"""

from enum import Enum

EXCESS_MAX = 128 * 1024
"""Bytes that answers to one source may be longer than its questions, in one second: 8,000 answers with an IPv4
address, 1,700 that a name is not there. A busy container asks a tenth of that; a victim notices nothing."""

SOURCES_MAX = 16384
"""Sources counted in one second; what comes from more shares one account. Some 2 MB."""

_MAPPED = bytes(10) + b"\xff\xff"
_LOOPBACK6 = bytes(15) + b"\1"


class Verdict(Enum):
    ANSWER = 0
    TRUNCATE = 1
    DROP = 2


class Limiter:
    """Accounts of the current second."""

    def __init__(self) -> None:
        self._second = -1
        self._spent: dict[bytes, int] = {}
        self._slip = False

    def tick(self, now: float) -> None:
        """Tell the time, in seconds of a clock that does not go back. Once for many packets that came together."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._spent.clear()

    def charge(self, source: bytes, excess: int) -> Verdict:
        """What becomes of an answer to `source` (16 bytes, IPv4 mapped), `excess` bytes longer than its query."""
        if excess <= 0:
            return Verdict.ANSWER
        key = source if source.startswith(_MAPPED) else source[:8]
        spent = self._spent.get(key)
        if spent is None:
            if len(self._spent) >= SOURCES_MAX:
                key = b""
            spent = self._spent.get(key, 0)
        spent += excess
        # Nothing from outside comes with these: the kernel lets no packet of the loopback network in (RFC 1812
        # section 5.3.7).
        if spent <= EXCESS_MAX or source.startswith(_MAPPED + b"\x7f") or source == _LOOPBACK6:
            self._spent[key] = spent
            return Verdict.ANSWER
        self._slip = not self._slip
        return Verdict.TRUNCATE if self._slip else Verdict.DROP
