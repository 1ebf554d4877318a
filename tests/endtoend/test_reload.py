# SPDX-License-Identifier: MIT
"""The configuration of a running daemon: applied by SIGHUP, all or nothing, and nothing is lost by it."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.endtoend.conftest import World
from tests.lab import PROJECT, TestHost, command, wait_for

APPLIED = "The configuration is applied"
REFUSED = "Nothing of the configuration is applied"


class Configured(World):
    """A World whose daemon reads its configuration at `path`."""

    def __init__(self, host: TestHost, path: Path) -> None:
        super().__init__(host, host.start_daemon(None, "--no-dbus", "--config", str(path)))
        self.path = path

    def reload(self, text: str, said: str = APPLIED) -> None:
        before = self.daemon.log.count(said)
        self.path.write_text(text)
        self.daemon.reload()
        wait_for(lambda: self.daemon.log.count(said) > before, what=f"{said!r} in the log:\n{self.daemon.log}")


@pytest.fixture
def configured(host: TestHost, tmp_path: Path) -> Configured:
    (tmp_path / "mymachinesd.toml").write_text("[log]\nlevel = 'debug'\nloud = true\n")
    return Configured(host, tmp_path / "mymachinesd.toml")


def test_a_slip_keeps_no_daemon_from_its_work(configured: Configured) -> None:
    assert f"{configured.path}:3: [log] has no 'loud'; it has level; it is passed over" in configured.daemon.log
    web = configured.machine("web")
    assert configured.addresses("ahosts", "web")
    assert configured.getent("passwd", "vu-web-5")[0].startswith(f"vu-web-5:!*:{web.host_uid(5)}:")


def test_all_or_nothing(configured: Configured) -> None:
    configured.reload("machines.maximum = 1")
    configured.machine("web")
    assert "DEBUG" in configured.daemon.log
    other = configured.host.container("db")
    refused = configured.ctl("register", "db", "--leader", other.leader, check=False)
    assert refused.startswith("1: ")
    assert "the log of mymachinesd says why" in refused
    configured.reload("machines.maximum = 2\n\n[connections]\nper-user = 'x'\n", REFUSED)
    assert f"{configured.path}:4: [connections] per-user must be" in configured.daemon.log
    assert configured.ctl("register", "db", "--leader", other.leader, check=False) == refused
    configured.reload("machines.maximum = 2\n")
    configured.register(other)
    # Who is there stays, though there are more than may be.
    configured.reload("machines.maximum = 1\n")
    assert [line.split()[0] for line in configured.ctl("list").splitlines()[1:3]] == ["db", "web"]
    configured.path.unlink()
    configured.daemon.reload()
    configured.daemon.expect_log(f"{APPLIED}: there is none")
    configured.machine("third")


WATCH = """
import json, sys
from resolver.varlink import MACHINE_SOCKET
from resolver.varlink.client import Client
with Client(MACHINE_SOCKET, 60) as client:
    for reply in client.call_more("io.mymachines.Machines.Watch", {}):
        print(json.dumps(reply), flush=True)
"""


@pytest.fixture
def watching(configured: Configured) -> Iterator["subprocess.Popen[bytes]"]:
    process = configured.host.popen([sys.executable, "-c", WATCH], stdout=subprocess.PIPE, cwd=PROJECT)
    yield process
    process.kill()
    process.wait(10)
    if process.stdout is not None:
        process.stdout.close()


def test_connections_outlive_it(configured: Configured, watching: "subprocess.Popen[bytes]") -> None:
    assert watching.stdout is not None
    assert json.loads(watching.stdout.readline()) == {"complete": True}
    configured.reload("[connections]\nmaximum = 64\nper-user = 1\nreserved-for-root = 1\n")
    configured.machine("web")
    found: list[dict[str, Any]] = []
    reader = threading.Thread(target=lambda: found.append(json.loads(watching.stdout.readline())))  # type: ignore[union-attr]
    reader.start()
    reader.join(10)
    assert [each["name"] for each in found] == ["web"]


def test_look_ups_go_on(configured: Configured) -> None:
    configured.machine("web")
    for number in range(20):
        configured.path.write_text(f"machines.maximum = {number + 1}\n")
        configured.daemon.reload()
        assert configured.addresses("ahosts", "web")
    wait_for(lambda: APPLIED in configured.daemon.log)


@pytest.mark.parametrize(("text", "status"), [("[log]\nlevel = 'error'", 0), ("[log]\nlevel = 'x'", 1)])
def test_check(tmp_path: Path, text: str, status: int) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    done = subprocess.run([*command("mymachinesd"), "--check", "--config", str(path)], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == status
    assert done.stdout == ""
    assert done.stderr.startswith(f"{path}:2: [log] level must be" if status else "") is True
    assert (done.stderr == "") is (status == 0)
