# SPDX-License-Identifier: MIT
"""`mymachinesctl top`: machines, their addresses, processes and users, and how much changes; live on a terminal."""

import argparse
import os
import select
import sys
import time
from collections import Counter

from resolver.cli.exit_codes import FAILED
from resolver.cli.failures import Failure
from resolver.cli.following import Following
from resolver.cli.top_view import MachineRow, UserRow, View, lines
from resolver.host.usage import Usage, usages
from resolver.table.reader import TableReader, TableUnavailable

QUIT = frozenset("q\x04")   # and ^D

COUNTED = frozenset({"added", "changed", "removed"})


class Sampler:
    """Follows the machines, and looks at their processes when asked."""

    def __init__(self) -> None:
        self.following = Following()
        self._table = TableReader()
        self._events: Counter[str] = Counter()
        self._since: float | None = None    # when counting of events began

    def wait_for_all(self) -> None:
        """Until the daemon has told of all machines. TimeoutError where it does not."""
        while not any(event.kind == "ready" for event in self.following.events()):
            descriptor = self.following.fileno()
            select.select([] if descriptor is None else [descriptor], [], [], self.following.seconds())

    def on_readable(self) -> None:
        self._events.update(event.name for event in self.following.events() if event.kind in COUNTED)

    def view(self) -> View:
        """What is now, and how much has happened since the last one."""
        now = time.monotonic()
        seconds = None if self._since is None else max(now - self._since, 1e-3)
        events, self._events, self._since = self._events, Counter(), now
        machines = self.following.machines
        used = usages({name: machine["leader"] for name, machine in machines.items()})

        def rate(count: int) -> float | None:
            return None if seconds is None else count / seconds

        rows = []
        for name, machine in machines.items():
            usage = used.get(name, Usage())
            rows.append(MachineRow(name, machine["class"], machine["addresses"], usage.processes, len(usage.users),
                                   usage.memory if name in used else None, usage.exact, usage.cut,
                                   rate(events[name])))
        users = [UserRow(self._user_name(uid), name, each.processes, each.memory)
                 for name, usage in used.items() for uid, each in usage.users.items()]
        return View(rows, users, time.strftime("%H:%M:%S"), rate(events.total()), self.following.connected)

    def _user_name(self, uid: int) -> str:
        """A machine's, or the number: of the host's own users NSS knows, which is asked by nobody here."""
        try:
            found = self._table.user_by_id(uid)
        except TableUnavailable:
            found = None
        return str(uid) if found is None else found.name


def do_top(options: argparse.Namespace) -> int:
    if options.delay <= 0 or (options.iterations or 1) <= 0:
        raise Failure(FAILED, "--delay and --iterations are above zero")
    sampler = Sampler()
    try:
        sampler.wait_for_all()
        live = sys.stdout.isatty() and not options.batch and os.environ.get("TERM", "dumb") != "dumb"
        if live:
            return _live(sampler, options.delay, options.iterations)
        _plain(sampler, options.delay, options.iterations or 1)
    finally:
        sampler.following.close()
    return 0


def _plain(sampler: Sampler, delay: float, iterations: int) -> None:
    """As text, all of it, however wide."""
    for number in range(iterations):
        until = time.monotonic() + (delay if number else 0.0)
        while (left := until - time.monotonic()) > 0:
            descriptor = sampler.following.fileno()
            away = sampler.following.seconds()
            select.select([] if descriptor is None else [descriptor], [], [],
                          left if away is None else min(left, away + 0.001))
            sampler.on_readable()
        if number:
            print()
        print("\n".join(line.text for line in lines(sampler.view())), flush=True)


def _live(sampler: Sampler, delay: float, iterations: int | None) -> int:
    """Until q is pressed, a signal comes, or so many times. Returns the exit code."""
    from resolver.cli.screen import Ended, Screen

    with Screen() as screen:
        try:
            number = 0
            while number != iterations:
                view, number = sampler.view(), number + 1
                until = time.monotonic() + delay
                while (left := until - time.monotonic()) > 0:
                    # Drawn after each wait: the size may be another one.
                    screen.draw(lines(view, *screen.size()))
                    away = sampler.following.seconds()
                    keys = screen.wait(sampler.following.fileno(), left if away is None else min(left, away))
                    if QUIT.intersection(keys):
                        return 0
                    sampler.on_readable()
        except Ended as ended:
            return 128 + ended.number
    return 0
