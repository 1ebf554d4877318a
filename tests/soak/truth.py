# SPDX-License-Identifier: MIT
"""What was true when, what readers were told when, and whether the second follows from the first.

A state of a machine is true from some moment of the change that leads to it, between its `begun` and its `ended`, to
some moment of the next change. So an answer that was asked for from s to e is right if a state fits it whose change had
begun by e, and whose successor's change had not ended before s. Times are CLOCK_MONOTONIC, in nanoseconds.
"""

import ipaddress
import math
import mmap
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

HEAD_READER = struct.Struct("=QIIQ")
RECORD = struct.Struct("=QIIHHI")
READERS_MAX = 256
HEAD_SIZE = 8 + READERS_MAX * HEAD_READER.size

UNAVAIL, NOTFOUND, SUCCESS = 1, 2, 3  # enum nss_status + 2
SLOW_NS = 1_000_000

Answer = tuple[int, int]
"""Status and checksum, as readers.c writes them."""

UNKNOWN_HOST: Answer = (UNAVAIL, 0)
NOBODY: Answer = (NOTFOUND, 0)


def name_answer(name: str) -> Answer:
    return SUCCESS, zlib.crc32(name.encode())


def host_answer(name: str, addresses: Iterable[str]) -> Answer:
    """A machine's name and its addresses; NOTFOUND where it has none."""
    found = [ipaddress.ip_address(text) for text in addresses]
    if not found:
        return NOBODY
    total = zlib.crc32(name.encode())
    for address in found:
        family = 2 if address.version == 4 else 10
        total += zlib.crc32(struct.pack("=I16sI", family, address.packed, 0))
    return SUCCESS, total & 0xffffffff


def id_answer(name: str, gecos: str, number: int) -> Answer:
    return SUCCESS, zlib.crc32(name.encode() + gecos.encode() + struct.pack("=I", number))


class Question(NamedTuple):
    """As readers.c takes it, and whose machine's state decides about it."""

    kind: str
    key: str
    machine: int


@dataclass
class Life:
    """The states of one machine, one after the other. `states` are what `expected` takes."""

    states: list[object] = field(default_factory=list)
    begun: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)

    def change(self, state: object, begun: float, ended: float = math.inf) -> None:
        assert not self.begun or begun >= self.begun[-1]
        self.states.append(state)
        self.begun.append(begun)
        self.ended.append(ended)

    def true_between(self, start: int, end: int) -> Iterator[object]:
        """Every state that may have been true at a moment of it."""
        at = bisect_right(self.begun, end) - 1
        while at >= 0:
            yield self.states[at]
            if self.ended[at] < start:
                return  # the states before had gone by then
            at -= 1


@dataclass
class Verdict:
    """What the check of a log found."""

    look_ups: int = 0
    found: int = 0
    wrong: list[str] = field(default_factory=list)
    wrong_count: int = 0
    unavailable: int = 0
    """Nobody could be asked, where that is allowed."""
    cpu_ns: int = 0
    worst_cpu_ns: int = 0
    slow: int = 0
    """Look-ups of more than a millisecond of processor time. `first_slow` of these are the first ones of a process or
    thread, which may have mapped the table."""
    first_slow: int = 0
    blank_ns: int = 0
    """The same of the nothings, see readers.c."""
    blank_slow: int = 0
    blank_worst_ns: int = 0
    idle_readers: int = 0
    """Readers that looked nothing up."""

    def __str__(self) -> str:
        return (f"{self.look_ups} look-ups ({self.found} found), {self.wrong_count} wrong; processor time "
                f"{self.cpu_ns / self.look_ups:.0f} ns each, worst {self.worst_cpu_ns / 1e6:.3f} ms, {self.slow} over "
                f"1 ms ({self.first_slow} of them first ones); of as many nothings, at the same moments, "
                f"{self.blank_ns / self.look_ups:.0f} ns each, worst {self.blank_worst_ns / 1e6:.3f} ms, "
                f"{self.blank_slow} over 1 ms")


WRONG_SHOWN = 10


def check(log: Path, readers: int, questions: Sequence[Question], lives: Sequence[Life],
          expected: Callable[[Question, object], Answer], unavailable_allowed: bool = False) -> Verdict:
    """Judge every record. `expected` gives a question's answer in a state of its machine."""
    verdict = Verdict()
    known: dict[tuple[int, object], Answer] = {}
    with log.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        records_max = (len(memory) - HEAD_SIZE) // readers // RECORD.size
        for reader in range(readers):
            blank_worst, count, blank_slow, blank_total = HEAD_READER.unpack_from(memory, 8 + reader * HEAD_READER.size)
            verdict.look_ups += count
            verdict.idle_readers += count == 0
            verdict.blank_slow += blank_slow
            verdict.blank_ns += blank_total
            verdict.blank_worst_ns = max(verdict.blank_worst_ns, blank_worst)
            first = HEAD_SIZE + reader * records_max * RECORD.size
            records = RECORD.iter_unpack(memory[first:first + count * RECORD.size])
            for index, (start, took, cpu, number, status, checksum) in enumerate(records):
                verdict.cpu_ns += cpu
                if cpu > SLOW_NS:
                    verdict.slow += 1
                    verdict.first_slow += index == 0
                if cpu > verdict.worst_cpu_ns:
                    verdict.worst_cpu_ns = cpu
                verdict.found += status == SUCCESS
                question = questions[number]
                for state in lives[question.machine].true_between(start, start + took):
                    key = (number, state)
                    answer = known.get(key)
                    if answer is None:
                        answer = known[key] = expected(question, state)
                    if answer == (status, checksum):
                        break
                else:
                    if unavailable_allowed and status == UNAVAIL:
                        verdict.unavailable += 1
                        continue
                    verdict.wrong_count += 1
                    if len(verdict.wrong) < WRONG_SHOWN:
                        states = list(lives[question.machine].true_between(start, start + took))
                        verdict.wrong.append(f"reader {reader}: {question} from {start} for {took} ns: "
                                             f"{(status, checksum)}; true were {states}")
    return verdict
