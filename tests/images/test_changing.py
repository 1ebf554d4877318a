# SPDX-License-Identifier: MIT
"""Clones, renames, removals and marks by the real daemon, on real file systems."""

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.files.trees import allocated, data_of, look

from .conftest import MakePool, Pool

SETTINGS = "/run/systemd/nspawn"
FILE_SYSTEMS = ["tmpfs", "ext4", "xfs", "btrfs"]


def settings(pool: Pool, name: str) -> Path:
    pool.path(SETTINGS).mkdir(parents=True, exist_ok=True)
    return pool.path(f"{SETTINGS}/{name}.nspawn")


def settings_of(pool: Pool) -> set[str]:
    """Of all images; beside them systemd-nspawn keeps its locks."""
    return set(os.listdir(pool.path(SETTINGS))) - {"locks"}


def raw(pool: Pool, name: str) -> Path:
    """64 MB, of which some in the middle are written."""
    path = pool.path(f"{name}.raw")
    with path.open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(os.urandom(1 << 20))
    return path


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_a_directory(make_pool: MakePool, kind: str) -> None:
    """Clone, mark, rename and remove, with nothing changed in it on the way."""
    pool = make_pool(kind)
    web = pool.tree("web", sparse=2**40 if kind != "ext4" else 2**35)
    before = look(web)
    pool.do("Clone", name="web", newName="other")
    assert look(web) == before == look(pool.path("other"))
    assert pool.images()["other"]["type"] == ("subvolume" if kind == "btrfs" else "directory")
    pool.do("Update", name="other", newName="third")
    assert look(pool.path("third")) == before
    pool.do("Remove", name="web")
    assert pool.entries() == {"third"}
    assert look(pool.path("third")) == before
    pool.do("Remove", name="third")
    assert pool.entries() == set()


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_read_only(make_pool: MakePool, kind: str) -> None:
    pool = make_pool(kind)
    (pool.path("web") / "etc").mkdir(parents=True)
    pool.do("Clone", name="web", newName="locked", readOnly=True)
    assert pool.images()["locked"]["readOnly"]
    with pytest.raises(OSError, match=r"Operation not permitted|Read-only file system"):
        (pool.path("locked") / "new").touch()
    pool.do("Clone", name="locked", newName="free")
    assert not pool.images()["free"]["readOnly"]
    (pool.path("free") / "new").touch()
    pool.do("Update", name="locked", newName="still")
    assert pool.images()["still"]["readOnly"]
    pool.do("Update", name="still", readOnly=False)
    (pool.path("still") / "new").touch()
    pool.do("Update", name="still", readOnly=True)
    pool.do("Remove", name="still")
    assert set(pool.images()) == pool.entries() == {"free", "web"}


@pytest.mark.parametrize("kind", ["tmpfs", "btrfs", "xfs"])
def test_a_raw_image(make_pool: MakePool, kind: str) -> None:
    pool = make_pool(kind)
    disk = raw(pool, "disk")
    pool.do("Clone", name="disk", newName="copy", readOnly=True)
    copy = pool.path("copy.raw")
    assert data_of(copy) == data_of(disk)
    assert copy.stat().st_size == disk.stat().st_size
    assert allocated(copy) < 8 << 20, "holes were filled"
    found = pool.images()["copy"]
    assert (found["type"], found["readOnly"], found["limit"]) == ("raw", True, 64 << 20)
    assert stat.S_IMODE(copy.stat().st_mode) & 0o222 == 0
    pool.do("Clone", name="copy", newName="third")
    assert not pool.images()["third"]["readOnly"]
    pool.do("Update", name="copy", newName="again")
    assert pool.images()["again"]["readOnly"]
    for name in ("again", "third"):
        pool.do("Remove", name=name)
    assert pool.entries() == {"disk.raw"}


def test_what_belongs_to_an_image_goes_along(pool: Pool) -> None:
    raw(pool, "disk")
    settings(pool, "disk").write_text("[Exec]\n")
    for ending in ("nspawn", "roothash", "roothash.p7s", "verity"):
        pool.path(f"disk.{ending}").write_text(ending)
    pool.do("Clone", name="disk", newName="copy")
    pool.do("Update", name="copy", newName="third")
    assert settings(pool, "third").read_text() == "[Exec]\n"
    assert pool.entries() == {f"{name}.{ending}" for name in ("disk", "third")
                              for ending in ("raw", "nspawn", "roothash", "roothash.p7s", "verity")}
    pool.do("Remove", name="third")
    assert not settings(pool, "third").exists()
    assert len(pool.entries()) == 5
    # what an administrator has prepared for a name stays
    settings(pool, "ready").write_text("[Files]\n")
    pool.do("Clone", name="disk", newName="ready")
    assert settings(pool, "ready").read_text() == "[Files]\n"
    assert settings(pool, "disk").read_text() == "[Exec]\n"


def test_what_cannot_be(pool: Pool) -> None:
    for name in ("web", "db"):
        pool.path(name).mkdir()
    settings(pool, "web").write_text("[Exec]\n")
    pool.path("/run/machines/far").mkdir(parents=True)
    before = pool.entries()
    exists = ("System", errno.EEXIST)
    assert pool.error("Clone", name="web", newName="db") == exists
    assert pool.error("Clone", name="web", newName="far") == exists     # the pool comes after /run/machines
    assert pool.error("Update", name="web", newName="db") == exists
    assert pool.error("Update", name="web", newName="web") == exists
    assert pool.error("Clone", name="none", newName="new") == "NoSuchImage"
    assert pool.error("Clone", name="web", newName=".host") == ("InvalidParameter", "newName")
    assert pool.error("Remove", name=".host") == ("System", errno.EROFS)
    for name in ("", ".", "..", "a/b", "/", ".#new", "x" * 300, "new\nline", "\x7f"):
        assert pool.error("Clone", name="web", newName=name) == ("InvalidParameter", "newName")
        assert pool.error("Remove", name=name) == ("InvalidParameter", "name")
    assert pool.error("Update", name="web", limit=1 << 30) == ("System", errno.EOPNOTSUPP)
    assert pool.error("SetPoolLimit", limit=1 << 30) == ("System", errno.EOPNOTSUPP)
    assert pool.entries() == before
    assert settings_of(pool) == {"web.nspawn"}


def test_others_than_root_may_only_look(pool: Pool) -> None:
    pool.path("web").mkdir()
    for method, parameters in (("Clone", {"newName": "x"}), ("Remove", {}), ("Update", {"readOnly": True})):
        [last] = pool.call(method, uid=1000, name="web", **parameters)
        assert last["error"] in ("PermissionDenied", "InteractiveAuthenticationRequired")
    [last] = pool.call("CleanPool", uid=1000, mode="all")
    assert last["error"] in ("PermissionDenied", "InteractiveAuthenticationRequired")
    assert [image["name"] for image in pool.call("List", uid=1000, name="web")] == ["web"]
    assert pool.entries() == {"web"}


def test_a_link_is_an_image(pool: Pool) -> None:
    elsewhere = pool.path("/run/elsewhere")
    (elsewhere / "etc").mkdir(parents=True)
    pool.path("web").symlink_to("/run/elsewhere")
    pool.do("Clone", name="web", newName="copy")
    assert not pool.path("copy").is_symlink()
    assert (pool.path("copy") / "etc").is_dir()
    pool.do("Update", name="web", newName="www")
    assert os.readlink(pool.path("www")) == "/run/elsewhere"
    pool.do("Remove", name="www")
    assert (elsewhere / "etc").is_dir()


def test_clean(pool: Pool) -> None:
    """Hidden ones, read-only ones too; where one cannot go, the others do."""
    for name in ("web", ".one", ".two", ".three"):
        (pool.path(name) / "etc").mkdir(parents=True)
    pool.path("/run/machines/.far").mkdir(parents=True)
    pool.do("Update", name=".two", readOnly=True)
    pool.host.run(["mount", "-t", "tmpfs", "tmpfs", "/var/lib/machines/.one"], check=True)
    *removed, last = pool.call("CleanPool", mode="hidden")
    assert {image["name"] for image in removed} == {".two", ".three"}
    assert last["error"] == "NotAvailable" or last.get("errno") in (errno.EBUSY, errno.EIO)
    assert pool.entries() == {"web", ".one"}
    pool.host.run(["umount", "/var/lib/machines/.one"], check=True)
    assert [image["name"] for image in pool.call("CleanPool", mode="hidden")] == [".one"]
    assert pool.error("CleanPool", mode="hidden") == "NoSuchImage"
    assert [image["name"] for image in pool.call("CleanPool", mode="all")] == ["web"]
    assert pool.path("/run/machines/.far").exists()


def test_a_mount_point_stays_as_it_is(make_pool: MakePool) -> None:
    """It cannot be removed; and a read-only mark is not lost with the attempt."""
    pool = make_pool("ext4")
    (pool.path("web") / "etc").mkdir(parents=True)
    pool.do("Update", name="web", readOnly=True)
    pool.host.run(["mount", "--bind", "/var/lib/machines/web", "/var/lib/machines/web"], check=True)
    try:
        pool.error("Remove", name="web")
    finally:
        pool.host.run(["umount", "/var/lib/machines/web"], check=True)
    assert pool.images()["web"]["readOnly"]
    assert (pool.path("web") / "etc").is_dir()
    pool.do("Remove", name="web")       # the mark would outlive the file system's end else


def test_a_clone_that_cannot_be_marked_is_none(pool: Pool) -> None:
    """ramfs has no immutable files."""
    pool.host.run(["mount", "-t", "ramfs", "ramfs", "/var/lib/machines"], check=True)
    (pool.path("web") / "etc").mkdir(parents=True)
    settings(pool, "web").write_text("[Exec]\n")
    assert pool.error("Clone", name="web", newName="copy", readOnly=True) == ("System", errno.EOPNOTSUPP)
    assert pool.error("Update", name="web", readOnly=True) == ("System", errno.EOPNOTSUPP)
    assert pool.entries() == {"web"}
    assert settings_of(pool) == {"web.nspawn"}
    pool.do("Clone", name="web", newName="copy")


def test_a_full_disk(make_pool: MakePool) -> None:
    """Says so, and leaves nothing."""
    pool = make_pool("tmpfs")
    pool.host.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", "/var/lib/machines"], check=True)
    pool.path("web").mkdir()
    (pool.path("web") / "data").write_bytes(os.urandom(2 << 20))
    settings(pool, "web").write_text("[Exec]\n")
    assert pool.error("Clone", name="web", newName="copy") == ("System", errno.EIO)
    assert "No space left" in pool.daemon.log
    assert pool.entries() == {"web"}
    assert settings_of(pool) == {"web.nspawn"}
