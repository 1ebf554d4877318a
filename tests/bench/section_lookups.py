# SPDX-License-Identifier: MIT
"""Look-ups through the modules' own entry points, and whole ones through getaddrinfo."""

import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

from tests.bench.figures import Aim, Pairs, Row, figure, in_turns, percentile, ratio, times_faster
from tests.bench.peers import files_host, machined_host, sssd_host
from tests.bench.programs import Timing
from tests.bench.published import BASE, addresses, one, table_host, three, uid, with_link_local
from tests.bench.settings import Settings
from tests.lab import Container, TestHost

TITLE = "Look-ups"

FEW = 10
NANOSECONDS = 1000.0    # in a microsecond, the unit of all rows here


class LookUp(NamedTuple):
    """What is asked of machine number n, and which aims it has: of the figure, and beside the peer."""

    what: str
    kind: str
    key: Callable[[int], object]
    aim: float
    found: bool = True


LOOKUPS = (
    LookUp("known host, 3 addresses", "host", lambda n: f"m{n}", 0.15),
    LookUp("unknown host", "host", lambda n: f"nobody{n}", 0.08, found=False),
    LookUp("uid to user", "user", uid, 0.20),
    LookUp("user to uid", "user-name", lambda n: f"vu-m{n}-1000", 0.20),
    LookUp("gid to group", "group", uid, 0.20),
    LookUp("group to gid", "group-name", lambda n: f"vg-m{n}-1000", 0.20),
    LookUp("uid of no machine", "user", lambda n: BASE - 1 - n, 0.08, found=False),
)

FASTER_THAN_MACHINED = times_faster(5000)
FASTER_THAN_SSSD = times_faster(2)
FIRST = figure(15)
TWICE = ratio(2)
NO_SLOWER = ratio(1.1)


def run(settings: Settings) -> Iterator[Row]:
    with ExitStack() as stack:
        few = stack.enter_context(table_host(FEW))
        yield from beside_machined(settings, few)
        yield from beside_sssd(settings, few)
        many = stack.enter_context(table_host(settings.many))
        yield from with_many(settings, few, many)
        yield with_other_addresses(settings, many)
    yield from whole(settings)
    yield without_table(settings)


class Side(NamedTuple):
    """Who is asked, for what, how often."""

    host: TestHost
    module: str
    lookup: LookUp
    keys: str
    calls: int


def timed(settings: Settings, side: Side) -> Timing:
    """Asserts that what is to be found is, and nothing else."""
    timing = settings.programs.lookups(side.host, side.module, side.lookup.kind, side.keys, side.calls)
    assert bool(timing.found) is side.lookup.found, f"{side.module}, {side.lookup.what}: found {timing.found} times"
    return timing


def measured(settings: Settings, ours: Side, theirs: Side, rounds: int) -> list[tuple[Timing, Timing]]:
    return in_turns(rounds, lambda: timed(settings, ours), lambda: timed(settings, theirs))


def row(settings: Settings, what: str, peer: str, ours: Side, theirs: Side, *aims: Aim, machines: int = FEW) -> Row:
    pairs = measured(settings, ours, theirs, settings.rounds)
    loops = Pairs.of((a.loop / NANOSECONDS, b.loop / NANOSECONDS) for a, b in pairs)
    p99 = statistics.median(a.p99 for a, _ in pairs) / NANOSECONDS
    return Row.of_pairs(what, "us", peer, loops, *aims, p99=p99, machines=machines)


def first_calls(settings: Settings, peer: str, ours: Side, theirs: Side) -> Row:
    pairs = measured(settings, ours._replace(calls=0), theirs._replace(calls=0), settings.processes)
    firsts = [(a.first / NANOSECONDS, b.first / NANOSECONDS) for a, b in pairs]
    return Row.of_pairs(f"first look-up of a process: {ours.lookup.what}", "us", peer, Pairs.of(firsts), FIRST,
                        p99=percentile([a for a, _ in firsts], 99), machines=FEW)


def beside_machined(settings: Settings, ours: TestHost) -> Iterator[Row]:
    """Of systemd-machined one container is asked: for a host name it enters just that one."""
    with machined_host() as theirs:
        name = f"m{FEW - 1}"
        container = Container(theirs, name, scope=f"{name}.scope", host_addresses=["10.213.1.1/24"],
                              addresses=[f"10.213.1.{last}/24" for last in (2, 3, 4)])
        with container.start():
            settings.programs.register(theirs, "dbus", [(name, container.leader)])
            for lookup, slower, more in ((LOOKUPS[0], 100, [FASTER_THAN_MACHINED]), (LOOKUPS[1], 5, [])):
                keys = settings.programs.keys([lookup.key(FEW - 1)])
                sides = (Side(ours, "mymachines", lookup, keys, settings.calls),
                         Side(theirs, "mymachines", lookup, keys, settings.slow(slower)))
                yield row(settings, lookup.what, "machined", *sides, figure(lookup.aim), *more)
                if lookup.found:
                    yield first_calls(settings, "machined", *sides)


def beside_sssd(settings: Settings, ours: TestHost) -> Iterator[Row]:
    with sssd_host([(f"vu-m{number}-1000", uid(number)) for number in range(FEW)]) as theirs:
        for lookup in LOOKUPS[2:]:
            # there, groups have their users' names
            key = str(lookup.key(FEW - 1))
            sides = (Side(ours, "mymachines", lookup, settings.programs.keys([key]), settings.calls),
                     Side(theirs, "sss", lookup, settings.programs.keys([key.replace("vg-", "vu-")]),
                          settings.slow(1 if lookup.found else 20)))
            more = [FASTER_THAN_SSSD] if lookup.found else []
            yield row(settings, lookup.what, "SSSD's cache" if lookup.found else "SSSD", *sides, figure(lookup.aim),
                      *more)
            if lookup.kind == "user" and lookup.found:
                yield first_calls(settings, "SSSD's cache", *sides)


def with_many(settings: Settings, few: TestHost, many: TestHost) -> Iterator[Row]:
    """The last machine again and again; then each in turn, which also asks the processor's caches."""
    keys = settings.programs.keys
    for lookup in LOOKUPS:
        yield row(settings, lookup.what, f"ours with {FEW}",
                  Side(many, "mymachines", lookup, keys([lookup.key(settings.many - 1)]), settings.calls),
                  Side(few, "mymachines", lookup, keys([lookup.key(FEW - 1)]), settings.calls),
                  TWICE, machines=settings.many)
    order = shuffled(settings)
    calls = max(settings.calls, 2 * settings.many)
    for lookup in LOOKUPS:
        yield row(settings, f"{lookup.what}, all in turn", f"ours with {FEW}, in turn",
                  Side(many, "mymachines", lookup, keys(map(lookup.key, order)), calls),
                  Side(few, "mymachines", lookup, keys(map(lookup.key, range(FEW))), calls),
                  TWICE, machines=settings.many)


def with_other_addresses(settings: Settings, three_each: TestHost) -> Row:
    """What a machine's record has no place for lies elsewhere in the table (docs/table.md)."""
    keys = settings.programs.keys(f"m{number}" for number in shuffled(settings))
    calls = max(settings.calls, 2 * settings.many)
    with table_host(settings.many, with_link_local) as link_local:
        return row(settings, "known host, IPv4 and link-local IPv6, all in turn", "3 IPv4 addresses, in turn",
                   Side(link_local, "mymachines", LOOKUPS[0], keys, calls),
                   Side(three_each, "mymachines", LOOKUPS[0], keys, calls), machines=settings.many)


def shuffled(settings: Settings) -> list[int]:
    return random.Random(0).sample(range(settings.many), settings.many)


def whole(settings: Settings) -> Iterator[Row]:
    """getaddrinfo as programs call it, `hosts: files mymachines` beside `hosts: files`, with the same addresses."""
    lookup = LOOKUPS[0]
    for count, lines, aims in ((1, FEW, [NO_SLOWER]), (1, settings.many, []), (3, 3 * FEW, [NO_SLOWER])):
        names = {f"m{number}": addresses(number)[:count] for number in range(lines // count)}
        keys = settings.programs.keys([f"m{FEW - 1}"])
        with table_host(FEW, three if count > 1 else one) as ours, files_host(names) as theirs:
            yield row(settings, f"getaddrinfo, {count} address{'es' if count > 1 else ''}",
                      f"/etc/hosts, {lines:,} lines", Side(ours, "libc", lookup, keys, settings.slow(2)),
                      Side(theirs, "libc", lookup, keys, settings.slow(2 if lines < 100 else 50)), *aims)


def without_table(settings: Settings) -> Row:
    """What the module costs a host where nothing of ours runs."""
    with TestHost() as host:
        keys = settings.programs.keys(["m1"])
        runs = [settings.programs.lookups(host, "mymachines", "host", keys, settings.calls)
                for _ in range(settings.rounds)]
    return Row("a host, no table and no daemon", statistics.median(run.loop for run in runs) / NANOSECONDS, "us")
