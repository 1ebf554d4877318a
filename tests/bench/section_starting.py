# SPDX-License-Identifier: MIT
"""The daemon with no machines: how long until it is ready, how much memory."""

import statistics
import time
from collections.abc import Iterator

from tests.bench.figures import Row, figure
from tests.bench.memory import memory_rows, processor_time
from tests.bench.settings import Settings
from tests.lab import TestHost

TITLE = "Starting, and memory"

STARTS = 9
READY = figure(0.25)
MEMORY = figure(48)


def run(settings: Settings) -> Iterator[Row]:
    # mymachines-userdb is a unit of its own where systemd runs; elsewhere the daemon starts it, and is then ready.
    for what, arguments, aims in (("from exec to ready", ["--no-userdb"], (READY,)),
                                  ("from exec to ready, userdb process too", [], ())):
        times, used = [], []
        for _ in range(min(STARTS, settings.processes)):
            with TestHost() as host:
                begin = time.monotonic()
                daemon = host.start_daemon(None, *arguments)
                times.append(time.monotonic() - begin)
                used.append(processor_time(daemon.pid))
        yield Row(what, statistics.median(times), "s", quietest=min(times), p99=max(times), machines=0, aims=aims)
        yield Row("of that, the daemon's processor time", statistics.median(used), "s", quietest=min(used), machines=0)
    with TestHost() as host:
        daemon = host.start_daemon()
        yield from memory_rows(host, daemon, 0, MEMORY)
