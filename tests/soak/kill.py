# SPDX-License-Identifier: MIT
"""kill -9 at a random moment of a call: the state after the restart is that before it or after it, never else.

    python -m tests.soak.kill [--times 1000] [--seed N] [--without-pidfd-ids]

A real daemon, real containers, calls over Varlink. What is compared is all that there is: the state files, public and
private, links and leftovers; what List says; what the table says. An answered call has happened. Besides calls, two
other moments: a leader dies as the daemon does, and the daemon dies again while it starts.
"""

import argparse
import collections
import random
import resource
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from resolver.varlink.errors import VarlinkError
from tests.lab import Container, Daemon, TestHost, command, wait_for
from tests.soak.state import PRIVATE, PUBLIC, Place, Snapshot

WITHOUT_PIDFD_IDS = [sys.executable, "-c", """
import sys
from resolver.host import process
process.have_pidfd_ids = lambda: False      # as before Linux 6.9
from resolver.daemon import main
sys.exit(main())
"""]

LATEST = 1.3
"""A kill comes within this many times what a call takes, so that some come when it is over."""

WATCHED = [PUBLIC, PRIVATE, None]
"""Most of a call is waiting. So some kills come at a time, others up to STEP_SECONDS after a directory has changed."""
STEP_SECONDS = 0.0005

ACTS = ["call"] * 6 + ["leader", "start"]


class Killing:
    """A host, its daemon, two machines that stay and one, "victim", that comes and goes."""

    def __init__(self, host: TestHost, seed: int, argv: list[str] | None = None) -> None:
        self.host, self.random, self.argv = host, random.Random(seed), argv
        self.place = Place(host)
        self.counts: collections.Counter[str] = collections.Counter()
        self._daemon = self._start()
        # In the tests' own control group, so that they share a unit: its link is to be the first one's.
        self._containers = [host.container(name) for name in ("first", "victim", "second")]
        for container in (self._containers[0], self._containers[2]):
            self._register(container)
        self.victim = self._containers[1]
        self.registered = False
        self.took: dict[bool, list[float]] = {False: [], True: []}  # seconds: of Register, of Unregister
        for _ in range(5):
            self._call()
            self.registered, self.with_victim = True, self._snapshot()
            self._call()
            self.registered, self.without = False, self._snapshot()
        self.start_seconds = self._time_a_start()
        assert self.with_victim != self.without

    def one(self) -> None:
        """Kill once. AssertionError says what is neither before nor after."""
        act = self.random.choice(ACTS)
        {"call": self._kill_in_a_call, "leader": self._kill_with_a_leader, "start": self._kill_in_a_start}[act]()

    def _kill_in_a_call(self) -> None:
        before, after = self.without, self.with_victim
        if self.registered:
            before, after = after, before
        usual = statistics.median(self.took[self.registered][-9:])
        watched = self.random.choice(WATCHED)
        if watched is None:
            killing = self._kill_after(self.random.uniform(0, LATEST * usual))
        else:
            killing = self._kill_after(10 * usual, self.place.root / watched, self.random.uniform(0, STEP_SECONDS))
        try:
            self._call()
        except (OSError, TimeoutError):
            answered = False
        else:
            answered = True
        killing.join()
        found = self._restarted()
        self._expect(found, (after,) if answered else (before, after))
        self.registered ^= found == after
        self.counts[("answered" if answered else "after" if found == after else "before")] += 1

    def _kill_with_a_leader(self) -> None:
        """It ends for sure, so it is gone, whatever the daemon had time to do about it."""
        leader = subprocess.Popen(["sleep", "600"])
        try:
            self.place.call("Register", name="brief", leader=leader.pid, **{"class": "container"})
            killing = self._kill_after(self.random.uniform(0, 0.002))
            leader.kill()
            killing.join()
        finally:
            leader.kill()
            leader.wait()
        self._expect(self._restarted(), (self._now(),))
        self.counts["with a leader"] += 1

    def _kill_in_a_start(self) -> None:
        self._kill()
        process = self.host.popen(self.argv or command("mymachinesd"), stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        time.sleep(self.random.uniform(0.3, 1.1) * self.start_seconds)  # the moment is the point, nothing is awaited
        process.kill()
        process.wait()
        self._expect(self._restarted(), (self._now(),))
        self.counts["in a start"] += 1

    def _now(self) -> Snapshot:
        return self.with_victim if self.registered else self.without

    def _expect(self, found: Snapshot, states: tuple[Snapshot, ...]) -> None:
        if found not in states:
            lines = [f"{part}: {key}: {found[part].get(key)!r}\n  instead of {state[part].get(key)!r}"
                     for state in states for part in found
                     for key in sorted(found[part].keys() | state[part].keys())
                     if found[part].get(key) != state[part].get(key)]
            raise AssertionError("neither before nor after:\n" + "\n".join(lines) + f"\n{self._daemon.log}")

    # --- the daemon ---

    def _start(self) -> Daemon:
        return self.host.start_daemon(self.argv)

    def _time_a_start(self) -> float:
        self._kill()
        began = time.monotonic()
        self._daemon = self._start()
        return time.monotonic() - began

    def _restarted(self) -> Snapshot:
        self._forget()
        self._daemon = self._start()
        return self._snapshot()

    def _snapshot(self) -> Snapshot:
        # A daemon takes over the userdb process that it finds, soon after it is ready.
        wait_for(lambda: "userdb.pid" in self.place.files()["run/mymachines"], 20, "the userdb process")
        return self.place.snapshot(*self._containers)

    def _kill_after(self, seconds: float, watched: Path | None = None, later: float = 0) -> threading.Thread:
        """Kill after that time; or when the directory has changed, and `later`."""
        ready = threading.Event()
        before = watched and watched.stat().st_mtime_ns

        def kill() -> None:
            ready.set()
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                if watched is None:
                    time.sleep(0.0001)
                elif watched.stat().st_mtime_ns != before:
                    until = time.monotonic() + later
                    while time.monotonic() < until:
                        pass
            self._kill()

        thread = threading.Thread(target=kill)
        thread.start()
        ready.wait()
        return thread

    def _kill(self) -> None:
        self._daemon.kill9()

    def _forget(self) -> None:
        """A thousand of them would keep a thousand logs."""
        self._daemon.close()
        self.host.forget_daemon(self._daemon)

    def _call(self) -> None:
        """Register the victim, or unregister it."""
        began = time.monotonic()
        if self.registered:
            self.place.call("Unregister", name="victim")
        else:
            self._register(self.victim)
        self.took[self.registered].append(time.monotonic() - began)

    def _register(self, container: Container) -> None:
        self.place.call("Register", name=container.name, leader=container.leader, service="soak",
                        **{"class": "container"})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.kill")
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--without-pidfd-ids", action="store_true", help="as on Linux before 6.9")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    began = time.monotonic()
    with TestHost() as host:
        killing = Killing(host, options.seed, WITHOUT_PIDFD_IDS if options.without_pidfd_ids else None)
        took = [f"{statistics.median(seconds) * 1e3:.1f} ms" for seconds in killing.took.values()]
        print(f"Register takes {took[0]}, Unregister {took[1]}, a start {killing.start_seconds * 1e3:.0f} ms")
        for number in range(options.times):
            try:
                killing.one()
            except (AssertionError, VarlinkError):
                print(f"the kill number {number + 1} of seed {options.seed}:", file=sys.stderr)
                raise
    counts = ", ".join(f"{count} {what}" for what, count in sorted(killing.counts.items()))
    print(f"{options.times} kills in {time.monotonic() - began:.0f} s, no other state: {counts}")


if __name__ == "__main__":
    main()
