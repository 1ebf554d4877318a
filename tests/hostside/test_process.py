# SPDX-License-Identifier: MIT
import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from resolver.core.idmap import Extent, IdMap
from resolver.core.machine import ProcessId
from resolver.host import process as process_module
from resolver.host.process import NoSuchProcess, Process, boot_id
from tests.hostside.worlds import needs_root, run_inside, sleeper
from tests.lab.cgroups import Scope
from tests.lab.waiting import wait_for

OLD_AND_NEW_KERNELS = [False, pytest.param(True, marks=pytest.mark.skipif(
    not process_module.have_pidfd_ids(), reason="Linux before 6.9 has no pidfd ids"))]


@pytest.fixture
def child() -> Iterator[int]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        # Popen() returns a moment before exec(2) has changed the name
        wait_for(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
        yield process.pid
        process.kill()


def fds() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("have_ids", OLD_AND_NEW_KERNELS)
def test_a_process_is_found_again_by_its_identity(child: int, have_ids: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "have_pidfd_ids", lambda: have_ids)
    with Process.open(child) as process:
        identity = process.identity()
    assert identity.pid == child
    assert identity.boot_id == boot_id()
    assert len(boot_id()) == 32
    assert (identity.pidfd_id is not None, identity.start_time is None) == (have_ids, have_ids)
    with Process.from_identity(identity) as again:
        assert again.identity() == identity


@pytest.mark.parametrize("have_ids", OLD_AND_NEW_KERNELS)
@pytest.mark.parametrize("change", [{"start_time": 1, "pidfd_id": 1}, {"boot_id": "0" * 32},
                                    {"start_time": None, "pidfd_id": None}])
def test_another_identity_is_not_believed(child: int, have_ids: bool, change: dict[str, object],
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "have_pidfd_ids", lambda: have_ids)
    with Process.open(child) as process:
        identity = process.identity()
    before = fds()
    with pytest.raises(NoSuchProcess):
        Process.from_identity(identity._replace(**change))  # type: ignore[arg-type]
    assert fds() == before


def test_start_time_counts_where_one_side_has_no_pidfd_id(child: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, Process.open(child) as process:
        patch.setattr(process_module, "have_pidfd_ids", lambda: False)
        identity = process.identity()
    Process.from_identity(identity).close()
    with pytest.raises(NoSuchProcess):  # the start time alone proves nothing
        Process.from_identity(identity._replace(boot_id=None))


@needs_root
def test_a_recycled_number_is_not_the_process() -> None:
    run_inside(["-p", "-f", "-m", "--mount-proc", "--kill-child"], "recycle")


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1, 2**31, 2**64])
def test_what_is_no_process_id_is_refused(pid: int) -> None:
    with pytest.raises(NoSuchProcess) as caught:
        Process.open(pid)
    assert caught.value.pid == pid


def test_a_zombie_is_refused_and_an_exit_is_seen() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child, Process.open(child.pid) as process:
        assert not process.exited()
        assert child.stdin is not None
        child.stdin.close()
        wait_for(process.exited)
        assert "Z" in Path(f"/proc/{child.pid}/stat").read_text()
        with pytest.raises(NoSuchProcess):
            Process.open(child.pid)
        with pytest.raises(NoSuchProcess):
            process.id_maps()


def test_a_thread_is_refused() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        with pytest.raises(NoSuchProcess):
            Process.open(thread.native_id)
    finally:
        done.set()
        thread.join()


def test_a_program_that_becomes_another_stays_the_process() -> None:
    with subprocess.Popen(["sh", "-c", "read x; exec sleep 1000"], stdin=subprocess.PIPE) as child:
        with Process.open(child.pid) as process:
            identity = process.identity()
            assert child.stdin is not None
            child.stdin.write(b"\n")
            child.stdin.flush()
            wait_for(lambda: process.read("comm") == "sleep\n")
            assert process.identity() == identity
            Process.from_identity(identity).close()
        child.kill()


def test_a_pidfd_that_was_sent_is_held(child: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sent = os.pidfd_open(child)
        socket.send_fds(theirs, [b"x"], [sent])
        os.close(sent)
        _, received, _, _ = socket.recv_fds(ours, 1, 1)
    with Process.from_pidfd(received[0]) as process:
        assert process.pid == child
        assert process.fileno() == received[0]


@pytest.mark.parametrize("make", [lambda: os.eventfd(0), lambda: os.open("/dev/null", os.O_RDONLY),
                                  lambda: os.open("/proc/self", os.O_RDONLY)])
def test_what_is_no_pidfd_is_refused_and_closed(make: object) -> None:
    before = fds()
    with pytest.raises(ValueError, match="no pidfd"):
        Process.from_pidfd(make())  # type: ignore[operator]
    assert fds() == before


def test_a_threads_pidfd_is_refused() -> None:
    fd = ctypes.CDLL(None).syscall(434, os.getpid(), os.O_EXCL)  # pidfd_open(PIDFD_THREAD), the same number everywhere
    if fd < 0:
        pytest.skip("Linux before 6.9 has no thread pidfds")
    with pytest.raises(ValueError, match="thread"):
        Process.from_pidfd(fd)


def test_a_pidfd_of_a_process_that_was_waited_for_is_refused() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        fd = os.pidfd_open(process.pid)
        process.kill()
    before = fds()
    with pytest.raises(NoSuchProcess):
        Process.from_pidfd(fd)
    assert fds() == before - 1


def test_a_file_of_proc_has_a_bound(child: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with Process.open(child) as process:
        assert process.read("comm") == "sleep\n"
        monkeypatch.setattr(process_module, "READ_MAX", 10)
        with pytest.raises(ValueError, match="longer than 10"):
            process.read("status")


def test_a_closed_process_answers_nothing(child: int) -> None:
    process = Process.open(child)
    process.close()
    process.close()
    for ask in (process.exited, process.identity, process.fileno, process.id_maps, lambda: process.send_signal(0)):
        with pytest.raises(ValueError, match="closed"):
            ask()


def test_a_command_name_cannot_forge_the_start_time() -> None:
    with Process.open(os.getpid()) as process:
        before = process.start_time()
        comm = Path("/proc/self/comm")
        name = comm.read_text()
        try:
            comm.write_text("a) S 1 (b)")
            assert process.start_time() == before
        finally:
            comm.write_text(name.strip())
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert 0 <= now - before / os.sysconf("SC_CLK_TCK") < 3600 * 24


def test_a_signal_reaches_the_process(child: int) -> None:
    with Process.open(child) as process:
        process.send_signal(signal.SIGTERM)
        wait_for(process.exited)


@needs_root
def test_maps_of_a_user_namespace() -> None:
    with sleeper("-U") as pid, Process.open(pid) as process:
        assert not process.shares_namespace("user")
        assert process.id_maps() == (IdMap(), IdMap(), True)
        uids = IdMap((Extent(0, 100000, 1000), Extent(5000, 200000, 1)))
        Path(f"/proc/{pid}/uid_map").write_text("0 100000 1000\n5000 200000 1\n")
        assert process.id_maps() == (uids, IdMap(), True)
        Path(f"/proc/{pid}/gid_map").write_text("0 300000 65536\n")
        assert process.id_maps() == (uids, IdMap((Extent(0, 300000, 65536),)), False)


@needs_root
@pytest.mark.parametrize("count", [60, 62, 63, 124, 125, 186, 187, 248, 340])
def test_a_map_is_read_to_its_end(count: int) -> None:
    """A page of it has 124 lines, and the kernel takes 340 extents."""
    lines = [f"{2 * number} {1000 + number} 1\n" for number in range(count)]
    with sleeper("-U") as pid, Process.open(pid) as process:
        Path(f"/proc/{pid}/uid_map").write_text("".join(lines))
        assert process.id_maps().uid == IdMap(tuple(Extent(2 * n, 1000 + n, 1) for n in range(count)))


@needs_root
def test_a_map_that_reads_like_the_hosts_is_a_map_all_the_same() -> None:
    with sleeper("-U") as pid, Process.open(pid) as process:
        Path(f"/proc/{pid}/uid_map").write_text("0 0 4294967295\n")
        assert process.id_maps().uid.extents == (Extent(0, 0, 2**32 - 1),)


def test_the_hosts_user_namespace_has_no_map(child: int) -> None:
    with Process.open(child) as process:
        assert process.shares_namespace("user")
        assert process.id_maps() == (IdMap(), IdMap(), False)


@needs_root
def test_namespaces_are_compared() -> None:
    with sleeper("-n") as pid, Process.open(pid) as process:
        assert not process.shares_namespace("net")
        assert process.shares_namespace("mnt")
        fd = process.open_namespace("net")
        assert (os.fstat(fd).st_dev, os.fstat(fd).st_ino) == process.namespace("net")
        os.close(fd)


@needs_root
def test_whose_process_it_is() -> None:
    with subprocess.Popen(["setpriv", "--reuid=12345", "--clear-groups", "--regid=12345", "unshare", "-U",
                           "sleep", "1000"]) as child:
        try:
            wait_for(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "sleep\n")
            Path(f"/proc/{child.pid}/uid_map").write_text("0 100000 10\n12345 12345 1\n")
            with Process.open(child.pid) as process:
                assert process.owned_by(12345)
                assert not process.owned_by(0)
                assert not process.owned_by(100000)
        finally:
            child.kill()
    # Half set-uid: the real uid is the caller's and the effective one root's, as in su(1) before it asks.
    with subprocess.Popen(["setpriv", "--ruid=12345", "sleep", "1000"]) as child:
        try:
            wait_for(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "sleep\n")
            with Process.open(child.pid) as process:
                assert process.owner() == 0
                assert not process.owned_by(12345)
        finally:
            child.kill()


@needs_root
def test_the_unit_of_its_control_group(child: int) -> None:
    scope = Scope("machine-a\\x2db.scope")
    try:
        with Process.open(child) as process:
            assert process.unit() == ""
            scope.add(child)
            assert process.unit() == "machine-a\\x2db.scope"
    finally:
        scope.close()


def test_an_identity_of_nothing_is_nobody() -> None:
    with pytest.raises(NoSuchProcess):
        Process.from_identity(ProcessId(os.getpid()))


def test_descriptors_are_not_inherited(child: int) -> None:
    with Process.open(child) as process:
        assert not os.get_inheritable(process.fileno())
