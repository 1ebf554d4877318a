# SPDX-License-Identifier: MIT
"""Directories and files of the host, mounted in containers that run."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from resolver.core.errors import InvalidArgument, MachineError, NotAvailable
from tests.enter.worlds import enter, guest
from tests.lab import Container, TestHost, wait_for


@pytest.fixture
def data() -> Iterator[Path]:
    """A directory of the host's root, with a file in it."""
    with tempfile.TemporaryDirectory(prefix="mymachines-test-") as folder:
        data = Path(folder, "data")
        data.mkdir(mode=0o755)
        Path(folder).chmod(0o755)
        (data / "one").write_text("1\n")
        os.chown(data / "one", 1000, 1000)
        yield data


@pytest.fixture
def container(host: TestHost) -> Container:
    return guest(host, "mount -t tmpfs tmpfs /opt; mkdir /opt/there; touch /opt/file")


def bind(container: Container, source: object, destination: object, *, read_only: bool = False,
         make: bool = False) -> None:
    enter(container, "bind", source=str(source), destination=str(destination), read_only=read_only, make=make)


def mounts(container: Container) -> str:
    return Path(f"/proc/{container.leader}/mountinfo").read_text()


def test_ids_are_the_machine_s_own(container: Container, data: Path) -> None:
    bind(container, data, "/opt/there")
    assert container.exec(["stat", "-c", "%u %g", "/opt/there/one"], check=True).stdout == "1000 1000\n"
    container.exec(["sh", "-ec", "echo 2 >/opt/there/two"], check=True)
    assert (data / "two").stat().st_uid == 0
    assert (data / "two").read_text() == "2\n"


def test_what_belongs_to_the_machine_s_users_is_mounted_as_it_is(container: Container, data: Path) -> None:
    first = container.uid_map[0][1]
    os.chown(data, first, first)
    bind(container, data, "/opt/there")
    assert container.exec(["stat", "-c", "%u", "/opt/there", "/opt/there/one"], check=True).stdout == "0\n65534\n"
    container.exec(["sh", "-ec", "echo 2 >/opt/there/two"], check=True)
    assert (data / "two").stat().st_uid == first


def test_read_only(container: Container, data: Path) -> None:
    bind(container, data, "/opt/there", read_only=True)
    script = "echo 2 >/opt/there/two; mount -o remount,bind,rw /opt/there; echo 2 >/opt/there/two"
    done = container.exec(["sh", "-c", script])
    assert done.stderr.count("Read-only file system") == 2, done.stderr
    assert not (data / "two").exists()
    (data / "three").write_text("3\n")  # the host writes, and it is seen
    assert container.exec(["cat", "/opt/there/three"], check=True).stdout == "3\n"


def test_a_file(container: Container, data: Path) -> None:
    bind(container, data / "one", "/opt/file", read_only=True)
    assert container.exec(["cat", "/opt/file"], check=True).stdout == "1\n"


@pytest.mark.parametrize("name", ["", "one"])
def test_what_is_not_there_is_made(container: Container, data: Path, name: str) -> None:
    bind(container, data / name, "/opt/deep/down", make=True)
    path = "/opt/deep/down" + ("/one" if not name else "")
    assert container.exec(["cat", path], check=True).stdout == "1\n"
    assert container.exec(["stat", "-c", "%u", "/opt/deep"], check=True).stdout == "0\n"


@pytest.mark.parametrize(("source", "destination", "why"), [
    ("", "/opt/nowhere", "destination"), ("nowhere", "/opt/there", "source"), ("", "/opt/file", "on a directory"),
    ("one", "/opt/there", "on a directory"),
])
def test_what_cannot_be_done_changes_nothing(container: Container, data: Path, source: str, destination: str,
                                             why: str) -> None:
    before = mounts(container)
    with pytest.raises(InvalidArgument, match=why):
        bind(container, data / source, destination)
    assert mounts(container) == before


def test_what_was_made_for_nothing_is_taken_away(container: Container, data: Path) -> None:
    container.exec(["sh", "-ec", "ln -s file /opt/link"], check=True)
    with pytest.raises(MachineError):
        bind(container, data, "/opt/link/down", make=True)
    with pytest.raises(MachineError):
        bind(container, data, "/proc/nothing/there", make=True)
    assert sorted(container.exec(["ls", "/opt"], check=True).stdout.split()) == ["file", "link", "there"]


def test_links_stay_in_the_machine(container: Container, data: Path) -> None:
    outside = data.parent / "outside"
    outside.mkdir()
    container.exec(["sh", "-ec", f"mount -t tmpfs tmpfs {data.parent}; ln -s {outside} /opt/link"], check=True)
    container.exec(["ln", "-s", "/proc/1/root/opt", "/opt/jump"], check=True)
    with pytest.raises(MachineError):
        bind(container, data, "/opt/link")
    with pytest.raises(NotAvailable):
        bind(container, data, "/opt/jump/there")
    assert list(outside.iterdir()) == []
    assert "outside" not in Path("/proc/self/mountinfo").read_text()


def test_the_host_s_mounts_stay_as_they_were(container: Container, data: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    bind(container, data, "/opt/there")
    assert Path("/proc/self/mountinfo").read_text() == before
    assert str(data) not in before


def test_what_would_come_back_to_the_host_is_refused(host: TestHost, data: Path) -> None:
    """A machine with the host's users, whose mounts are peers of the host's."""
    container = guest(host, user_namespace=False)
    mounted = data.parent / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "--make-shared", "tmpfs", str(mounted)], check=True)
    leader = subprocess.Popen(["unshare", "--mount", "--propagation", "unchanged", "sleep", "60"])
    try:
        (mounted / "there").mkdir()
        wait_for(lambda: os.readlink(f"/proc/{leader.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"))
        container.leader, own = leader.pid, container.leader
        try:
            with pytest.raises(MachineError, match="shared"):
                bind(container, data, mounted / "there")
        finally:
            container.leader = own
        assert str(mounted / "there") not in Path("/proc/self/mountinfo").read_text()
    finally:
        leader.kill()
        leader.wait()
        subprocess.run(["umount", str(mounted)], check=True)
