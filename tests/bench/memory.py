# SPDX-License-Identifier: MIT
"""Memory and processor time of our processes, as the kernel accounts for them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.figures import Aim, Row
from tests.bench.peers import inside
from tests.lab import Daemon, TestHost, command

KB_PER_MB = 1024


@contextmanager
def processes(host: TestHost, daemon: Daemon) -> Iterator[dict[str, int]]:
    """Name -> pid of all that runs unasked, where systemd-resolved has hooks. DNS is off until it is enabled."""
    userdb = int(inside(host, "/run/mymachines/userdb.pid").read_text().split()[0])
    hook = host.start_daemon(command("mymachines-resolve-hook"))
    try:
        yield {"mymachinesd": daemon.pid, "mymachines-userdb": userdb, "mymachines-resolve-hook": hook.pid}
    finally:
        hook.stop()


def proportional(pid: int) -> int:
    """PSS, in kB: what others share is divided by the number of those that share it (proc_pid_smaps_rollup(5))."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def alone(pids: Iterable[int]) -> int:
    """In kB, what these would take if nobody else mapped the same files: each page once.

    PSS is smaller the more others run Python. Pages that two of these share are taken for the same where they are in
    the same part of the same file.
    """
    private, shared = 0, defaultdict[tuple[str, ...], int](int)
    for pid in pids:
        part: tuple[str, ...] = ()
        mapped: dict[tuple[str, ...], int] = defaultdict(int)
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            words = line.split()
            if not words[0].endswith(":"):      # address, rights, offset, device, inode
                anonymous = words[4] == "0"
                part = (str(pid), words[0]) if anonymous else (words[2], words[3], words[4])
            elif words[0].startswith("Private_"):
                private += int(words[1])
            elif words[0] in ("Shared_Clean:", "Shared_Dirty:"):
                mapped[part] += int(words[1])
        for part, size in mapped.items():
            shared[part] = max(shared[part], size)
    return private + sum(shared.values())


def processor_time(pid: int) -> float:
    """Seconds that all threads were running, which other work on the machine hardly changes (proc_pid_stat(5))."""
    times = [path.read_text().split()[0] for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(map(int, times)) / 1e9


def memory_rows(host: TestHost, daemon: Daemon, machines: int, aim: Aim) -> Iterator[Row]:
    with processes(host, daemon) as pids:
        sizes = {name: proportional(pid) / KB_PER_MB for name, pid in pids.items()}
        by_ourselves = alone(pids.values()) / KB_PER_MB
    yield Row("memory of all our processes (PSS)", sum(sizes.values()), "MB", machines=machines, aims=(aim,))
    for name, size in sizes.items():
        yield Row(f"of that, {name}", size, "MB", machines=machines)
    yield Row("memory of all, if nobody else ran Python", by_ourselves, "MB", machines=machines)
