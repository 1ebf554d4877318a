# SPDX-License-Identifier: MIT
"""What a registration costs with few machines, beside systemd-machined: answered only when all can look it up."""

import statistics
from collections.abc import Iterator
from contextlib import ExitStack

from tests.bench.figures import Aim, Pairs, Row, figure, in_turns
from tests.bench.leaders import Leaders
from tests.bench.memory import processor_time
from tests.bench.peers import machined_host
from tests.bench.programs import Registered
from tests.bench.settings import Settings
from tests.lab import Daemon, TestHost

TITLE = "Registering"

FEW = 10
MILLISECOND = 1e6
"""In nanoseconds, for all rows here."""
REGISTER = figure(0.5)


def run(settings: Settings) -> Iterator[Row]:
    with ExitStack() as stack:
        ours = stack.enter_context(TestHost())
        theirs = stack.enter_context(machined_host())
        leaders = stack.enter_context(Leaders(settings.programs, ours, FEW + 1, FEW + 1, units=True))
        daemon = ours.start_daemon()
        settings.programs.register(ours, "varlink", leaders.machines[:FEW])
        settings.programs.register(theirs, "dbus", leaders.machines[:FEW])
        yield from register_rows(settings, ours, daemon, theirs, leaders.machines[FEW], FEW, REGISTER)


def register_rows(settings: Settings, ours: TestHost, daemon: Daemon, theirs: TestHost, machine: tuple[str, int],
                  machines: int, aim: Aim) -> Iterator[Row]:
    """One more machine comes and goes, over a connection that stays, on each of the hosts in turn."""
    calls = settings.slow(50)

    used: list[float] = []

    def register(host: TestHost, protocol: str) -> Registered:
        return settings.programs.register(host, protocol, [machine], rounds=calls)

    def register_ours() -> Registered:
        before = processor_time(daemon.pid)
        done = register(ours, "varlink")
        used.append((processor_time(daemon.pid) - before) * 1000 / calls)
        return done

    pairs = in_turns(settings.rounds, register_ours, lambda: register(theirs, "dbus"))
    medians = Pairs.of((a.median / MILLISECOND, b.median / MILLISECOND) for a, b in pairs)
    p99 = sorted(a.p99 for a, _ in pairs)[len(pairs) // 2] / MILLISECOND
    yield Row.of_pairs("Register over Varlink", "ms", "machined, D-Bus", medians, aim, p99=p99, machines=machines)
    yield Row("Register and Unregister: the daemon's processor time", statistics.median(used), "ms",
              quietest=min(used), machines=machines)
