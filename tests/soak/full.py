# SPDX-License-Identifier: MIT
"""python -m tests.soak.full [--leaders N]: thousands of machines, half of which the daemon has descriptors for.

All are registered by eight clients at once, while a ninth goes on asking; then as many as got in go, and those that
were refused are tried again. What was acknowledged is what is listed, and all others are answered;
tests/endtoend/test_full.py says the same of forty. The real limit of machines takes more processes than a machine may
have (kernel.pid_max).
"""

import argparse
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from resolver.leaders import KEPT_SHARE
from resolver.varlink.client import Client
from tests.bench.leaders import Leaders
from tests.bench.programs import Programs
from tests.endtoend.conftest import MACHINE_SOCKET, World
from tests.endtoend.test_full import CLIENTS, NOT_AVAILABLE, allow, call, first_free
from tests.lab import TestHost, wait_for

LEADERS = 10_000
NETWORKS = 8
"""Network namespaces, which the leaders share; the daemon has a socket for each machine all the same."""

GONE_SECONDS = 120.0
PATIENCE = 60.0


class Asker:
    """Asks for a machine that is there, one call after another; how long each answer took, in seconds."""

    def __init__(self, world: World, name: str) -> None:
        self.took: list[float] = []
        self._path, self._name = f"/proc/{world.host.pid}/root{MACHINE_SOCKET}", name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            with Client(self._path, PATIENCE) as client:
                client.call("io.systemd.Machine.List", {"name": self._name})
            self.took.append(time.monotonic() - began)

    def stop(self) -> str:
        self._stop.set()
        self._thread.join(2 * PATIENCE)
        return (f"{len(self.took)} honest questions meanwhile: {statistics.median(self.took) * 1000:.1f} ms in the"
                f" middle, {max(self.took) * 1000:.0f} ms at most")


def listed(world: World) -> set[str]:
    with Client(f"/proc/{world.host.pid}/root{MACHINE_SOCKET}", PATIENCE) as client:
        return {machine["name"] for machine in client.call_more("io.systemd.Machine.List", {})} - {".host"}


def register(world: World, machines: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Those that got in, with their leaders; all others are told the one thing."""
    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as clients:
        outcomes = list(clients.map(lambda machine: call(world, "Register", {
            "name": machine[0], "class": "container", "leader": machine[1]}), machines))
    assert set(outcomes) <= {"", NOT_AVAILABLE}, set(outcomes)
    taken = dict(machine for machine, error in zip(machines, outcomes, strict=True) if not error)
    print(f"{len(taken)} of {len(machines)} are taken in, the others are told, in {time.monotonic() - began:.1f} s; "
          f"{first_free(world.daemon)} descriptors are open")
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.full", description=__doc__)
    parser.add_argument("--leaders", type=int, default=LEADERS)
    count = parser.parse_args().leaders
    with Programs() as programs, TestHost(run_size="512m") as host, \
            Leaders(programs, host, count, NETWORKS) as leaders:
        world = World(host, host.start_daemon())
        [first, *others] = leaders.machines
        assert register(world, [first])
        allow(world.daemon, (first_free(world.daemon) + count) * KEPT_SHARE // (KEPT_SHARE - 1))
        asker = Asker(world, first[0])
        taken = register(world, others)
        assert listed(world) == {first[0], *taken}
        for leader in taken.values():
            os.kill(leader, signal.SIGKILL)
        wait_for(lambda: listed(world) == {first[0]}, GONE_SECONDS, "those to go whose leaders have ended")
        refused = [machine for machine in others if machine[0] not in taken]
        assert refused, "there was room for all"
        again = register(world, refused)
        assert listed(world) == {first[0], *again}
        print(asker.stop())
        world.daemon.kill9()
        world.restart()
        assert listed(world) == {first[0], *again}
        print(f"{len(again) + 1} machines after a crash")
        assert "failed" not in world.daemon.log
    return 0


if __name__ == "__main__":
    sys.exit(main())
