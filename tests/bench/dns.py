# SPDX-License-Identifier: MIT
"""DNS queries on loopback, by dnsperf, beside dnsmasq with the same names. One process each, in turns."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.bench.figures import Pairs, Row, figure, in_turns, ratio
from tests.bench.settings import Settings
from tests.dns.serving import Server, Table
from tests.lab import Unavailable, wait_for

TITLE = "DNS"

NAMES = 1000
ROUNDS = 3
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
MICROSECONDS = 1e6

FOUR_FIFTHS = ratio(1.25)
"""Of dnsmasq's rate, at least."""
NONE = figure(0)
DNSMASQ_PORT = 5399


class Result(NamedTuple):
    """`lost` of `sent` queries had no answer; `odd` had another answer than NOERROR."""

    rate: float
    sent: int
    lost: int
    odd: int


def dnsperf(port: int, queries: Path, seconds: int) -> Result:
    done = subprocess.run(["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", queries, "-l", str(seconds)],
                          capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    def number(pattern: str) -> float:
        found = re.search(pattern, done)
        return float(found[1]) if found else 0.0
    answered = number(r"NOERROR (\d+)")
    sent, lost = number(r"Queries sent:\s+(\d+)"), number(r"Queries lost:\s+(\d+)")
    return Result(number(r"Queries per second:\s+([\d.]+)"), int(sent), int(lost), int(sent - lost - answered))


def run(settings: Settings) -> Iterator[Row]:
    missing = [program for program in ("dnsmasq", "dnsperf", "dig") if not shutil.which(program, path=PATH)]
    if missing:
        raise Unavailable(f"not installed: {', '.join(missing)}")
    rounds = min(ROUNDS, settings.rounds)
    with tempfile.TemporaryDirectory() as folder:
        # dnsmasq gives up root's rights, and reads the names after that
        os.chmod(folder, 0o755)
        table, hosts, queries = Table(Path(folder, "table-2")), Path(folder, "hosts"), Path(folder, "queries")
        addresses = {f"m{number}": f"10.{number >> 8}.{number & 255}.2" for number in range(NAMES)}
        for name, address in addresses.items():
            table.add(name, address)
        hosts.write_text("".join(f"{address} {name}.machines.internal\n" for name, address in addresses.items()))
        queries.write_text("".join(f"{name}.machines.internal A\n" for name in addresses))
        try:
            with dnsmasq(hosts), Server(table) as server:
                pairs = in_turns(rounds, lambda: dnsperf(server.port, queries, settings.dns_seconds),
                                 lambda: dnsperf(DNSMASQ_PORT, queries, settings.dns_seconds))
                memory = server.memory()
                server.stop()
        finally:
            table.close()
    a_query = Pairs.of((MICROSECONDS / ours.rate, MICROSECONDS / theirs.rate) for ours, theirs in pairs)
    yield Row.of_pairs("a query, by dnsperf", "us", "dnsmasq", a_query, FOUR_FIFTHS, machines=NAMES)
    yield Row("queries without their answer", sum(ours.lost + ours.odd for ours, _ in pairs), "", machines=NAMES,
              aims=(NONE,))
    yield Row("memory of mymachines-dns (resident)", memory / 2**20, "MB", machines=NAMES)


@contextmanager
def dnsmasq(hosts: Path) -> Iterator[None]:
    process = subprocess.Popen(
        ["dnsmasq", "--keep-in-foreground", f"--port={DNSMASQ_PORT}", "--no-resolv", "--no-hosts", "--no-poll",
         f"--addn-hosts={hosts}", "--listen-address=127.0.0.1", "--bind-interfaces", "--conf-file=/dev/null",
         "--pid-file=", "--user=root", "--log-facility=-"], stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: subprocess.run(["dig", "+short", "+tries=1", "@127.0.0.1", "-p", str(DNSMASQ_PORT),
                                         "m1.machines.internal"], capture_output=True, check=False).stdout)
        yield
    finally:
        process.kill()
        process.communicate()
