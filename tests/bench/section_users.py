# SPDX-License-Identifier: MIT
"""User records over Varlink through libnss_systemd, which makes a connection each time, and `find -nogroup`."""

import os
import random
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from resolver.core.users import SERVICE
from resolver.userdb.__main__ import SOCKET
from tests.bench.figures import Pairs, Row, in_turns, ratio, times_faster
from tests.bench.leaders import Leaders
from tests.bench.peers import machined_host
from tests.bench.settings import Settings
from tests.lab import TestHost

TITLE = "Users, beside systemd-machined"

FEW = 4
CLIENTS = 8
NANOSECONDS = 1000.0

ASK = f"""
import sys
from resolver.varlink.client import Client
from resolver.varlink.codec import encode
with Client("{SOCKET}") as client:
    sys.stdout.buffer.write(encode({{"parameters": client.call(
        "io.systemd.UserDatabase.GetUserRecord", {{"uid": int(sys.argv[1]), "service": "{SERVICE}"}})}}))
"""

NO_SLOWER = ratio(1.0)
TWENTY_TIMES = times_faster(20)
FIND = ratio(1.2)

FILES_WITH_MACHINED = 500
"""Each costs it some milliseconds."""


def run(settings: Settings) -> Iterator[Row]:
    for machines in sorted({FEW, max(FEW, settings.some // 10), settings.some}):
        with ExitStack() as stack:
            ours = stack.enter_context(TestHost(group="files mymachines systemd"))
            theirs = stack.enter_context(machined_host())
            leaders = stack.enter_context(Leaders(settings.programs, ours, machines, units=True))
            ours.start_daemon()
            # The same processes on both hosts: user namespaces and ids are the machine's, not a host's.
            settings.programs.register(ours, "varlink", leaders.machines)
            settings.programs.register(theirs, "dbus", leaders.machines)
            yield from records(settings, ours, theirs, machines)
            if machines == FEW:
                yield from least(settings, ours)
            if machines == settings.some:
                yield from find(settings, ours, theirs, machines)


def records(settings: Settings, ours: TestHost, theirs: TestHost, machines: int) -> Iterator[Row]:
    """Every machine's uid 1000, in turn: machined looks at one machine after the other until it finds the right one."""
    keys = settings.programs.keys(Leaders.first_id(number) + 1000 for number in shuffled(machines))
    aims = {FEW: (NO_SLOWER,), settings.some: (TWENTY_TIMES,)}
    calls = settings.slow(5 if machines < 100 else 20)
    pairs, p99 = user_records(settings, ours, theirs, keys, calls)
    yield Row.of_pairs("user record over Varlink", "us", "machined", pairs, *aims.get(machines, ()), p99=p99,
                       machines=machines)
    each = calls // 4
    at_once = in_turns(settings.rounds,
                       lambda: settings.programs.lookups_at_once(ours, CLIENTS, "systemd", "user", keys, each),
                       lambda: settings.programs.lookups_at_once(theirs, CLIENTS, "systemd", "user", keys, each))
    pairs = Pairs.of((a / NANOSECONDS, b / NANOSECONDS) for a, b in at_once)
    yield Row.of_pairs(f"the same, {CLIENTS} clients at once, in total", "us", "machined", pairs, NO_SLOWER,
                       machines=machines)


def user_records(settings: Settings, ours: TestHost, theirs: TestHost, keys: str, calls: int) -> tuple[Pairs, float]:
    """A call's microseconds, and the 99th percentile of ours. All must find something."""
    timings = in_turns(settings.rounds,
                       lambda: settings.programs.lookups(ours, "systemd", "user", keys, calls),
                       lambda: settings.programs.lookups(theirs, "systemd", "user", keys, calls))
    for timing in (timing for pair in timings for timing in pair):
        assert timing.found > calls, f"{timing.found} of more than {calls} look-ups found something"
    return (Pairs.of((a.loop / NANOSECONDS, b.loop / NANOSECONDS) for a, b in timings),
            sorted(a.p99 for a, _ in timings)[len(timings) // 2] / NANOSECONDS)


def least(settings: Settings, ours: TestHost) -> Iterator[Row]:
    """One user's record, beside a server that does nothing but send this very reply: the rest is the caller's side, and
    both being woken."""
    uid = Leaders.first_id(0) + 1000
    reply = ours.python(ASK, str(uid), check=True).stdout.encode()
    keys, calls = settings.programs.keys([uid]), settings.slow(5)
    with TestHost() as bare:
        bare.run(["mkdir", "-p", str(Path(SOCKET).parent)], check=True)
        settings.programs.serve_canned(bare, SOCKET, reply)
        pairs, _ = user_records(settings, ours, bare, keys, calls)
    yield Row.of_pairs("the same user's each time", "us", "a server in C with one reply", pairs, machines=FEW)


def find(settings: Settings, ours: TestHost, theirs: TestHost, machines: int) -> Iterator[Row]:
    """`group: files mymachines systemd` beside `group: files`, and beside `files systemd` with machined, of fewer."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        many, fewer = Path(folder, "many"), Path(folder, "fewer")
        make_files(many, settings.files, machines)
        make_files(fewer, min(settings.files, FILES_WITH_MACHINED), machines)
        # made after the files, so that they are in its mounts; the others see the folder's file system anyway
        with TestHost(group="files") as plain:
            alone = in_turns(settings.rounds, partial(seconds, ours, many, 0),
                             partial(seconds, plain, many, settings.files))
        beside = in_turns(1, partial(seconds, ours, fewer, 0), partial(seconds, theirs, fewer, 0))
    yield Row.of_pairs(f"find -nogroup, {settings.files:,} files", "s", "group: files", Pairs.of(alone), FIND,
                       machines=machines)
    yield Row.of_pairs(f"find -nogroup, {FILES_WITH_MACHINED:,} files", "s", "machined", Pairs.of(beside),
                       machines=machines)


def make_files(folder: Path, count: int, machines: int) -> None:
    """Of all machines' users, 1000 on each."""
    folder.mkdir()
    for number in range(count):
        owner = Leaders.first_id(number % machines) + number // machines % 1000
        path = f"{folder}/{number}"
        open(path, "x").close()
        os.chown(path, owner, owner)


def seconds(host: TestHost, folder: Path, found: int) -> float:
    """What find takes, to the millisecond, without what it takes to enter the host. `found` files must be nobody's."""
    done = host.run(["bash", "-c", f"TIMEFORMAT=took=%R; time find {folder} -type f -nogroup | wc -l"], check=True,
                    timeout=300)
    assert int(done.stdout) == found, f"{done.stdout.strip()} files of no group instead of {found}"
    took = re.search(r"took=([\d.]+)", done.stderr)
    assert took is not None
    return max(float(took[1]), 0.001)


def shuffled(machines: int) -> list[int]:
    return random.Random(0).sample(range(machines), machines)
