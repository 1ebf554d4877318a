# SPDX-License-Identifier: MIT
"""Processes and memory of machines. A folder stands in for a control group: not every test machine counts memory."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resolver.host import cgroup, usage
from resolver.host.process import Process
from resolver.host.usage import usages
from tests.lab.waiting import wait_for

Start = Callable[[], int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process, gives its pid."""
    children: list[subprocess.Popen[bytes]] = []

    def start() -> int:
        children.append(subprocess.Popen(["sleep", "600"]))
        return children[-1].pid

    yield start
    for child in children:
        child.kill()
        child.wait()


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """Control groups by pid, as /proc/PID/cgroup would tell them, below tmp_path."""
    paths: dict[int, str] = {}
    monkeypatch.setattr(cgroup, "hierarchy", lambda: cgroup.Hierarchy(str(tmp_path), unified=True))
    monkeypatch.setattr(Process, "group_path", lambda self: paths.get(self.pid, "/init.scope"))
    return paths


def fill(folder: Path, *pids: int, memory: int | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    if memory is not None:
        (folder / "memory.current").write_text(f"{memory}\n")


def resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024


def test_a_unit_with_all_groups_below(tmp_path: Path, groups: dict[int, str], start: Start) -> None:
    leader, other = start(), start()
    groups[leader] = "/machine.slice/web.scope/init.scope"
    fill(tmp_path / "machine.slice/web.scope", memory=123456)
    fill(tmp_path / "machine.slice/web.scope/init.scope", leader)
    fill(tmp_path / "machine.slice/web.scope/system.slice/db.service", other, 4194305)     # and one that has gone
    found = usages({"web": leader})["web"]
    assert (found.processes, found.memory, found.exact, found.cut) == (2, 123456, True, False)
    assert found.users[os.geteuid()].processes == 2


def test_where_the_kernel_counts_no_memory_it_is_a_sum(tmp_path: Path, groups: dict[int, str], start: Start) -> None:
    leader, other = start(), start()
    groups[leader] = "/web.scope"
    fill(tmp_path / "web.scope", leader, other)

    def counted() -> bool:
        found = usages({"web": leader})["web"]
        return (found.memory, found.exact) == (resident(leader) + resident(other), False)

    wait_for(counted, what="the sum")   # they may just be starting


@pytest.mark.parametrize("path", ["/user.slice/user-0.slice/session-3.scope",
                                  "/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope", "/"])
def test_a_users_session_is_not_the_machine(tmp_path: Path, groups: dict[int, str], start: Start, path: str) -> None:
    leader, other = start(), start()
    groups[leader] = path
    fill(tmp_path / path.lstrip("/"), leader, other, memory=1)
    assert usages({"web": leader})["web"].processes == 1    # in the host's pid namespace: the leader alone


def test_a_unit_of_two_machines_is_neither_s(tmp_path: Path, groups: dict[int, str], start: Start) -> None:
    leaders = {"web": start(), "db": start()}
    for pid in leaders.values():
        groups[pid] = "/libvirtd.service"
    fill(tmp_path / "libvirtd.service", *leaders.values(), memory=1)
    assert {name: found.processes for name, found in usages(leaders).items()} == {"web": 1, "db": 1}


def test_a_guest_with_many_processes_is_cut(tmp_path: Path, groups: dict[int, str], start: Start,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "PROCESSES_MAX", 2)
    leader = start()
    groups[leader] = "/web.scope"
    fill(tmp_path / "web.scope", leader, start(), start())
    found = usages({"web": leader})["web"]
    assert (found.processes, found.cut) == (2, True)


def test_who_has_ended_is_left_out(groups: dict[int, str]) -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert usages({"web": child.pid}) == {}
