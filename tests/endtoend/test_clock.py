# SPDX-License-Identifier: MIT
"""The wall clock jumps, by injection: the machine's own is not a test's to set. A daemon that believes in another time
registers, restarts and looks up as ever; nothing of a machine but the time that is told of it comes from that clock."""

import sys

import pytest

from tests.endtoend.conftest import World
from tests.lab import TestHost
from tests.soak.state import Place

JUMPED = """
import sys, time
offset = int(sys.argv.pop(1))
real, real_ns, real_clock = time.time, time.time_ns, time.clock_gettime_ns
time.time = lambda: real() + offset
time.time_ns = lambda: real_ns() + offset * 10**9
time.clock_gettime_ns = lambda clock: real_clock(clock) + (offset * 10**9 if clock == time.CLOCK_REALTIME else 0)
from resolver.daemon import main
sys.exit(main())
"""

YEAR = 365 * 86400


def jumped(seconds: int) -> list[str]:
    return [sys.executable, "-c", JUMPED, str(seconds)]


@pytest.mark.parametrize("jump", [-20 * YEAR, YEAR], ids=["back", "forth"])
def test_machines_outlive_a_restart_at_another_time(host: TestHost, jump: int) -> None:
    world, place = World(host, host.start_daemon()), Place(host)
    first, second = world.machine("first"), host.container("second")
    before = place.snapshot(first, second)
    world.daemon.kill9()
    world.daemon = host.start_daemon(jumped(jump))
    assert place.snapshot(first, second) == before
    world.register(second)  # at that time: before the first one, by the wall clock
    whole = place.snapshot(first, second)
    assert list(whole["list"]) == ["first", "second"]
    assert world.getent("hosts", "second") == [f"{second.ipv6} second"]
    for offset in (0, jump, -jump // 2):
        world.daemon.kill9()
        world.daemon = host.start_daemon(jumped(offset))
        assert place.snapshot(first, second) == whole
        assert list(place.listed()) == ["first", "second"]  # the order of registration, which decides who owns what
    world.ctl("unregister", "first")
    world.ctl("unregister", "second")
    assert place.listed() == {}
