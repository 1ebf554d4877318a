# SPDX-License-Identifier: MIT
"""How much is measured: whole, or in miniature to see that it runs."""

from dataclasses import dataclass, replace
from typing import Any, Self

from tests.bench.programs import Programs


@dataclass(frozen=True)
class Settings:
    programs: Programs
    rounds: int = 7
    """Pairs with the peer."""
    calls: int = 5000
    """Of a microsecond or less, in each round. What takes longer is called less often."""
    processes: int = 31
    """For what happens once in a process."""
    many: int = 10000
    networks: int = 1000
    """Of the many machines, those with network namespaces of their own."""
    some: int = 400
    """What systemd-machined is compared at; with more it takes minutes."""
    events: int = 250
    files: int = 20000
    dns_seconds: int = 5

    def but(self, **changes: Any) -> Self:
        return replace(self, **changes)

    def slow(self, factor: int) -> int:
        """Calls of what takes so many times as long."""
        return max(self.calls // factor, 20)


def miniature(programs: Programs) -> Settings:
    return Settings(programs, rounds=1, calls=100, processes=3, many=20, networks=3, some=6, events=5, files=50,
                    dns_seconds=1)
