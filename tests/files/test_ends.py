# SPDX-License-Identifier: MIT
"""Copies that are ended, in any way and at any moment; and removals."""

import asyncio
import fcntl
import os
import random
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from resolver.core.errors import FileExists, FileNotFound, NotAvailable
from resolver.files import copy as engine
from resolver.files.failures import failure
from resolver.files.progress import Progress
from resolver.files.remove import remove_leftovers
from resolver.files.workspace import PREFIX
from resolver.worker.run import Workers
from tests.files import at_work
from tests.files.at_work import copy, hidden, opened, remove
from tests.files.conftest import MakeFileSystem
from tests.files.trees import lay_out, look
from tests.lab import wait_for
from tests.lab.processes import children

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

DEADLINE = 30.0
TRIES = 10
WORKER = (at_work.__file__,)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A tree that takes a second or so."""
    for directory in range(30):
        (tmp_path / "source" / str(directory)).mkdir(parents=True)
        for file in range(100):
            (tmp_path / "source" / str(directory) / str(file)).write_text("x" * file)
    return tmp_path


def ask(place: Path, until_cancelled: bool) -> None:
    """Have a worker copy; cancel it when it is at it, or kill it by -9 at a random moment."""
    for _ in range(TRIES):
        if cut_short(place, until_cancelled):
            return
        assert len(list((place / "copy").glob("*/*"))) == 3000  # it was faster, and so it is whole
        shutil.rmtree(place / "copy")
    pytest.fail(f"a copy was made {TRIES} times before it could be ended")


def cut_short(place: Path, until_cancelled: bool) -> bool:
    """Whether it was ended before it was done: a machine that does much else may wake us too late."""

    async def main() -> bool:
        workers = Workers()
        before = set(children())
        asked = asyncio.create_task(workers.run(
            WORKER, {"source": str(place / "source"), "target": str(place / "copy")}, patience=DEADLINE))
        await asyncio.to_thread(wait_for, lambda: hidden(place))
        if until_cancelled:
            asked.cancel()
        else:
            await asyncio.sleep(random.random() * 0.3)
            for pid in set(children()) - before:
                os.kill(pid, signal.SIGKILL)
        try:
            await asked
        except (asyncio.CancelledError, NotAvailable):
            return True
        finally:
            await workers.close()
        return False

    return asyncio.run(asyncio.wait_for(main(), DEADLINE))


def test_what_is_not_wanted_any_more_leaves_nothing(many: Path) -> None:
    ask(many, until_cancelled=True)
    assert [path.name for path in many.iterdir()] == ["source"]


def test_a_killed_one_leaves_no_half_tree_under_its_name(many: Path) -> None:
    for _ in range(3):
        ask(many, until_cancelled=False)
        assert not (many / "copy").exists()
        left, = hidden(many)
        assert os.fsencode(left.name).startswith(PREFIX)
        assert left.stat().st_mode & 0o777 == 0o700
        with opened(many) as directory:
            reading = os.open(".", os.O_RDONLY, dir_fd=directory)
            assert remove_leftovers(reading) == 1
            os.close(reading)
        assert [path.name for path in many.iterdir()] == ["source"]


def test_what_somebody_works_on_is_no_leftover(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    seen = 0

    def look_around(_: Progress) -> None:
        nonlocal seen
        fd = os.open(tmp_path, os.O_RDONLY)
        assert remove_leftovers(fd) == 0
        os.close(fd)
        seen += 1

    progress = Progress(look_around, _told=-100.0)
    with opened(tmp_path) as directory:
        engine.copy(directory, b"source", directory, b"copy", progress)
    assert seen
    assert (tmp_path / "copy").is_dir()


def test_a_leftover_that_is_a_link_or_no_directory_is_let_be(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").touch()
    (tmp_path / os.fsdecode(PREFIX + b"1")).symlink_to("victim")
    (tmp_path / os.fsdecode(PREFIX + b"2")).write_text("x")
    fd = os.open(tmp_path, os.O_RDONLY)
    assert remove_leftovers(fd) == 0
    os.close(fd)
    assert (tmp_path / "victim" / "file").exists()


def test_an_error_of_who_is_told_leaves_nothing(many: Path) -> None:
    class Stop(BaseException): ...

    def stop(_: Progress) -> None:
        raise Stop

    with pytest.raises(Stop), opened(many) as directory:
        engine.copy(directory, b"source", directory, b"copy", Progress(stop, _told=-100.0))
    assert [path.name for path in many.iterdir()] == ["source"]


@pytest.mark.parametrize(("error", "kind", "text"), [
    (FileExistsError(17, "File exists", b"a"), FileExists, "a: File exists (after 3 files and 4 bytes)"),
    (FileNotFoundError(2, "No such file", b"a"), FileNotFound, "a: No such file (after 3 files and 4 bytes)"),
    (OSError(28, "No space", b"\xff\x1b[31m"), NotAvailable, "�?[31m: No space (after 3 files and 4 bytes)"),
])
def test_what_is_said_of_an_error(error: OSError, kind: type[Exception], text: str) -> None:
    told = failure(error, Progress(files=3, bytes=4))
    assert (type(told), str(told)) == (kind, text)


# --- removals ---

def test_a_tree_is_removed(tmp_path: Path) -> None:
    lay_out(tmp_path / "tree")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    (tmp_path / "tree" / "to outside").symlink_to(tmp_path / "outside")
    remove(tmp_path / "tree")
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (tmp_path / "outside" / "file").exists()
    with pytest.raises(FileNotFoundError):
        remove(tmp_path / "tree")
    remove(tmp_path / "outside" / "file")
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.fixture
def deep(file_system: MakeFileSystem) -> Iterator[Path]:
    place = file_system("tmpfs")
    there = os.open(place, os.O_RDONLY)
    for _ in range(5000):
        for name in ("d", "other", "one more"):
            os.mkdir(name, dir_fd=there)
        below = os.open("d", os.O_RDONLY, dir_fd=there)
        os.close(there)
        there = below
    os.close(there)
    yield place
    subprocess.run(["rm", "-rf", place / "d"], check=True)


def test_a_deep_tree_is_removed(deep: Path) -> None:
    remove(deep / "d")
    assert not (deep / "d").exists()
    assert hidden(deep) == []


def test_what_is_mounted_in_a_tree_stays(file_system: MakeFileSystem) -> None:
    place = file_system("tmpfs")
    (place / "tree" / "mounted").mkdir(parents=True)
    (place / "precious").mkdir()
    (place / "precious" / "file").touch()
    enter = ["nsenter", "-t", place.parts[2], "-m"]
    subprocess.run([*enter, "mount", "--bind", "/mnt/precious", "/mnt/tree/mounted"], check=True)
    with pytest.raises(OSError, match="cross-device") as raised:
        remove(place / "tree")
    assert raised.value.filename.endswith(b"new/mounted")
    assert (place / "precious" / "file").exists()
    assert not (place / "tree").exists()
    subprocess.run([*enter, "sh", "-c", "umount /mnt/.#mymachines-*/new/mounted"], check=True)


def test_the_lock_of_a_workspace(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(PREFIX + b"1")).mkdir()
    held = os.open(tmp_path / os.fsdecode(PREFIX + b"1"), os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    fd = os.open(tmp_path, os.O_RDONLY)
    assert remove_leftovers(fd) == 0
    os.close(held)
    assert remove_leftovers(fd) == 1
    os.close(fd)


def test_times_of_access_are_those_from_before(tmp_path: Path) -> None:
    lay_out(tmp_path / "source")

    def times(tree: str) -> dict[str, int]:
        found = {path.name: path.lstat() for path in (tmp_path / tree).rglob("*")}
        return {name: status.st_atime_ns for name, status in found.items() if stat.S_ISREG(status.st_mode)}

    before = times("source")
    copy(tmp_path / "source", tmp_path / "copy")
    assert times("copy") == before
    assert look(tmp_path / "source") == look(tmp_path / "copy")
