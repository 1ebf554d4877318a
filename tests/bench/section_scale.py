# SPDX-License-Identifier: MIT
"""Ten thousand real leaders: registered, looked up, followed, and there again after a restart."""

import os
import random
import statistics
import time
from collections.abc import Iterator

from tests.bench.figures import Row, figure
from tests.bench.leaders import Leaders
from tests.bench.memory import memory_rows, processor_time
from tests.bench.peers import machined_host
from tests.bench.section_events import visible_rows
from tests.bench.section_registering import register_rows
from tests.bench.settings import Settings
from tests.lab import Daemon, TestHost

TITLE = "At scale"

CLIENTS = 8
SECOND, MILLISECOND, MICROSECOND = 1e9, 1e6, 1e3

ONE_AFTER_ANOTHER = figure(15)
IN_PARALLEL = figure(8)
REGISTER = figure(2)
RESTART = figure(2)
NONE = figure(0)
MEMORY = figure(112)

READY_SECONDS = 300.0
"""For a daemon that comes back; it is measured how long it takes."""

# What a service manager says to a daemon whose run directory outlives a restart (RuntimeDirectoryPreserve=restart).
KEEPS_ITS_TABLE = {**os.environ, "RUNTIME_DIRECTORY": "/run/mymachines"}


def run(settings: Settings) -> Iterator[Row]:
    many = settings.many
    with TestHost(run_size="1g") as host:
        begin = time.monotonic()
        with Leaders(settings.programs, host, many + 1, settings.networks, units=True) as leaders:
            in_these = many + 1 - leaders.networks
            yield Row(f"making leaders: {leaders.networks:,} with networks of their own, {in_these:,} in one of these",
                      time.monotonic() - begin, "s", machines=many)
            yield from in_parallel(settings, host, leaders)
            daemon = start(host)
            before = processor_time(daemon.pid)
            done = settings.programs.register(host, "varlink", leaders.machines[:many])
            yield Row("registrations one after another", done.all / SECOND, "s", machines=many,
                      aims=(ONE_AFTER_ANOTHER,))
            yield Row("of that, the daemon's processor time", processor_time(daemon.pid) - before, "s", machines=many)
            yield from memory_rows(host, daemon, many, MEMORY)
            yield from look_up(settings, host, leaders)
            yield from visible_rows(settings, host, leaders, many)
            yield from beside_machined(settings, host, daemon, leaders)
            yield from restarted(settings, host, daemon, leaders)


def start(host: TestHost) -> Daemon:
    return host.start_daemon(env=KEEPS_ITS_TABLE, ready_timeout=READY_SECONDS)


def in_parallel(settings: Settings, host: TestHost, leaders: Leaders) -> Iterator[Row]:
    """By a daemon of its own, which then forgets all of it."""
    daemon = host.start_daemon()
    done = settings.programs.register(host, "varlink", leaders.machines[:settings.many], clients=CLIENTS)
    yield Row(f"registrations from {CLIENTS} clients at once", done.all / SECOND, "s", machines=settings.many,
              aims=(IN_PARALLEL,))
    assert daemon.stop(READY_SECONDS) == 0, daemon.log
    host.run(["sh", "-c", "rm -rf /run/systemd/machines /run/mymachines"], check=True)


def look_up(settings: Settings, host: TestHost, leaders: Leaders) -> Iterator[Row]:
    """Of the table that the daemon made of them, all machines in turn."""
    order = random.Random(0).sample(range(settings.many), settings.many)
    for what, kind, keys in (("uid to user", "user", [leaders.first_id(number) + 1000 for number in order]),
                             ("known host", "host", [f"m{number}" for number in order])):
        path = settings.programs.keys(keys)
        runs = [settings.programs.lookups(host, "mymachines", kind, path, 2 * settings.many)
                for _ in range(settings.rounds)]
        for run in runs:    # the loops have as many calls again, and up to 41 more
            assert run.found > 4 * settings.many, f"only {run.found} look-ups found something"
        yield Row(f"{what}, real machines in turn", statistics.median(run.loop for run in runs) / MICROSECOND, "us",
                  p99=statistics.median(run.p99 for run in runs) / MICROSECOND, machines=settings.many)


def beside_machined(settings: Settings, host: TestHost, daemon: Daemon, leaders: Leaders) -> Iterator[Row]:
    with machined_host() as theirs:
        done = settings.programs.register(theirs, "dbus", leaders.machines[:settings.many])
        yield Row("machined: registrations one after another", done.all / SECOND, "s", machines=settings.many)
        yield from register_rows(settings, host, daemon, theirs, leaders.machines[settings.many], settings.many,
                                 REGISTER)


def restarted(settings: Settings, host: TestHost, daemon: Daemon, leaders: Leaders) -> Iterator[Row]:
    """In good order, and after a crash; readers go on asking for names and users all the while."""
    order = random.Random(0).sample(range(settings.many), settings.many)
    hosts = settings.programs.keys(f"m{number}" for number in order)
    uids = settings.programs.keys(leaders.first_id(number) + 1000 for number in order)
    for what, end in (("restart", lambda old: old.stop(READY_SECONDS)), ("restart after a crash", Daemon.kill9)):
        readers = {"hosts": settings.programs.watch(host, "mymachines", "host", hosts),
                   "users": settings.programs.watch(host, "mymachines", "user", uids)}
        end(daemon)
        begin = time.monotonic()
        daemon = start(host)
        took = time.monotonic() - begin
        used = processor_time(daemon.pid)
        daemon.expect_log("have been looked at again", READY_SECONDS)
        until_followed = time.monotonic() - begin
        seen = {whose: reader.stop() for whose, reader in readers.items()}
        yield Row(f"{what}: from exec to ready", took, "s", machines=settings.many, aims=(RESTART,))
        yield Row(f"{what}: of that, the daemon's processor time", used, "s", machines=settings.many)
        yield Row(f"{what}: until all are followed", until_followed, "s", machines=settings.many)
        for whose, watched in seen.items():
            yield Row(f"{what}: look-ups of {whose} that failed, of {watched.calls:,}",
                      watched.calls - watched.found, "", machines=settings.many, aims=(NONE,))
        yield Row(f"{what}: the longest look-up", max(watched.longest for watched in seen.values()) / MILLISECOND, "ms",
                  machines=settings.many)
