# SPDX-License-Identifier: MIT
"""Copies between the host and real containers, whatever these make of their files."""

import asyncio
import ctypes
import errno
import logging
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from resolver.core.errors import FileExists, FileNotFound, InvalidArgument, NotAvailable
from resolver.guest import copying
from resolver.guest.copying import Copied
from resolver.host.process import Process
from resolver.worker.run import Workers
from tests.files.trees import CAPABLE, lay_out, look
from tests.lab import Container, TestHost, wait_for
from tests.lab.processes import children, namespace
from tests.lab.waiting import Lines

DEADLINE = 60.0
RENAME_EXCHANGE = 1 << 1    # linux/fs.h

MakeGuest = Callable[..., Container]
Copy = Callable[..., Coroutine[Any, Any, Copied]]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of the host's that guests see another one in place of."""
    directory = Path(tempfile.mkdtemp(prefix="mymachines-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def guest(host: TestHost, place: Path) -> MakeGuest:
    """A container with two file systems of its own: /mnt, and the one over `place`."""

    def make(**options: Any) -> Container:
        container = host.container(f"guest{host.next_number()}", link=False, **options)
        script = 'mount -t tmpfs tmpfs /mnt; mount -t tmpfs tmpfs "$1"'
        container.exec(["sh", "-ec", script, "sh", place], check=True)
        return container

    return make


def inside(guest: Container, path: str) -> Path:
    return Path(f"/proc/{guest.leader}/root{path}")


def run(guest: Container, copy: Copy, source: str | Path, destination: str | Path = "", **options: bool) -> Copied:
    async def main() -> Copied:
        workers = Workers()
        try:
            with Process.open(guest.leader) as process:
                return await asyncio.wait_for(
                    copy(workers, process, str(source), str(destination), **options), DEADLINE)
        finally:
            await workers.close()

    return asyncio.run(main())


def copy_to(guest: Container, source: str | Path, destination: str = "", **options: bool) -> Copied:
    return run(guest, copying.copy_to, source, destination, **options)


def copy_from(guest: Container, source: str, destination: str | Path = "", **options: bool) -> Copied:
    return run(guest, copying.copy_from, source, destination, **options)


# --- what is promised ---

@pytest.mark.parametrize("user_namespace", [True, False])
def test_there_and_back(guest: MakeGuest, place: Path, user_namespace: bool) -> None:
    web = guest(user_namespace=user_namespace)
    lay_out(place / "source", devices=not user_namespace)
    before = look(place / "source")
    copied = copy_to(web, place / "source", "/mnt/copy")
    assert copied.files == len(before)
    assert copied.changes == 0
    assert copy_from(web, "/mnt/copy", place / "back") == copied
    assert look(place / "back") == before == look(place / "source")
    assert os.listdir(inside(web, "/mnt")) == ["copy"]
    assert sorted(os.listdir(place)) == ["back", "source"]


def test_ids_are_shifted_by_whatever_the_map_is(guest: MakeGuest, place: Path, host: TestHost) -> None:
    first = host.spare_ids[0] + 10_000_000
    web = guest(uid_map=[(0, first, 1000), (1000, first + 50_000, 1000)], gid_map=[(0, first + 7, 60_000)])
    lay_out(place / "source", devices=False)
    copy_to(web, place / "source", "/mnt/copy")
    owners = web.exec(["stat", "-c", "%u %g %a", "/mnt/copy/small", "/mnt/copy/set-user-id", "/mnt/copy"]).stdout
    assert owners.splitlines() == ["1000 1001 644", "12 34 6751", "0 0 755"]
    assert (inside(web, "/mnt/copy/small").stat().st_uid, inside(web, "/mnt/copy/small").stat().st_gid) == \
        (first + 50_000, first + 7 + 1001)
    assert "user:1000:rw-" in web.exec(["getfacl", "-n", "/mnt/copy/plain"]).stdout
    read = "import os, sys; sys.stdout.write(os.getxattr('/mnt/copy/capable', 'security.capability').hex())"
    assert web.exec(["python3", "-c", read]).stdout == CAPABLE.hex()
    # Outside, they are capabilities over the guest's users alone: the revision that names whose (linux/capability.h).
    assert os.getxattr(inside(web, "/mnt/copy/capable"), "security.capability")[3] == 3
    copy_from(web, "/mnt/copy", place / "back")
    assert look(place / "back") == look(place / "source")


def test_the_same_path_where_none_is_said(guest: MakeGuest, place: Path) -> None:
    web = guest()
    (place / "file").write_text("x")
    copy_to(web, place / "file")
    assert inside(web, f"{place}/file").read_text() == "x"
    (place / "file").unlink()
    copy_from(web, f"{place}/file")
    assert (place / "file").read_text() == "x"


def test_what_is_there_is_replaced_only_if_asked(guest: MakeGuest, place: Path) -> None:
    web = guest()
    (place / "file").write_text("one")
    copy_to(web, place / "file", "/mnt/file")
    (place / "file").write_text("two")
    with pytest.raises(FileExists, match=r"^machine:/mnt/file: File exists$"):
        copy_to(web, place / "file", "/mnt/file")
    assert inside(web, "/mnt/file").read_text() == "one"
    copy_to(web, place / "file", "/mnt/file", replace=True)
    assert inside(web, "/mnt/file").read_text() == "two"
    (place / "directory" / "below").mkdir(parents=True)
    copy_to(web, place / "directory", "/mnt/directory")
    web.exec(["touch", "/mnt/directory/own"], check=True)
    copy_to(web, place / "directory", "/mnt/directory", replace=True)
    assert sorted(os.listdir(inside(web, "/mnt/directory"))) == ["below", "own"]
    with pytest.raises(FileExists):
        copy_from(web, "/mnt/file", place / "directory")
    with pytest.raises(NotAvailable, match="a directory is there"):
        copy_from(web, "/mnt/file", place / "directory", replace=True)


def test_what_is_not_there(guest: MakeGuest, place: Path) -> None:
    web = guest()
    (place / "file").touch()
    for copy, source, destination in ((copying.copy_to, place / "none", "/mnt/x"), (copying.copy_to, place / "file",
                                      "/mnt/none/x"), (copying.copy_from, "/mnt/none", place / "x"),
                                      (copying.copy_from, "/proc/version", place / "none" / "x")):
        with pytest.raises(FileNotFound, match="none"):
            run(web, copy, source, destination)
    for source, destination in (("file", ""), ("", "/x"), ("/x", "y"), ("/x\0y", "")):
        with pytest.raises(InvalidArgument):
            copy_to(web, source, destination)


def test_ids_that_the_machine_has_not(guest: MakeGuest, place: Path) -> None:
    web = guest()
    lay_out(place / "source", devices=False)
    os.chown(place / "source" / "directory" / "full", 70_000, 0)
    with pytest.raises(NotAvailable, match=r"machine:/mnt/copy/directory/full: its user 70000 or its group 0 does not"):
        copy_to(web, place / "source", "/mnt/copy")
    assert os.listdir(inside(web, "/mnt")) == []


def test_a_full_disk(guest: MakeGuest, place: Path) -> None:
    web = guest()
    (place / "source").mkdir()
    (place / "source" / "small").write_text("x")
    (place / "source" / "zbig").write_bytes(b"x" * 2**22)
    web.exec(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"], check=True)
    with pytest.raises(NotAvailable, match=r"^machine:/mnt/copy/zbig: No space left on device \(after"):
        copy_to(web, place / "source", "/mnt/copy")
    assert os.listdir(inside(web, "/mnt")) == []


# --- how it ends ---

@contextmanager
def at_work(guest: Container, copy: Copy, source: str | Path, destination: str | Path) -> Iterator[tuple[
        Callable[[], int], Callable[[], None], Callable[[], BaseException | None]]]:
    """A copy in a thread: inner() waits for its inner process, cancel(), and result() waits for what was raised."""
    before = set(children())
    loop, raised = asyncio.new_event_loop(), list[BaseException]()
    task: list[asyncio.Task[Copied]] = []

    async def main() -> None:
        workers = Workers()
        with Process.open(guest.leader) as process:
            task.append(asyncio.create_task(copy(workers, process, str(source), str(destination))))
            try:
                await task[0]
            except BaseException as error:  # noqa: BLE001 - a test looks at it
                raised.append(error)
            await workers.close()

    def inner() -> int:
        def find() -> int:
            found = [pid for worker in set(children()) - before for pid in children(worker)]
            return found[0] if found else 0
        return wait_for(find)

    def result() -> BaseException | None:
        thread.join(DEADLINE)
        return raised[0] if raised else None

    def cancel() -> None:
        loop.call_soon_threadsafe(task[0].cancel)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    try:
        yield inner, cancel, result
    finally:
        thread.join(DEADLINE)
        loop.close()


def big_tree(top: Path) -> None:
    for directory in range(30):
        (top / str(directory)).mkdir(parents=True)
        for file in range(100):
            (top / str(directory) / str(file)).write_text("x" * file)


def test_one_that_is_given_up_leaves_nothing(guest: MakeGuest, place: Path) -> None:
    web = guest()
    big_tree(place / "source")
    with at_work(web, copying.copy_to, place / "source", "/mnt/copy") as (_, cancel, result):
        wait_for(lambda: os.listdir(inside(web, "/mnt")))
        cancel()
        assert isinstance(result(), asyncio.CancelledError)
    assert os.listdir(inside(web, "/mnt")) == []
    copy_to(web, place / "source", "/mnt/copy")
    with at_work(web, copying.copy_from, "/mnt/copy", place / "back") as (_, cancel, result):
        wait_for(lambda: len(os.listdir(place)) > 1)
        cancel()
        assert isinstance(result(), asyncio.CancelledError)
    assert os.listdir(place) == ["source"]


def test_the_inner_process_has_the_rights_of_the_machine_s_root(guest: MakeGuest, place: Path) -> None:
    web = guest()
    big_tree(place / "source")
    with at_work(web, copying.copy_to, place / "source", "/mnt/copy") as (inner, cancel, _):
        pid = inner()
        wait_for(lambda: os.listdir(inside(web, "/mnt")))
        os.kill(pid, signal.SIGSTOP)
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        fds = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        assert status["Uid"].split() == [str(web.host_uid(0))] * 4
        assert status["Gid"].split() == [str(web.host_gid(0))] * 4
        assert status["Groups"].split() == []
        assert namespace(pid, "user") == namespace(web.leader, "user")
        assert namespace(pid, "mnt") == namespace("self", "mnt")
        assert Path(f"/proc/{pid}/environ").stat().st_uid == 0  # not dumpable (proc(5))
        assert len([fd for fd in fds if fd.startswith("socket:")]) == 1, fds
        os.kill(pid, signal.SIGCONT)
        cancel()


MUTE = """
import ctypes, os, signal, sys
os.mkdir("/mnt/mute")
fd = os.open(sys.argv[1], os.O_RDWR)
options = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fd
assert ctypes.CDLL(None).mount(b"mute", b"/mnt/mute", b"fuse", 6, options) == 0  # MS_NOSUID, MS_NODEV (mount(2))
print("mounted", flush=True)
signal.pause()
"""


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="this kernel has no fuse")
def test_a_file_system_that_never_answers(guest: MakeGuest, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "PATIENCE_SECONDS", 2.0)
    web = guest()
    (place / "file").touch()
    with tempfile.TemporaryDirectory(prefix="mymachines-test-") as folder:  # some hosts keep /dev/fuse for root
        os.chmod(folder, 0o755)
        os.mknod(f"{folder}/fuse", stat.S_IFCHR | 0o666, os.stat("/dev/fuse").st_rdev)
        os.chmod(f"{folder}/fuse", 0o666)
        server = web.popen(["python3", "-c", MUTE, f"{folder}/fuse"], stdout=subprocess.PIPE)
        assert Lines(server).next(DEADLINE) == "mounted"
    for copy, source, destination in ((copying.copy_from, "/mnt/mute/x", place / "x"),
                                      (copying.copy_from, "/mnt", place / "x"),
                                      (copying.copy_to, place / "file", "/mnt/mute/x")):
        with pytest.raises(NotAvailable, match="no answer within 2 s"):
            run(web, copy, source, destination)
    assert not (place / "x").exists()
    assert server.stdout is not None
    server.stdout.close()


# --- what a guest may do about it ---

@pytest.fixture
def secret(place: Path) -> Path:
    """A file of root's alone, in `place`."""
    (place / "secret").write_text("SECRET")
    (place / "secret").chmod(0o600)
    return place / "secret"


@pytest.mark.parametrize("user_namespace", [True, False])
def test_no_path_leads_out_of_the_guest(guest: MakeGuest, place: Path, secret: Path, user_namespace: bool) -> None:
    web = guest(user_namespace=user_namespace)
    above = "../" * 20
    for name, target in (("absolute", place), ("above", f"{above}{place}"), ("magic", f"/proc/1/root{place}")):
        web.exec(["ln", "-s", target, f"/mnt/{name}"], check=True)
    (place / "file").write_text("from the host")
    for path in ("/mnt/absolute", "/mnt/above", f"/{above}{place}", f"/mnt/{above}{place}"):
        with pytest.raises(FileNotFound):
            copy_from(web, f"{path}/secret", place / "copy")
        copy_to(web, place / "file", f"{path}/new")
        assert inside(web, f"{place}/new").read_text() == "from the host"
        assert sorted(os.listdir(place)) == ["file", "secret"]
        inside(web, f"{place}/new").unlink()
    with pytest.raises(NotAvailable, match="symbolic links"):
        copy_from(web, "/mnt/magic/secret", place / "copy")
    with pytest.raises(NotAvailable, match="symbolic links"):
        copy_to(web, place / "file", "/mnt/magic/new")


def test_a_link_is_copied_as_one(guest: MakeGuest, place: Path, secret: Path) -> None:
    web = guest()
    web.exec(["ln", "-s", secret, "/mnt/link"], check=True)
    copy_from(web, "/mnt/link", place / "copy")
    assert os.readlink(place / "copy") == str(secret)
    copy_to(web, secret, "/mnt/link", replace=True)
    assert not inside(web, "/mnt/link").is_symlink()


def test_what_a_guest_may_not_read_is_not_read_for_it(guest: MakeGuest, place: Path, host: TestHost) -> None:
    """It may mount any file of the host over one of its own."""
    (place / "secret").write_text("SECRET")
    (place / "secret").chmod(0o600)
    (place / "public").write_text("public")
    (place / "back").mkdir()
    web = host.container("web", link=False)
    script = """mount -t tmpfs tmpfs /mnt; touch /mnt/s /mnt/p
                mount --bind "$1/secret" /mnt/s; mount --bind "$1/public" /mnt/p"""
    web.exec(["sh", "-ec", script, "sh", place], check=True)
    with pytest.raises(NotAvailable, match=r"/mnt/s: Permission denied"):
        copy_from(web, "/mnt/s", place / "back" / "copy")
    with pytest.raises(NotAvailable, match="belongs to the host's user 0"):
        copy_from(web, "/mnt/p", place / "back" / "copy")
    with pytest.raises(NotAvailable):
        copy_from(web, "/mnt", place / "back" / "copy")
    assert os.listdir(place / "back") == []
    assert (place / "secret").read_text() == "SECRET"


@pytest.mark.parametrize("user_namespace", [True, False])
def test_device_nodes(guest: MakeGuest, place: Path, user_namespace: bool) -> None:
    web = guest(user_namespace=user_namespace)
    os.mknod(place / "disk", stat.S_IFBLK | 0o666, os.makedev(250, 77))
    if user_namespace:
        with pytest.raises(NotAvailable, match="a device node"):
            copy_to(web, place / "disk", "/mnt/disk")
        with pytest.raises(NotAvailable, match="a device node"):
            copy_from(web, "/dev/null", place / "null")
        assert os.listdir(place) == ["disk"]
    else:
        copy_to(web, place / "disk", "/mnt/disk")
        copy_from(web, "/mnt/disk", place / "back")
        assert (place / "back").stat().st_rdev == os.makedev(250, 77)


def test_a_copy_that_fails_in_the_middle_leaves_nothing(guest: MakeGuest, place: Path) -> None:
    """Whichever of the two processes hears of it first."""
    web = guest()
    (place / "source").mkdir()
    os.mknod(place / "source/disk", stat.S_IFBLK | 0o666, os.makedev(250, 77))
    for _ in range(20):
        with pytest.raises(NotAvailable, match="a device node"):
            copy_to(web, place / "source", "/mnt/copy")
        assert os.listdir(inside(web, "/mnt")) == []


def test_a_fifo_makes_nobody_wait(guest: MakeGuest, place: Path) -> None:
    web = guest()
    web.exec(["mkfifo", "/mnt/fifo"], check=True)
    copy_from(web, "/mnt/fifo", place / "copy")
    assert (place / "copy").is_fifo()
    with pytest.raises(NotAvailable, match="Not a directory"):
        copy_from(web, "/mnt/fifo/x", place / "x")
    with pytest.raises(NotAvailable, match="Not a directory"):
        copy_to(web, place / "copy", "/mnt/fifo/x")


@contextmanager
def restlessly(change: Callable[[], None]) -> Iterator[None]:
    """`change` is done again and again meanwhile."""
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            with suppress(OSError):
                change()
            ended.wait(0.0002)  # or nobody else in this process would have a turn

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def exchange(directory: Path, one: str, other: str) -> None:
    fd = os.open(directory, os.O_PATH)
    try:
        if ctypes.CDLL(None).renameat2(fd, one.encode(), fd, other.encode(), RENAME_EXCHANGE) < 0:
            raise OSError(errno.EIO, "renameat2")
    finally:
        os.close(fd)


def test_a_directory_that_is_swapped_for_a_link_all_the_time(guest: MakeGuest, place: Path, secret: Path) -> None:
    """The inner process is the host's root here: nothing but its care keeps it in the guest."""
    web = guest(user_namespace=False)
    (place / "source" / "directory").mkdir(parents=True)
    (place / "source" / "directory" / "new").write_text("new")
    top = inside(web, "/mnt/top")
    (top / "directory").mkdir(parents=True)
    (top / "directory" / "secret").write_text("the guest's own")
    (top / "link").symlink_to(f"/proc/1/root/../../../..{place}")
    before = sorted(os.listdir(place))
    done = 0
    with restlessly(lambda: exchange(top, "directory", "link")):
        for number in range(15):
            with suppress(NotAvailable, FileNotFound):
                copy_from(web, "/mnt/top/directory", place / f"copy{number}")
                done += 1
            with suppress(NotAvailable, FileNotFound):
                copy_to(web, place / "source", "/mnt/top", replace=True)
                done += 1
    assert done
    for copy in place.glob("copy*"):
        assert copy.is_symlink() or (copy / "secret").read_text() == "the guest's own"
        if not copy.is_symlink():
            shutil.rmtree(copy)
        else:
            copy.unlink()
    assert sorted(os.listdir(place)) == before
    assert secret.read_text() == "SECRET"


def test_a_tree_that_changes_all_the_time(guest: MakeGuest, place: Path) -> None:
    web = guest(user_namespace=False)
    big_tree(inside(web, "/mnt/top"))
    number = 0

    def change() -> None:
        nonlocal number
        number += 1
        directory = inside(web, f"/mnt/top/{number % 30}")
        (directory / "new").write_text("x" * number)
        (directory / "new").rename(directory / str(number % 200))
        (directory / str((number + 50) % 100)).unlink()

    with restlessly(change):
        for number_of_copy in range(2):
            with suppress(NotAvailable):
                copy_from(web, "/mnt/top", place / str(number_of_copy))
    for copy in place.iterdir():
        assert copy.name.isdigit()
        assert len(list(copy.iterdir())) == 30


def test_how_far_it_came_is_logged(guest: MakeGuest, place: Path, caplog: pytest.LogCaptureFixture) -> None:
    web = guest()
    (place / "file").write_text("four")
    with caplog.at_level(logging.INFO):
        copy_to(web, place / "file", "/mnt/file")
    assert "1 files, 4 bytes" in caplog.text
