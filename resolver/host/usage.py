# SPDX-License-Identifier: MIT
"""What a machine's processes use: those of its unit's control group, or where it has none, of its pid namespace."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from resolver.host import cgroup
from resolver.host.process import NoSuchProcess, Process

GROUPS_MAX = 1000
PROCESSES_MAX = 10_000
"""Looked at for one machine: a guest makes as many as it is allowed to, and who looks on must not wait for all."""

STATUS_MAX = 8192
"""Bytes of /proc/PID/status; there are some 1500."""

_SESSION = re.compile(r"session-.*\.scope|user@.*\.service")
"""Units that hold whatever a user of the host runs (systemd-logind)."""

_UID = re.compile(rb"^Uid:\t\d+\t(\d+)", re.MULTILINE)
_RSS = re.compile(rb"^VmRSS:\s*(\d+) kB", re.MULTILINE)


@dataclass(slots=True)
class Sum:
    processes: int = 0
    memory: int = 0
    """Bytes in memory; pages that processes share count in each."""


@dataclass(slots=True)
class Usage:
    """`users` are by effective uid on this host. `memory` is the control group's (cgroups(7), memory.current), or the
    sum of its processes' where the kernel does not count it: `exact` tells. `cut`: there are more processes."""

    users: dict[int, Sum] = field(default_factory=dict)
    memory: int = 0
    exact: bool = False
    cut: bool = False

    @property
    def processes(self) -> int:
        return sum(user.processes for user in self.users.values())


def usages(leaders: Mapping[str, int]) -> dict[str, Usage]:
    """By the same keys, of machines by the pid of their leader. Who has ended is left out."""
    units: dict[str, str] = {}
    for key, pid in leaders.items():
        try:
            with Process.open(pid) as leader:
                units[key] = _own_unit(leader)
        except (NoSuchProcess, OSError):
            continue
    shared = {path for path in units.values() if list(units.values()).count(path) > 1}
    by_namespace = _by_pid_namespace() if any(not path or path in shared for path in units.values()) else {}
    found = {}
    for key, path in units.items():
        if path and path not in shared:
            found[key] = _of_group(path)
        else:
            found[key] = _sum_up(_in_namespace(leaders[key], by_namespace))
    return found


def _own_unit(leader: Process) -> str:
    """The path of its unit's control group; empty where that is none, or a user's session."""
    path = cgroup.unit_path(leader.group_path())
    return "" if _SESSION.fullmatch(cgroup.unit_name(path)) else path


def _of_group(path: str) -> Usage:
    folder = cgroup.hierarchy().mount + path
    usage = _sum_up(_members(folder))
    try:
        with open(f"{folder}/memory.current", encoding="ascii") as file:
            usage.memory, usage.exact = int(file.read()), True
    except (OSError, ValueError):
        pass
    return usage


def _members(folder: str) -> Iterator[int]:
    for number, (path, _, _) in enumerate(os.walk(folder)):
        if number == GROUPS_MAX:
            return
        try:
            with open(f"{path}/cgroup.procs", encoding="ascii") as file:
                yield from map(int, file)
        except OSError:  # gone, or a threaded group, whose processes its parent lists (cgroups(7))
            continue


def _by_pid_namespace() -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            found.setdefault(_pid_namespace(int(entry)), []).append(int(entry))
    return found


def _in_namespace(leader: int, by_namespace: Mapping[str, list[int]]) -> list[int]:
    namespace = _pid_namespace(leader)
    if not namespace or namespace == _pid_namespace(os.getpid()):
        return [leader]
    return by_namespace.get(namespace, [leader])


def _pid_namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _sum_up(pids: Iterator[int] | list[int]) -> Usage:
    usage = Usage()
    for number, pid in enumerate(pids):
        if number == PROCESSES_MAX:
            usage.cut = True
            break
        try:
            with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
                status = file.read(STATUS_MAX)
        except OSError:
            continue
        uid, resident = _UID.search(status), _RSS.search(status)
        if uid is not None:
            user = usage.users.setdefault(int(uid[1]), Sum())
            user.processes += 1
            user.memory += int(resident[1]) * 1024 if resident is not None else 0
    usage.memory = sum(user.memory for user in usage.users.values())
    return usage
