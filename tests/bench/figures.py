# SPDX-License-Identifier: MIT
"""What is measured, beside what, with which aim: values and their arithmetic, nothing else."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, TypeVar

T = TypeVar("T")


class Aim(NamedTuple):
    """The figure itself, or its ratio to the peer's, is to be at most this."""

    of: Literal["figure", "ratio"]
    at_most: float


def figure(at_most: float) -> Aim:
    return Aim("figure", at_most)


def ratio(at_most: float) -> Aim:
    return Aim("ratio", at_most)


def times_faster(times: float) -> Aim:
    return Aim("ratio", 1 / times)


class Pairs(NamedTuple):
    """Medians over pairs; `ratio` is the median of the pairs' ratios, ours divided by theirs: noise hits both alike.

    `quietest` is the least of ours: where the machine had other work, nearest to what it would be without.
    """

    ours: float
    theirs: float
    ratio: float
    quietest: float

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, float]]) -> "Pairs":
        pairs = list(pairs)
        return cls(statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs),
                   statistics.median(a / b for a, b in pairs), min(a for a, _ in pairs))


def in_turns(rounds: int, ours: Callable[[], T], theirs: Callable[[], T]) -> list[tuple[T, T]]:
    """So many pairs (ours, theirs), measured one after the other; who is first changes each time."""
    pairs = []
    for number in range(rounds):
        if number % 2:
            second = theirs()
            pairs.append((ours(), second))
        else:
            first = ours()
            pairs.append((first, theirs()))
    return pairs


def percentile(values: Sequence[float], hundredths: float) -> float:
    """The smallest value that so many hundredths of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-len(ordered) * hundredths // 100) - 1))]


@dataclass(frozen=True)
class Row:
    """One line of the table. Smaller is better in all of them. `ours` and `theirs` in `unit`."""

    what: str
    ours: float
    unit: str
    peer: str = ""
    theirs: float | None = None
    ratio: float | None = None
    quietest: float | None = None
    p99: float | None = None
    machines: int | None = None
    aims: tuple[Aim, ...] = ()

    @classmethod
    def of_pairs(cls, what: str, unit: str, peer: str, pairs: Pairs, *aims: Aim, p99: float | None = None,
                 machines: int | None = None) -> "Row":
        return cls(what, pairs.ours, unit, peer, pairs.theirs, pairs.ratio, pairs.quietest, p99, machines, aims)

    def measured(self, aim: Aim) -> float:
        value = self.ours if aim.of == "figure" else self.ratio
        if value is None:
            raise ValueError(f"{self.what!r} is compared with nothing")
        return value

    def met(self, aim: Aim) -> bool:
        return self.measured(aim) <= aim.at_most

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "aims": [aim._asdict() | {"met": self.met(aim)} for aim in self.aims]}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Row":
        aims = tuple(Aim(aim["of"], aim["at_most"]) for aim in fields["aims"])
        return cls(**{**fields, "aims": aims})
