# SPDX-License-Identifier: MIT
"""From an address change in a guest to the answer of a look-up in another process."""

import statistics
from collections.abc import Iterator

from tests.bench.figures import Row, figure, percentile
from tests.bench.leaders import Leaders
from tests.bench.settings import Settings
from tests.lab import TestHost

TITLE = "Events"

FEW = 10
MILLISECOND = 1e6
MEDIAN, P99 = figure(2), figure(10)


def run(settings: Settings) -> Iterator[Row]:
    with TestHost() as host, Leaders(settings.programs, host, FEW, FEW) as leaders:
        host.start_daemon()
        settings.programs.register(host, "varlink", leaders.machines)
        yield from visible_rows(settings, host, leaders, FEW)


def visible_rows(settings: Settings, host: TestHost, leaders: Leaders, machines: int) -> Iterator[Row]:
    """Of the first machine; others may be in its network namespace too."""
    times = settings.programs.visible(host, leaders.pids[0], "m0", leaders.address(0, 5), settings.events)
    p99 = percentile(times, 99) / MILLISECOND
    yield Row("address change in a guest to visible, median", statistics.median(times) / MILLISECOND, "ms",
              quietest=min(times) / MILLISECOND, machines=machines, aims=(MEDIAN,))
    yield Row("address change in a guest to visible, 99th percentile", p99, "ms", machines=machines, aims=(P99,))
