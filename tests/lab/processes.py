# SPDX-License-Identifier: MIT
"""Processes as /proc shows them, and how they are ended.

The lab's process is a subreaper (prctl(2)): a descendant that loses its parent becomes its child instead of init's. So
whatever a test started is found, however deep it was; and it is reaped here, where init may be a `tail -f` that never
does. That matters: process 1 of a pid namespace cannot end before everything inside it has been reaped.
"""

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from . import waiting
from .waiting import wait_for

PR_SET_CHILD_SUBREAPER = 36     # <linux/prctl.h>

KILL_TIMEOUT = 10   # seconds; a process that survives SIGKILL so long is stuck in the kernel


def adopt_orphans() -> None:
    """Makes this process a subreaper, once for all."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    waiting.at_each_look = reap_adopted


def children(pid: int | str = "self") -> list[int]:
    """Zombies too."""
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in tasks.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):     # a thread that has ended
            pass
    return found


def reap_adopted() -> None:
    """Of our zombies, those of a deeper pid namespace: what we start ourselves, and somebody here waits for, is not."""
    for pid in children():
        try:
            if not is_alive(pid) and pid_namespaces(pid) > pid_namespaces("self"):
                os.waitpid(pid, os.WNOHANG)
        except (FileNotFoundError, ProcessLookupError, ChildProcessError):  # another thread has just waited for it
            pass


def pid_namespaces(pid: int | str) -> int:
    """In how many nested ones it has a pid."""
    status = Path(f"/proc/{pid}/status").read_text()
    return len(status.partition("\nNSpid:")[2].partition("\n")[0].split())


def all_pids() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def is_alive(pid: int) -> bool:
    """False for a zombie too: it runs no code and holds no namespace."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def describe(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        words = "gone"
    return f"{pid} ({words[:100]})"


def namespace(pid: int | str, kind: str) -> str:
    """What tells one namespace from another; empty where the process is gone or not ours to look at."""
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return ""


def members(namespaces: Iterable[str]) -> list[int]:
    """The living processes in one of these mount or network namespaces."""
    wanted = set(namespaces) - {""}
    return [pid for pid in all_pids() if {namespace(pid, "mnt"), namespace(pid, "net")} & wanted and is_alive(pid)]


def kill_all(pids: Iterable[int]) -> None:
    pids = list(pids)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    wait_for(lambda: not any(map(is_alive, pids)), KILL_TIMEOUT, f"the end of {pids}")


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills and reaps a child, stopped ones too, and closes its pipes."""
    process.kill()
    wait_for(lambda: process.poll() is not None, KILL_TIMEOUT, f"the end of {process.args!r}")
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            try:
                stream.close()
            except BrokenPipeError:
                pass
