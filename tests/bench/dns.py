# SPDX-License-Identifier: MIT
"""python -m tests.bench.dns: queries a second, beside dnsmasq with the same names, by dnsperf on loopback.

One process each, in turns, so that whatever else the machine does hits both; the ratio is what carries over to another
machine. As root, on a test host of its own (the table must be root's).
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.dns.serving import Server, Table
from tests.lab import wait_for

NAMES = 1000
SECONDS = 5
ROUNDS = 3
AIM = 0.8
DNSMASQ_PORT = 5399


class Result(NamedTuple):
    """`lost` of `sent` queries had no answer; `odd` had another answer than NOERROR."""

    rate: float
    sent: int
    lost: int
    odd: int


def dnsperf(port: int, queries: Path) -> Result:
    done = subprocess.run(["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", queries, "-l", str(SECONDS)],
                          capture_output=True, text=True, check=True, timeout=SECONDS + 60).stdout
    def number(pattern: str) -> float:
        found = re.search(pattern, done)
        return float(found[1]) if found else 0.0
    answered = number(r"NOERROR (\d+)")
    sent, lost = number(r"Queries sent:\s+(\d+)"), number(r"Queries lost:\s+(\d+)")
    return Result(number(r"Queries per second:\s+([\d.]+)"), int(sent), int(lost), int(sent - lost - answered))


def main() -> int:
    missing = [program for program in ("dnsmasq", "dnsperf") if not shutil.which(program)]
    if missing or os.geteuid() != 0:
        print(f"needs root, and dnsmasq and dnsperf (missing: {', '.join(missing) or 'none'})")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        # dnsmasq gives up root's rights, and reads the names after that
        os.chmod(folder, 0o755)
        table, hosts, queries = Table(Path(folder, "table-1")), Path(folder, "hosts"), Path(folder, "queries")
        addresses = {f"m{number}": f"10.{number >> 8}.{number & 255}.2" for number in range(NAMES)}
        for name, address in addresses.items():
            table.add(name, address)
        hosts.write_text("".join(f"{address} {name}.machines.internal\n" for name, address in addresses.items()))
        queries.write_text("".join(f"{name}.machines.internal A\n" for name in addresses))
        dnsmasq = subprocess.Popen(
            ["dnsmasq", "--keep-in-foreground", f"--port={DNSMASQ_PORT}", "--no-resolv", "--no-hosts", "--no-poll",
             f"--addn-hosts={hosts}", "--listen-address=127.0.0.1", "--bind-interfaces", "--conf-file=/dev/null",
             "--pid-file=", "--user=root", "--log-facility=-"], stderr=subprocess.PIPE, text=True)
        try:
            wait_for(lambda: subprocess.run(["dig", "+short", "+tries=1", "@127.0.0.1", "-p", str(DNSMASQ_PORT),
                                             "m1.machines.internal"], capture_output=True, check=False).stdout)
            with Server(table) as server:
                rows = [(dnsperf(DNSMASQ_PORT, queries), dnsperf(server.port, queries)) for _ in range(ROUNDS)]
                memory = server.memory()
                server.stop()
        finally:
            dnsmasq.kill()
            dnsmasq.communicate()
            table.close()
    for theirs, ours in rows:
        print(f"dnsmasq {theirs.rate:9.0f}/s, {theirs.lost} lost; mymachines-dns {ours.rate:9.0f}/s, {ours.lost} lost,"
              f" {ours.odd} not NOERROR; ratio {ours.rate / theirs.rate:.2f}")
    ratio = statistics.median(ours.rate / theirs.rate for theirs, ours in rows)
    lost = sum(ours.lost + ours.odd for _, ours in rows)
    print(f"ratio {ratio:.2f} (aim: {AIM}), lost {lost} (aim: 0); {memory / 2**20:.1f} MB resident")
    return 0 if ratio >= AIM and not lost else 1


if __name__ == "__main__":
    sys.exit(main())
