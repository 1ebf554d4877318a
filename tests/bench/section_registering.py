# SPDX-License-Identifier: MIT
"""What a registration costs with few machines, beside systemd-machined: answered only when all can look it up."""

from collections.abc import Iterator
from contextlib import ExitStack

from tests.bench.figures import Pairs, Row, figure, in_turns
from tests.bench.leaders import Leaders
from tests.bench.peers import machined_host
from tests.bench.programs import Registered
from tests.bench.settings import Settings
from tests.lab import TestHost

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
        ours.start_daemon()
        settings.programs.register(ours, "varlink", leaders.machines[:FEW])
        settings.programs.register(theirs, "dbus", leaders.machines[:FEW])
        yield register_row(settings, ours, theirs, leaders.machines[FEW], FEW)


def register_row(settings: Settings, ours: TestHost, theirs: TestHost, machine: tuple[str, int], machines: int,
                 limit: float = REGISTER.at_most) -> Row:
    """One more machine comes and goes, over a connection that stays, on each of the hosts in turn."""
    calls = settings.slow(50)

    def register(host: TestHost, protocol: str) -> Registered:
        return settings.programs.register(host, protocol, [machine], rounds=calls)

    pairs = in_turns(settings.rounds, lambda: register(ours, "varlink"), lambda: register(theirs, "dbus"))
    medians = Pairs.of((a.median / MILLISECOND, b.median / MILLISECOND) for a, b in pairs)
    p99 = sorted(a.p99 for a, _ in pairs)[len(pairs) // 2] / MILLISECOND
    return Row.of_pairs("Register over Varlink", "ms", "machined, D-Bus", medians, figure(limit), p99=p99,
                        machines=machines)
