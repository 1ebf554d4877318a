# SPDX-License-Identifier: MIT
"""Locks on images, against locks of others as fcntl(2) has them."""

import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from machine_images import locks
from machine_images.image import ImageBusy

F_OFD_SETLK = 37


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(locks, "LOCKS", str(tmp_path / "locks"))
    (tmp_path / "locks").mkdir()
    (tmp_path / "pool/web").mkdir(parents=True)
    return tmp_path / "pool/web"


@contextmanager
def held(path: Path, kind: int) -> Iterator[None]:
    """By somebody else: these locks belong to what was opened, not to the process."""
    with path.open("w+b") as file:
        fcntl.fcntl(file.fileno(), F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0))
        yield


def changed(web: Path) -> AbstractContextManager[None]:
    return locks.image_locked(str(web))


def named(web: Path) -> AbstractContextManager[None]:
    return locks.name_locked(web.name)


def beside(web: Path) -> Path:
    return web.with_name(".#web.lck")


def by_inode(web: Path) -> Path:
    status = web.stat()
    return Path(locks.LOCKS, f"inode-{status.st_dev}:{status.st_ino}")


def by_name(_web: Path) -> Path:
    return Path(locks.LOCKS, "name-web")


@pytest.mark.parametrize("kind", [fcntl.F_RDLCK, fcntl.F_WRLCK])
@pytest.mark.parametrize(("take", "file"), [(changed, beside), (changed, by_inode), (named, by_name)])
def test_others_hold_it(web: Path, take: Callable[[Path], AbstractContextManager[None]],
                        file: Callable[[Path], Path], kind: int) -> None:
    with held(file(web), kind), pytest.raises(ImageBusy), take(web):
        pass
    with take(web):     # a file that was left is no lock
        pass


@pytest.mark.parametrize(("take", "files"), [(changed, [beside, by_inode]), (named, [by_name])])
def test_we_hold_it(web: Path, take: Callable[[Path], AbstractContextManager[None]],
                    files: list[Callable[[Path], Path]]) -> None:
    with take(web):
        for file in files:
            with pytest.raises(BlockingIOError), held(file(web), fcntl.F_RDLCK):
                pass
        with pytest.raises(ImageBusy), take(web):
            pass
    assert not any(file(web).exists() for file in files), "lock files are left"


def test_half_of_them_are_given_back(web: Path) -> None:
    with held(by_inode(web), fcntl.F_RDLCK), pytest.raises(ImageBusy), changed(web):
        pass
    with held(beside(web), fcntl.F_WRLCK):
        pass


def test_by_another_path(web: Path) -> None:
    link = web.with_name("link")
    link.symlink_to(web)
    with changed(web), pytest.raises(ImageBusy), changed(link):
        pass


def test_no_image(web: Path) -> None:
    with pytest.raises(FileNotFoundError), changed(web.with_name("none")):
        pass
    assert os.listdir(web.parent) == ["web"]


def test_a_lock_that_is_a_link_is_not_followed(web: Path, tmp_path: Path) -> None:
    beside(web).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"), changed(web):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_cloned_is_not_changed_by_us(web: Path) -> None:
    with locks.kept(str(web)):
        with locks.kept(str(web)):      # by as many as like
            pass
        with pytest.raises(ImageBusy), locks.alone(str(web)):
            pass
        with changed(web):      # a machine may start from it
            pass
    with locks.alone(str(web)):
        pass
