# SPDX-License-Identifier: MIT
"""Signalling every process of a machine."""

import os
import re
import signal
import time

from resolver.core.errors import NotAvailable, NotSupported
from resolver.host import cgroup
from resolver.host.process import NoSuchProcess, Process

KILL_SECONDS = 5.0
"""A guest that forks faster than it is signalled must not keep the caller for ever. Ten thousand processes take one."""

# Units that are a user's, or hold one's whole session, and PID 1's own: never a machine's alone.
_SHARED = re.compile(r"user@[0-9]+\.service|session-[^.]*\.scope|init\.scope")


def is_shared_unit(unit: str) -> bool:
    """Whether a unit is never a machine's alone: a user's service manager, a whole session, pid 1's own, a slice."""
    return _SHARED.fullmatch(unit) is not None


def kill_all(leader: Process, unit: str, number: int) -> None:
    """Send a signal to each process in the machine's unit, until no new one appears.

    NotSupported where the machine has no unit of its own: the signal would hit others too. The caller knows which
    other machines have the same `unit`. NotAvailable where there is no end to it, NoSuchProcess for a dead leader.
    Takes up to KILL_SECONDS: not for a loop that answers others.
    """
    group = cgroup.unit_path(leader.group_path())
    if not unit or cgroup.unit_name(group) != unit:
        raise NotSupported("the machine's processes cannot be told from others: it has no systemd unit of its own")
    with Process.open(os.getpid()) as daemon:
        if is_shared_unit(unit) or _within(daemon.group_path(), group):
            raise NotSupported(f"the machine's processes cannot be told from others: {unit} is not its own alone")
    root = cgroup.hierarchy().mount + group
    if number == signal.SIGKILL and _kill_group(leader, root):
        return
    deadline = time.monotonic() + KILL_SECONDS
    done: set[int] = set()
    while new := _pids(root, deadline) - done:
        for pid in new:
            _signal_member(pid, group, number)
            if time.monotonic() > deadline:
                raise NotAvailable(f"{unit} starts processes faster than they can be signalled")
        done |= new


def _kill_group(leader: Process, root: str) -> bool:
    """SIGKILL by cgroup.kill (cgroup2, Linux 5.14), which no fork escapes. Whether it was there."""
    try:
        fd = os.open(f"{root}/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # The descriptor is of one group for ever; that it is the leader's, and not a later one's by that name, is
        # sure where the leader is still alive.
        if leader.exited():
            raise NoSuchProcess(leader.pid)
        os.write(fd, b"1")
        return True
    finally:
        os.close(fd)


def _pids(root: str, deadline: float) -> set[int]:
    """The processes in a control group and all below it."""
    found: set[int] = set()
    for directory, _, _ in os.walk(root):
        try:
            with open(f"{directory}/cgroup.procs", encoding="ascii") as f:
                found.update(map(int, f))
        except OSError:  # removed meanwhile; or EOPNOTSUPP: threaded, its processes are listed further up (cgroups(7))
            continue
        if time.monotonic() > deadline:
            raise NotAvailable("the machine has too many control groups")
    return found - {0}  # 0: a process that has no number in our pid namespace


def _signal_member(pid: int, group: str, number: int) -> None:
    """Signal the process if it is, once held, a member still: its number may have passed to another one."""
    try:
        with Process.open(pid) as process:
            if _within(process.group_path(), group):
                process.send_signal(number)
    except NoSuchProcess:
        pass


def _within(path: str, group: str) -> bool:
    return path == group or path.startswith(group + "/")
