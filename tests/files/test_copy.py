# SPDX-License-Identifier: MIT
"""Copies on real file systems, compared with the source and with what `cp -a` makes of it."""

import errno
import os
import stat
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from resolver.files import copy as engine
from resolver.files.entries import Kind
from resolver.files.progress import Progress
from resolver.files.read import Reader
from resolver.files.write import Writer
from tests.files.at_work import copy, hidden, opened
from tests.files.conftest import MakeFileSystem
from tests.files.trees import OLD, allocated, data_of, lay_out, look

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.mark.parametrize("kind", ["tmpfs", "ext4", "btrfs", "xfs"])
def test_everything_is_copied_as_cp_does(file_system: MakeFileSystem, kind: str) -> None:
    place = file_system(kind)
    lay_out(place / "source", sparse=2**40)
    before = look(place / "source")
    progress = copy(place / "source", place / "copy")
    subprocess.run(["cp", "-a", place / "source", place / "cp"], check=True)
    assert look(place / "copy") == before == look(place / "source") == look(place / "cp")
    assert allocated(place / "copy") <= allocated(place / "cp") + 2**16
    assert progress.files == len(before)
    assert progress.changes == 0
    assert hidden(place) == []


@pytest.mark.parametrize(("of", "to"), [("tmpfs", "ext4"), ("ext4", "btrfs"), ("btrfs", "tmpfs")])
def test_everything_is_copied_to_another_file_system(file_system: MakeFileSystem, of: str, to: str) -> None:
    here, there = file_system(of), file_system(to)
    lay_out(here / "source", sparse=2**33)
    before = look(here / "source")
    copy(here / "source", there / "copy")
    assert look(there / "copy") == before
    assert allocated(there / "copy") < 2**22


@pytest.mark.parametrize("name", ["plain", "dangling", "fifo", "null", "socket", "sparse"])
def test_one_file(file_system: MakeFileSystem, name: str) -> None:
    place = file_system("tmpfs")
    lay_out(place / "source")
    copy(place / "source" / name, place / "copy")
    copied, = look(place / "copy").values()
    assert copied == look(place / "source")[os.fsencode(name)] | {"same as": copied["same as"]}
    assert hidden(place) == []


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_content_is_shared_where_it_can_be(file_system: MakeFileSystem, kind: str) -> None:
    place = file_system(kind)
    (place / "file").write_bytes(os.urandom(2**20))
    os.sync()
    copy(place / "file", place / "copy")
    shown = subprocess.run(["filefrag", "-v", place / "copy"], check=True, capture_output=True, text=True).stdout
    assert "shared" in shown


def test_the_longest_sparse_file_stays_sparse(file_system: MakeFileSystem) -> None:
    place = file_system("tmpfs", "8m")
    with open(place / "file", "wb") as file:
        file.truncate(2**63 - 1)
        os.pwrite(file.fileno(), b"end", 2**62)
    progress = copy(place / "file", place / "copy")
    assert (place / "copy").stat().st_size == 2**63 - 1
    assert data_of(place / "copy") == data_of(place / "file")
    assert progress.bytes < 2**20


def test_a_file_of_the_kernel_s_is_read_to_its_end(tmp_path: Path) -> None:
    copy(Path("/proc/self/status"), tmp_path / "status")
    assert "\nPid:" in (tmp_path / "status").read_text()
    copy(Path("/sys/kernel/mm/transparent_hugepage/enabled"), tmp_path / "enabled")
    assert "never" in (tmp_path / "enabled").read_text()


def test_a_tree_deeper_than_descriptors_and_recursion_go(file_system: MakeFileSystem) -> None:
    place = file_system("tmpfs")
    depth = 10_000
    there = os.open(place, os.O_RDONLY)
    for number in range(depth):
        os.mkdir("d", dir_fd=there)
        os.close(os.open(f"file {number}", os.O_CREAT | os.O_WRONLY, dir_fd=there))
        below = os.open("d", os.O_RDONLY, dir_fd=there)
        os.close(there)
        there = below
    os.close(there)
    open_before = len(os.listdir("/proc/self/fd"))
    most = 0

    def count(_: Progress) -> None:
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd")))

    progress = Progress(count)
    with opened(place) as directory:
        reader, writer = Reader(directory, b"d", progress), Writer(directory, b"copy", progress)
        for number, entry in enumerate(reader):
            writer.put(entry)
            if number % 1000 == 0:
                count(progress)
        writer.finish()
    assert progress.files == 2 * depth - 1
    assert most < open_before + 200
    for tree in ("d", "copy"):
        done = subprocess.run(["find", place / tree, "-type", "f"], capture_output=True, check=True)
        assert done.stdout.count(b"\n") == depth - 1
        subprocess.run(["rm", "-r", place / tree], check=True)


def test_a_big_directory_is_never_held_whole(file_system: MakeFileSystem) -> None:
    place = file_system("tmpfs")
    (place / "source").mkdir()
    for number in range(30_000):
        os.close(os.open(place / "source" / f"a name of some length, number {number}", os.O_CREAT | os.O_WRONLY))
    with opened(place) as directory:
        tracemalloc.start()
        try:
            found = sum(entry.kind is Kind.FILE for entry in Reader(directory, b"source", Progress()))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert found == 30_000
    assert peak < 2**20


# --- what changes meanwhile ---

def test_a_file_that_grows_comes_to_an_end(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 1000)
    progress = Progress()
    with opened(tmp_path) as directory:
        writer = Writer(directory, b"copy", progress)
        for entry in Reader(directory, b"log", progress):
            with (tmp_path / "log").open("ab") as log:
                log.write(b"y" * 10**6)
            writer.put(entry)
        writer.finish()
    assert (tmp_path / "copy").read_bytes() == b"x" * 1000
    assert progress.changes == 1
    assert progress.changed == ["copy"]


def test_a_file_that_shrinks_or_vanishes(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for name in ("one", "two", "three"):
        (tmp_path / "source" / name).write_bytes(b"x" * 10**6)
    progress = Progress()
    vanished = ""
    with opened(tmp_path) as directory:
        writer = Writer(directory, b"copy", progress)
        for entry in Reader(directory, b"source", progress):
            if entry.kind is Kind.FILE and not vanished:
                os.truncate(tmp_path / "source" / os.fsdecode(entry.name), 10)
                vanished = min({"one", "two", "three"} - {os.fsdecode(entry.name)})
                (tmp_path / "source" / vanished).unlink()
            writer.put(entry)
        writer.finish()
    assert sorted(path.stat().st_size for path in (tmp_path / "copy").iterdir()) == [10, 10**6]
    assert progress.changes == 2
    assert f"source/{vanished}" in progress.changed


def test_a_directory_that_is_swapped_for_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "source" / "directory").mkdir(parents=True)
    (tmp_path / "source" / "directory" / "file").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("secret")
    progress = Progress()
    with opened(tmp_path) as directory:
        writer = Writer(directory, b"copy", progress)
        for entry in Reader(directory, b"source", progress):
            if entry.name == b"directory":
                (tmp_path / "source" / "directory").rename(tmp_path / "source" / "moved")
                (tmp_path / "source" / "directory").symlink_to(tmp_path / "elsewhere")
            writer.put(entry)
        writer.finish()
    assert (tmp_path / "copy" / "directory" / "file").read_text() == "mine"
    assert not list((tmp_path / "copy").rglob("secret"))


def test_a_directory_that_is_moved_elsewhere(tmp_path: Path) -> None:
    """Its `..` is then somebody else's, and not gone on with."""
    deep = tmp_path / "source"
    for _ in range(100):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("secret")
    with opened(tmp_path) as directory:
        found = []
        with pytest.raises(OSError, match="moved") as raised:  # noqa: PT012 - it is the reading that fails
            for entry in Reader(directory, b"source", Progress()):
                found.append(entry.name)
                if entry.kind is Kind.LEAVE and deep.exists():
                    (tmp_path / "source" / "d" / "d").rename(tmp_path / "elsewhere" / "d")
    assert raised.value.errno == errno.ESTALE
    assert b"secret" not in found


# --- where it is refused ---

def test_a_file_system_that_holds_less(file_system: MakeFileSystem) -> None:
    """As `cp -a`: a file that would let in others than before is an error, one that can do less is none."""
    place, less = file_system("tmpfs"), file_system("ramfs")
    lay_out(place / "source", lists=False, sparse=2**22)
    copy(place / "source", less / "copy")
    source, now = look(place / "source"), look(less / "copy")
    assert {path: thing | {"attributes": {}} for path, thing in source.items()} == now
    subprocess.run(["setfacl", "-m", "u:1000:rw", place / "source" / "plain"], check=True)
    with pytest.raises(OSError, match=r"not supported \(system.posix_acl_access\)") as raised:
        copy(place / "source", less / "again")
    assert raised.value.filename == b"again/plain"
    assert os.listdir(less) == ["copy"]


def test_a_target_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "there").write_text("there")
    with pytest.raises(FileExistsError) as raised:
        copy(tmp_path / "source", tmp_path / "there")
    assert raised.value.filename == b"there"
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        copy(tmp_path / "source", tmp_path / "dangling")
    with pytest.raises(FileExistsError):
        copy(tmp_path / "there", tmp_path / "source")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "source", "there"]


def test_a_target_that_comes_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with opened(tmp_path) as directory:
        writer = Writer(directory, b"copy", Progress())
        enter, leave = Reader(directory, b"source", Progress())
        writer.put(enter)
        (tmp_path / "copy").mkdir()
        with pytest.raises(FileExistsError):
            writer.put(leave)
        writer.discard()
    assert hidden(tmp_path) == []


def test_a_file_that_comes_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    def come(_: Progress) -> None:
        (tmp_path / "copy").write_text("another's")

    progress = Progress(come, _told=-100.0)
    with opened(tmp_path) as directory, pytest.raises(FileExistsError):
        engine.copy(directory, b"file", directory, b"copy", progress)
    assert (tmp_path / "copy").read_text() == "another's"
    assert hidden(tmp_path) == []


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        copy(tmp_path / "nothing", tmp_path / "copy")
    assert raised.value.filename == b"nothing"


@pytest.mark.parametrize("replace", [False, True])
def test_a_tree_is_not_copied_into_itself(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "source" / "below").mkdir(parents=True)
    (tmp_path / "source" / "file").touch()
    before = look(tmp_path)
    for target in ("source/copy", "source/below/copy", *(["source", "source/below"] if replace else [])):
        with pytest.raises(OSError, match="itself") as raised:
            copy(tmp_path / "source", tmp_path / target, replace=replace)
        assert raised.value.errno == errno.EINVAL
    assert look(tmp_path) == before


def test_a_target_that_lies_in_the_source_by_a_mount(file_system: MakeFileSystem) -> None:
    """Its path does not tell; the reader meets it."""
    place = file_system("tmpfs")
    (place / "source" / "below" / "deeper").mkdir(parents=True)
    (place / "elsewhere").mkdir()
    pid = place.parts[2]
    subprocess.run(["nsenter", "-t", pid, "-m", "mount", "--bind", "/mnt/source/below", "/mnt/elsewhere"], check=True)
    with pytest.raises(OSError, match="itself"):
        copy(place / "source", place / "elsewhere" / "copy")
    assert hidden(place / "elsewhere") == []
    assert not (place / "elsewhere" / "copy").exists()


def test_a_full_disk(small: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "big").write_bytes(b"x" * 2**21)
    with pytest.raises(OSError, match="No space left") as raised:
        copy(tmp_path / "source", small / "copy")
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == b"copy/big"
    assert list(small.iterdir()) == []
    assert small.stat().st_nlink == 2


# --- with replace ---

def test_directories_are_merged_and_files_replaced(tmp_path: Path) -> None:
    lay_out(tmp_path / "source")
    there = tmp_path / "there"
    (there / "directory" / "full").mkdir(parents=True)
    (there / "own").write_text("stays")
    (there / "small").write_text("is replaced")
    (there / "directory").chmod(0o700)
    os.utime(there / "small", ns=(OLD, OLD))
    held = (there / "small").open()
    copy(tmp_path / "source", there, replace=True)
    assert held.read() == "is replaced"  # not written over: a program that runs from it goes on
    held.close()
    source, now = look(tmp_path / "source"), look(there)
    assert now.pop(b"own")["content"] is not None
    assert now.keys() == source.keys()
    kept = [b"", b"directory", b"directory/full"]
    assert stat.S_IMODE((there / "directory").stat().st_mode) == 0o700
    assert "system.posix_acl_default" not in now[b"directory/full"]["attributes"]
    assert {path: now[path] for path in now if path not in kept} == \
        {path: source[path] for path in source if path not in kept}
    assert not [path for path in now if b"mymachines" in path]


def test_a_default_list_of_what_is_there_is_not_inherited(tmp_path: Path) -> None:
    lay_out(tmp_path / "source", lists=False)
    (tmp_path / "there").mkdir()
    (tmp_path / "there").chmod(0o2777)
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rwx", tmp_path / "there"], check=True)
    os.chown(tmp_path / "there", 0, 4321)
    copy(tmp_path / "source", tmp_path / "there", replace=True)
    copy(tmp_path / "source", tmp_path / "there" / "whole")
    source = look(tmp_path / "source")
    assert look(tmp_path / "there" / "whole") == source
    merged = look(tmp_path / "there")
    assert all(merged[path] == source[path] for path in source if path)


def test_kinds_are_not_replaced_by_others(tmp_path: Path) -> None:
    for name in ("source", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "source" / "x").mkdir()
    (tmp_path / "there" / "x").write_text("a file")
    with pytest.raises(NotADirectoryError) as raised:
        copy(tmp_path / "source", tmp_path / "there", replace=True)
    assert raised.value.filename == b"there/x"
    with pytest.raises(IsADirectoryError):
        copy(tmp_path / "there", tmp_path / "source", replace=True)
    (tmp_path / "there" / "x").unlink()
    (tmp_path / "there" / "x").symlink_to(tmp_path)
    with pytest.raises(NotADirectoryError):
        copy(tmp_path / "source", tmp_path / "there", replace=True)
    assert hidden(tmp_path / "there") == hidden(tmp_path) == []


def test_a_link_that_is_there_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("new")
    (tmp_path / "victim").write_text("old")
    (tmp_path / "link").symlink_to("victim")
    copy(tmp_path / "file", tmp_path / "link", replace=True)
    assert not (tmp_path / "link").is_symlink()
    assert ((tmp_path / "link").read_text(), (tmp_path / "victim").read_text()) == ("new", "old")


def test_mount_points_of_what_is_there(file_system: MakeFileSystem) -> None:
    place = file_system("tmpfs")
    (place / "source").mkdir()
    lay_out(place / "source" / "below")
    (place / "there" / "below").mkdir(parents=True)
    subprocess.run(["nsenter", "-t", place.parts[2], "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt/there/below"],
                   check=True)
    copy(place / "source", place / "there", replace=True)
    source, now = look(place / "source" / "below"), look(place / "there" / "below")
    assert {path: source[path] for path in source if path} == {path: now[path] for path in now if path}
    assert now[b"directory/full/third name"]["same as"] == now[b"small"]["same as"]
