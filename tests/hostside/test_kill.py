# SPDX-License-Identifier: MIT
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resolver import leaders
from resolver.core.errors import NotAvailable, NotSupported
from resolver.host import cgroup, kill
from resolver.host.kill import kill_all
from resolver.host.process import NoSuchProcess, Process
from tests.hostside.worlds import needs_root
from tests.lab.cgroups import Scope
from tests.lab.waiting import wait_for

pytestmark = needs_root
UNIT = "machine-web.scope"
FORKER = "import os, time\ninput()\nfor _ in range(6): os.fork()\ntime.sleep(1000)\n"


@pytest.fixture
def scope() -> Iterator[Scope]:
    scope = Scope(UNIT)
    yield scope
    below = [path for procs in scope.procs_files for path in procs.parent.glob("*/") if path.is_dir()]
    for path in below:
        wait_for(lambda path=path: not (path / "cgroup.procs").read_text().split())  # type: ignore[misc]
        path.rmdir()
    scope.close()


@pytest.fixture
def machine(scope: Scope) -> Iterator[Process]:
    """64 processes in the unit, the leader the first."""
    with subprocess.Popen([sys.executable, "-c", FORKER], stdin=subprocess.PIPE) as child:
        try:
            scope.add(child.pid)
            assert child.stdin is not None
            child.stdin.write(b"\n")
            child.stdin.close()
            wait_for(lambda: len(scope.pids()) == 64)
            with Process.open(child.pid) as leader:
                yield leader
        finally:
            for pid in scope.pids():
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_all_processes_of_the_unit_are_signalled(machine: Process, scope: Scope, number: int) -> None:
    kill_all(machine, UNIT, number)
    wait_for(machine.exited)
    wait_for(lambda: all("Z" in stat(pid) for pid in scope.pids()))


def stat(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def test_groups_below_the_unit_are_the_machines_too(machine: Process, scope: Scope) -> None:
    for procs in scope.procs_files:
        payload = procs.parent / "payload"
        payload.mkdir()
        with subprocess.Popen(["sleep", "1000"]) as child:
            try:
                (payload / "cgroup.procs").write_text(str(child.pid))
                if procs == Path(cgroup.hierarchy().mount + machine.group_path()) / "cgroup.procs":
                    kill_all(machine, UNIT, signal.SIGTERM)
                    assert child.wait(10) == -signal.SIGTERM
            finally:
                child.kill()


def test_a_process_that_is_no_member_any_more_is_spared(scope: Scope) -> None:
    with subprocess.Popen(["sleep", "1000"]) as child:
        scope.add(child.pid)
        with Process.open(child.pid) as process:
            group = process.group_path()
        for procs in scope.procs_files:
            procs.parent.parent.parent.joinpath("cgroup.procs").write_text(str(child.pid))
        kill._signal_member(child.pid, group, signal.SIGKILL)
        scope.add(child.pid)
        kill._signal_member(child.pid, group, signal.SIGTERM)
        assert child.wait(10) == -signal.SIGTERM  # SIGKILL, had it come, would have been first


def test_a_machine_without_a_unit_of_its_own_is_refused(machine: Process) -> None:
    with subprocess.Popen(["sleep", "1000"]) as child, Process.open(child.pid) as leader:
        for unit in ("", UNIT):
            with pytest.raises(NotSupported, match="no systemd unit"):
                kill_all(leader, unit, signal.SIGTERM)
        child.kill()
    with pytest.raises(NotSupported):
        kill_all(machine, "other.scope", signal.SIGTERM)
    assert not machine.exited()


@pytest.mark.parametrize("name", ["user@1000.service", "session-c3.scope", "init.scope"])
def test_a_unit_that_others_share_is_refused(name: str) -> None:
    scope = Scope(name)
    try:
        with subprocess.Popen(["sleep", "1000"]) as child, Process.open(child.pid) as leader:
            scope.add(child.pid)
            with pytest.raises(NotSupported, match=re.escape(name)):
                kill_all(leader, name, signal.SIGTERM)
            assert not leader.exited()
            child.kill()
    finally:
        scope.close()


def test_the_daemons_own_unit_is_refused(machine: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: machine.pid)
    with pytest.raises(NotSupported, match="not its own alone"):
        kill_all(machine, UNIT, signal.SIGTERM)
    assert not machine.exited()


def test_there_is_an_end_to_it(machine: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kill, "KILL_SECONDS", -1.0)
    with pytest.raises(NotAvailable):
        kill_all(machine, UNIT, signal.SIGCONT)


def test_a_dead_leader_has_no_unit(scope: Scope) -> None:
    with subprocess.Popen(["sleep", "1000"]) as child, Process.open(child.pid) as leader:
        scope.add(child.pid)
        child.kill()
        wait_for(leader.exited)
        with pytest.raises(NoSuchProcess):
            kill_all(leader, UNIT, signal.SIGTERM)


NAMED = "import time\nopen('/proc/self/comm', 'w').write('x\\fNSpid: 9 1')\nprint(flush=True)\ntime.sleep(1000)\n"


def test_a_leader_does_not_rule_a_pid_namespace_because_it_says_so() -> None:
    """Its name stands before the line that counts. Who rules one is killed alone, and the kernel kills the others."""
    with subprocess.Popen([sys.executable, "-c", NAMED], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            with Process.open(child.pid) as leader:
                assert not leaders.rules_pid_namespace(leader)
        finally:
            child.kill()


def test_the_first_process_of_a_pid_namespace_rules_it() -> None:
    with subprocess.Popen(["unshare", "--pid", "--fork", "sleep", "1000"]) as parent:
        try:
            children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
            wait_for(lambda: bool(children.read_text()), what="unshare to fork")
            with Process.open(int(children.read_text())) as leader:
                try:
                    assert leaders.rules_pid_namespace(leader)
                finally:
                    leader.send_signal(signal.SIGKILL)
        finally:
            parent.kill()
