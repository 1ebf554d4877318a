# SPDX-License-Identifier: MIT
"""make bench: what look-ups, requests and events cost, on a test host with real containers. Prints tables.

Times are of this machine in this run; what carries over to another one are the ratios. The peer for users is the
machine's own libnss_systemd without us; a wider comparison needs systemd-machined on a booted host.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from resolver.core.addresses import AF_INET
from resolver.core.idmap import Extent, IdMap
from resolver.core.machine import ChosenAddress, Machine, MachineClass, ProcessId
from resolver.core.registry import Registry
from resolver.table.writer import TableWriter
from tests.lab import PROJECT, Container, TestHost, command

SOURCE = Path(__file__).with_name("lookups.c")
CALLS = 20000
EVENTS = 50
BASE = 1 << 20


class Timing(NamedTuple):
    """Nanoseconds; see lookups.c."""

    status: int
    first: float
    median: float
    p99: float
    loop: float


def lookups(host: TestHost, program: str, module: str, kind: str, key: object, calls: int = CALLS) -> Timing:
    words = host.run([program, module, kind, str(key), str(calls)], check=True, timeout=120).stdout.split()
    return Timing(int(words[0]), *(float(word) for word in words[1:]))


def publish(host: TestHost, machines: int) -> TableWriter:
    """A table of this many machines, with three addresses and 65536 ids each, where the host's shim reads it."""
    directory = Path(f"/proc/{host.pid}/root/run/mymachines")
    directory.mkdir(exist_ok=True)
    registry = Registry()
    writer = TableWriter(str(directory / "table-1"), registry)
    for number in range(machines):
        ids = IdMap((Extent(0, BASE + number * 65536, 65536),))
        addresses = tuple(ChosenAddress(AF_INET, bytes((10, n, number >> 8, number & 255))) for n in range(3))
        registry.add(Machine(f"m{number}", MachineClass.CONTAINER, ProcessId(number + 2), uid_map=ids, gid_map=ids,
                             chosen=addresses))
    writer.reset()
    return writer


def print_rows(title: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(f"\n{title}")
    lines = [[str(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def bench_module(host: TestHost, program: str) -> None:
    rows = []
    for machines in (10, 10000):
        writer = publish(host, machines)
        last, uid = machines - 1, BASE + (machines - 1) * 65536 + 1000
        for what, kind, key in (("known host, 3 addresses", "host", f"m{last}"), ("unknown host", "host", "nobody"),
                                ("uid to user", "user", uid), ("user to uid", "user-name", f"vu-m{last}-1000"),
                                ("gid to group", "group", uid), ("uid of no machine", "user", BASE - 1)):
            timing = lookups(host, program, "mymachines", kind, key)
            rows.append((what, machines, f"{timing.loop / 1000:.3f}", f"{timing.p99 / 1000:.3f}",
                         f"{timing.first / 1000:.1f}"))
        writer.close(unlink=True)
    for what, kind, key in (("host", "host", "m1"), ("uid", "user", BASE)):
        timing = lookups(host, program, "mymachines", kind, key)
        rows.append((f"{what}, no table and no daemon", 0, f"{timing.loop / 1000:.3f}", f"{timing.p99 / 1000:.3f}",
                     f"{timing.first / 1000:.1f}"))
    print_rows("libnss_mymachines, called as glibc calls it (microseconds)",
               ("look-up", "machines", "mean of a loop", "99th percentile", "first in the process"), rows)


def bench_unknown_uid(program: str) -> None:
    """getpwuid of a uid that nobody knows: with us before libnss_systemd, and without us."""
    rows, means = [], {}
    for passwd in ("files systemd", "files mymachines systemd"):
        with TestHost(passwd=passwd) as host:
            host.start_daemon()
            runs = [lookups(host, program, "libc", "user", BASE - 1, 2000) for _ in range(5)]
            means[passwd] = statistics.median(run.loop for run in runs) / 1000
            rows.append((passwd, f"{means[passwd]:.2f}", f"{means[passwd] / means['files systemd']:.3f}"))
    print_rows("getpwuid() of an unknown uid, mymachinesd running (microseconds)", ("passwd:", "mean", "ratio"), rows)


CHANGE = """
# Adds or removes an IPv4 address by rtnetlink(7), and prints when the kernel was asked.
import socket, struct, sys, time
verb, interface, text = sys.argv[1:]
packed = socket.inet_aton(text)
kind, flags = {"add": (20, 0x605), "del": (21, 0x5)}[verb]  # RTM_NEWADDR, RTM_DELADDR; request, ack, create, exclusive
body = struct.pack("=BBBBI", socket.AF_INET, 24, 0, 0, socket.if_nametoindex(interface))
body += b"".join(struct.pack("=HH", 8, attribute) + packed for attribute in (2, 1))  # IFA_LOCAL, IFA_ADDRESS
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
    begin = time.monotonic()
    kernel.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
    assert struct.unpack_from("=i", kernel.recv(4096), 16) == (0,)
print(begin)
"""

WAITER = """
# Answers when a look-up changes: the time of the change, by the clock that all processes share.
import socket, sys, time
for line in sys.stdin:
    name, address, wanted = line.split()
    while True:
        try:
            found = address in {a[4][0] for a in socket.getaddrinfo(name, None, socket.AF_INET)}
        except socket.gaierror:
            found = False
        if found == (wanted == "yes"):
            break
        time.sleep(0)
    print(time.monotonic(), flush=True)
"""


def bench_events(host: TestHost) -> None:
    web = host.container("web", addresses=["10.99.0.2/24"], host_addresses=["10.99.0.1/24"])
    register(host, web)
    waiter = host.popen([sys.executable, "-c", WAITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert waiter.stdin is not None
    assert waiter.stdout is not None

    def delay(act: Callable[[], float], name: str, address: str, wanted: str) -> float:
        waiter.stdin.write(f"{name} {address} {wanted}\n".encode())  # type: ignore[union-attr]
        waiter.stdin.flush()  # type: ignore[union-attr]
        begin = act()
        return (float(waiter.stdout.readline()) - begin) * 1000  # type: ignore[union-attr]

    def change(verb: str) -> Callable[[], float]:
        # The time is taken inside, just before the kernel is asked: starting a program costs more than the event.
        inside = ["nsenter", f"--target={web.leader}", "--net", sys.executable, "-c", CHANGE, verb, "host0",
                  "10.99.0.77"]
        return lambda: float(host.run(inside, check=True).stdout)

    added, removed, ended = [], [], []
    for _ in range(EVENTS):
        added.append(delay(change("add"), "web", "10.99.0.77", "yes"))
        removed.append(delay(change("del"), "web", "10.99.0.77", "no"))
    for number in range(EVENTS // 5):
        other = host.container(f"m{number}", addresses=[f"10.{100 + number}.0.2/24"],
                               host_addresses=[f"10.{100 + number}.0.1/24"])
        register(host, other)

        def end(leader: int = other.leader) -> float:
            begin = time.monotonic()
            os.kill(leader, 9)
            return begin

        ended.append(delay(end, other.name, other.ipv4, "no"))
    waiter.stdin.close()
    waiter.stdout.close()
    waiter.wait(10)
    rows = [(what, len(times), f"{statistics.median(times):.2f}", f"{max(times):.2f}") for what, times in (
        ("address added inside", added),
        ("address removed inside", removed), ("leader killed", ended))]
    print_rows("From an event to the answer of getaddrinfo in another process (milliseconds)",
               ("event", "times", "median", "worst"), rows)


def bench_requests(host: TestHost) -> None:
    web = host.container("plain", link=False)
    code = ("import json, statistics, sys, time\nfrom resolver.varlink.client import Client\n"
            "def call(method, **parameters):\n"
            " begin = time.perf_counter()\n"
            " with Client(sys.argv[2]) as client: client.call('io.systemd.Machine.' + method, parameters)\n"
            " return (time.perf_counter() - begin) * 1000\n"
            "times = {'Register': [], 'List': [], 'Unregister': []}\n"
            "for _ in range(200):\n"
            " leader = int(sys.argv[1])\n"
            " times['Register'].append(call('Register', name='bench', leader=leader, **{'class': 'container'}))\n"
            " times['List'].append(call('List', name='bench'))\n"
            " times['Unregister'].append(call('Unregister', name='bench'))\n"
            "print(json.dumps({k: [statistics.median(v), max(v)] for k, v in times.items()}))\n")
    socket_path = "/run/systemd/machine/io.systemd.Machine"
    done = host.python(code, str(web.leader), socket_path, check=True, cwd=PROJECT, timeout=60)
    times = json.loads(done.stdout)
    print_rows("io.systemd.Machine, a connection each time, published when answered (milliseconds)",
               ("method", "median", "worst of 200"), [(k, f"{m:.2f}", f"{w:.2f}") for k, (m, w) in times.items()])


def bench_processes() -> None:
    with TestHost() as host:
        begin = time.monotonic()
        daemon = host.start_daemon()
        ready = time.monotonic() - begin
        userdb = int(Path(f"/proc/{host.pid}/root/run/mymachines/userdb.pid").read_text().split()[0])
        pss = {name: memory(pid) for name, pid in (("mymachinesd", daemon.pid), ("mymachines-userdb", userdb))}
    print_rows("Processes, no machines", ("what", "figure"), [
        ("from start to ready, userdb process included", f"{ready:.2f} s"),
        *((f"{name}, proportional set size", f"{kilobytes / 1024:.1f} MB") for name, kilobytes in pss.items())])


def memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def register(host: TestHost, container: Container) -> None:
    host.run([*command("mymachinesctl"), "register", container.name, "--leader", str(container.leader)], check=True)


def main() -> int:
    if os.geteuid() != 0:
        print("the benchmark makes hosts and containers, which needs root", file=sys.stderr)
        return 1
    print(f"{os.uname().sysname} {os.uname().release}, Python {sys.version.split()[0]}, {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        program = f"{folder}/lookups"
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-D_GNU_SOURCE", "-o", program, str(SOURCE)], check=True)
        with TestHost() as host:
            bench_module(host, program)
        bench_unknown_uid(program)
    with TestHost() as host:
        host.start_daemon()
        bench_requests(host)
        bench_events(host)
    bench_processes()
    return 0


if __name__ == "__main__":
    sys.exit(main())
