# SPDX-License-Identifier: MIT
"""mymachines-userdb as a process: ready, alone, out of the way, and gone when told."""

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resolver.core.idmap import Extent, IdMap
from resolver.core.machine import Machine, MachineClass, ProcessId
from resolver.core.registry import Registry
from resolver.table.writer import TableWriter
from resolver.varlink.client import Client
from resolver.varlink.errors import VarlinkError
from tests.servers.dialogue import PATIENCE, Dialogue, message

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")  # the table must be root's

SHIFT = 1587085312
SERVICE = "io.systemd.Machine"
GET_USER = "io.systemd.UserDatabase.GetUserRecord"


class Userdb:
    """The process, ready."""

    def __init__(self, directory: Path, *before: str, **environment: str | None) -> None:
        self.socket = str(directory / "userdb" / SERVICE)
        self.table = str(directory / "table-2")
        notify_path = str(directory / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(notify_path)
            ready.settimeout(PATIENCE)
            self.process = subprocess.Popen(
                [*before, *self.command()], stderr=subprocess.PIPE, text=True,
                env={
                    "NOTIFY_SOCKET": notify_path, "PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path),
                    **{name: value for name, value in environment.items() if value is not None}})
            try:
                self.said = ready.recv(4096).decode()
            except BaseException:
                self.process.kill()
                self.process.communicate()
                raise
            finally:
                os.unlink(notify_path)

    def command(self) -> list[str]:
        return [sys.executable, "-m", "resolver.userdb", "--socket", self.socket, "--table", self.table]

    def user(self, **asked: object) -> object:
        """The record, or the error's name."""
        with Client(self.socket, PATIENCE) as client:
            try:
                return client.call(GET_USER, {"service": SERVICE, **asked})["record"]
            except VarlinkError as error:
                return error.name.rpartition(".")[2]

    def stop(self) -> str:
        """SIGTERM, its exit status, what it has logged."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.communicate(timeout=PATIENCE)[1]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Userdb]]:
    running: list[Userdb] = []

    def run(*before: str, **environment: str | None) -> Userdb:
        running.append(Userdb(tmp_path, *before, **environment))
        return running[-1]

    yield run
    for userdb in running:
        if userdb.process.poll() is None:
            userdb.process.kill()
            userdb.process.wait(PATIENCE)
        assert userdb.process.stderr is not None
        userdb.process.stderr.close()


@pytest.fixture
def table(tmp_path: Path) -> Iterator[TableWriter]:
    """A table with the machine `web`."""
    registry = Registry()
    id_map = IdMap((Extent(0, SHIFT, 65536),))
    writer = TableWriter(str(tmp_path / "table-2"), registry)
    writer.reset()
    writer.publish(registry.add(Machine("web", MachineClass.CONTAINER, ProcessId(1), uid_map=id_map, gid_map=id_map)))
    yield writer
    writer.close(unlink=True)


def test_answers_from_the_table(start: Callable[..., Userdb], table: TableWriter) -> None:
    userdb = start()
    assert userdb.said.startswith("READY=1\n")
    record = userdb.user(uid=SHIFT + 1000)
    assert isinstance(record, dict)
    assert record["userName"] == "vu-web-1000"
    assert userdb.user(userName="vu-web-1000") == record
    assert userdb.user(uid=SHIFT + 65536) == "NoRecordFound"
    assert userdb.user(userName="vu-other-1000") == "NoRecordFound"
    assert userdb.stop() == ""
    assert userdb.process.returncode == 0


def test_answers_without_a_table_and_finds_it_when_it_comes(start: Callable[..., Userdb],
                                                            request: pytest.FixtureRequest) -> None:
    userdb = start()
    assert userdb.user(uid=SHIFT) == "NoRecordFound"
    request.getfixturevalue("table")
    deadline = time.monotonic() + PATIENCE
    while userdb.user(uid=SHIFT) == "NoRecordFound":
        assert time.monotonic() < deadline


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_and_takes_the_socket_away(start: Callable[..., Userdb], number: int) -> None:
    userdb = start()
    with Dialogue(userdb.socket) as half_way:
        half_way.send(message(GET_USER, {})[:20])
        assert userdb.user() == "EnumerationNotSupported"
        begin = time.monotonic()
        userdb.process.send_signal(number)
        assert userdb.process.wait(PATIENCE) == 0
        assert time.monotonic() - begin < 1
        assert os.listdir(os.path.dirname(userdb.socket)) == []


def test_killed_it_leaves_a_socket_that_refuses_and_that_the_next_one_replaces(start: Callable[..., Userdb]) -> None:
    userdb = start()
    userdb.process.kill()
    userdb.process.wait(PATIENCE)
    begin = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        userdb.user(uid=SHIFT)
    assert time.monotonic() - begin < 1
    assert start().user(uid=SHIFT) == "NoRecordFound"


def test_a_second_one_says_so_and_leaves_the_first_alone(start: Callable[..., Userdb], tmp_path: Path) -> None:
    userdb = start()
    second = subprocess.run(userdb.command(), capture_output=True, text=True, timeout=PATIENCE * 6)
    assert second.returncode == os.EX_TEMPFAIL
    assert f"already running as pid {userdb.process.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    assert userdb.user(uid=SHIFT) == "NoRecordFound"

    pid_file = tmp_path / "userdb.pid"
    assert stat.S_IMODE(pid_file.stat().st_mode) == 0o600  # who can open it can lock it
    pid, start_time = pid_file.read_text().split()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert (int(pid), start_time) == (userdb.process.pid, fields[19])

    userdb.stop()
    assert start().user(uid=SHIFT) == "NoRecordFound"


def test_a_pid_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "userdb.pid").symlink_to(victim)
    run = subprocess.run([sys.executable, "-m", "resolver.userdb", "--socket", str(tmp_path / "s"), "--table",
                          str(tmp_path / "table-2")], capture_output=True, text=True, timeout=PATIENCE * 6)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_options_that_only_tell(option: str) -> None:
    run = subprocess.run([sys.executable, "-m", "resolver.userdb", option], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    assert "mymachines-userdb" in run.stdout


def test_hostile_clients_disturb_nobody(start: Callable[..., Userdb], table: TableWriter) -> None:
    userdb = start()
    clients = [Dialogue(userdb.socket) for _ in range(200)]
    try:
        for n, client in enumerate(clients):
            client.send([b"", b'{"meth', message(GET_USER, {"service": SERVICE, "uid": SHIFT})][n % 3])
        for _ in range(20):
            begin = time.monotonic()
            assert userdb.user(uid=SHIFT) != "NoRecordFound"
            assert time.monotonic() - begin < 1
        clients[0].send(b"nonsense\0")
        clients[0].closed_after()
    finally:
        for client in clients:
            client.sock.close()
    assert "protocol error" in userdb.stop()


@pytest.mark.parametrize("home", [None, "/"])
def test_no_look_up_goes_through_nss(start: Callable[..., Userdb], table: TableWriter, tmp_path: Path,
                                     home: str | None) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace")
    trace = tmp_path / "trace"
    userdb = start(strace, "-f", "-qq", "-e", "trace=%file,connect,execve", "-o", str(trace), HOME=home)
    assert userdb.user(uid=SHIFT) != "NoRecordFound"
    assert userdb.user(userName="root") == "NoRecordFound"
    with Dialogue(userdb.socket) as client:
        client.send(b"nonsense\0")
        client.closed_after()
    pid = int((tmp_path / "userdb.pid").read_text().split()[0])
    os.kill(pid, signal.SIGTERM)
    userdb.stop()
    traced = trace.read_text()
    if home is None:
        # Without HOME, Python itself asks for root's entry while it starts (site.getuserbase()), whatever its options:
        # the unit sets HOME for that. Nothing of ours may ask, expanduser() included.
        traced = re.split(r"open\w*\(.*/resolver/(?:__pycache__/)?__init__", traced, maxsplit=1)[1]
    assert "table-2" in traced
    assert re.findall(r"nsswitch|libnss|/etc/passwd|/etc/group|nscd|resolv\.conf", traced) == []
    connected = re.findall(r"connect\(.*sun_path=\"?([^\"}]+)", traced)
    assert connected == []


def test_it_needs_neither_asyncio_nor_what_else_is_big() -> None:
    code = ("import sys, resolver.userdb.__main__ as m; m.user_database_interface(); "
            "print(sorted({'asyncio', 'argparse', 'subprocess', 'ssl', 'ctypes'} & sys.modules.keys()))")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("[]\n", "")
