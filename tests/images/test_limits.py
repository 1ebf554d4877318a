# SPDX-License-Identifier: MIT
"""What images of btrfs use and may use: seen by btrfs(8), and by writing beyond it."""

import errno
import os
import re
from pathlib import Path

import pytest

from .conftest import MakePool, Pool

MEBIBYTE = 1 << 20
POOL = "/var/lib/machines"
NOT_SUPPORTED = ("System", errno.EOPNOTSUPP)


def subvolume(pool: Pool, name: str, mebibytes: int = 1) -> Path:
    pool.host.run(["btrfs", "subvolume", "create", f"{POOL}/{name}"], check=True)
    (pool.path(name) / "data").write_bytes(os.urandom(mebibytes * MEBIBYTE))
    return pool.path(name)


def counted(pool: Pool) -> None:
    """Wait until the file system has counted all."""
    pool.host.run(["btrfs", "filesystem", "sync", POOL], check=True)
    pool.host.run(["btrfs", "quota", "rescan", "--wait", POOL], check=True)
    pool.host.run(["btrfs", "filesystem", "sync", POOL], check=True)


def groups(pool: Pool) -> dict[str, set[str]]:
    """Quota groups with their members, as btrfs(8) shows them."""
    text = pool.host.run(["btrfs", "qgroup", "show", "-c", "--raw", POOL], check=True).stdout
    rows = [re.findall(r"\b\d+/\d+\b", line) for line in text.splitlines()]
    return {group: set(members) for group, *members in filter(None, rows)}


def number_of(pool: Pool, name: str) -> str:
    """The subvolume's own group."""
    text = pool.host.run(["btrfs", "inspect-internal", "rootid", f"{POOL}/{name}"], check=True).stdout
    return f"0/{text.strip()}"


def write(path: Path, mebibytes: int) -> None:
    """OSError, if not at once then when it goes to the disk."""
    with path.open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(MEBIBYTE))
            file.flush()
        os.fsync(file.fileno())


def test_nobody_counts_at_first(btrfs: Pool) -> None:
    subvolume(btrfs, "web")
    assert btrfs.images()["web"].keys() & {"usage", "limit", "usageExclusive", "limitExclusive"} == set()
    assert btrfs.error("Update", name="web", limit=MEBIBYTE) == NOT_SUPPORTED
    btrfs.path("tree").mkdir()
    btrfs.do("SetPoolLimit", limit=200 * MEBIBYTE)
    assert btrfs.error("Update", name="tree", limit=MEBIBYTE) == NOT_SUPPORTED      # no subvolume


def test_an_image(btrfs: Pool) -> None:
    web = subvolume(btrfs, "web", 2)
    btrfs.do("SetPoolLimit", limit=200 * MEBIBYTE)
    counted(btrfs)
    assert 2 * MEBIBYTE <= btrfs.images()["web"]["usage"] < 3 * MEBIBYTE
    btrfs.do("Update", name="web", limit=10 * MEBIBYTE)
    assert btrfs.images()["web"]["limit"] == 10 * MEBIBYTE
    with pytest.raises(OSError, match="quota exceeded"):
        write(web / "more", 20)
    (web / "more").unlink()
    btrfs.do("Update", name="web", limit=50 * MEBIBYTE)
    write(web / "more", 20)
    btrfs.do("Update", name="web", limit=2**64 - 1)     # none, as systemd has it
    assert "limit" not in btrfs.images()["web"]
    write(web / "more", 80)


def test_an_image_with_subvolumes_in_it(btrfs: Pool) -> None:
    """One limit for all of it, wherever in it something is written."""
    subvolume(btrfs, "web")
    inner = subvolume(btrfs, "web/inner")
    btrfs.do("SetPoolLimit", limit=200 * MEBIBYTE)
    btrfs.do("Update", name="web", limit=10 * MEBIBYTE)
    counted(btrfs)
    found = btrfs.images()["web"]
    assert 2 * MEBIBYTE <= found["usage"] < 4 * MEBIBYTE
    assert found["limit"] == 10 * MEBIBYTE
    with pytest.raises(OSError, match="quota exceeded"):
        write(inner / "more", 20)


def test_the_pool(btrfs: Pool) -> None:
    """It has a group, of which all images are members: those that were there, clones, and copies."""
    subvolume(btrfs, "web", 2)
    subvolume(btrfs, "web/inner")
    (btrfs.path("tree") / "etc").mkdir(parents=True)
    btrfs.do("SetPoolLimit", limit=40 * MEBIBYTE)
    btrfs.do("Clone", name="web", newName="other")
    btrfs.do("Clone", name="tree", newName="copied")
    [group] = [members for group, members in groups(btrfs).items() if group.startswith("255/")]
    assert {number_of(btrfs, name) for name in ("web", "web/inner", "other", "other/inner", "copied")} <= group
    counted(btrfs)
    with pytest.raises(OSError, match="quota exceeded"):
        write(btrfs.path("other") / "inner/more", 60)
    (btrfs.path("other") / "inner/more").unlink()
    btrfs.do("SetPoolLimit", limit=150 * MEBIBYTE)
    write(btrfs.path("other") / "inner/more", 60)


def test_a_copy_beyond_the_limit_leaves_nothing(btrfs: Pool) -> None:
    """It comes from another file system, whose blocks cannot be shared."""
    tree = btrfs.path("/run/machines/tree")
    tree.mkdir(parents=True)
    write(tree / "data", 60)
    btrfs.do("SetPoolLimit", limit=40 * MEBIBYTE)
    assert btrfs.error("Clone", name="tree", newName="copied") == ("System", errno.EIO)
    assert "quota exceeded" in btrfs.daemon.log
    assert btrfs.entries() == set()
    btrfs.do("SetPoolLimit", limit=200 * MEBIBYTE)
    btrfs.do("Clone", name="tree", newName="copied")


def test_limits_hold_after_a_clone(btrfs: Pool) -> None:
    """The kernel stops counting where what is cloned is in several groups, until it is told to count anew."""
    subvolume(btrfs, "web")
    subvolume(btrfs, "web/inner")
    btrfs.do("SetPoolLimit", limit=100 * MEBIBYTE)
    btrfs.do("Update", name="web", limit=10 * MEBIBYTE)
    btrfs.do("Clone", name="web", newName="other")
    btrfs.host.run(["btrfs", "quota", "rescan", "--wait-norescan", POOL], check=True)    # until it has
    text = btrfs.host.run(["btrfs", "qgroup", "show", POOL], check=True)
    assert "inconsistent" not in text.stderr
    for name in ("web/inner/more", "other/more"):
        with pytest.raises(OSError, match="quota exceeded"):
            write(btrfs.path(name), 120)
        btrfs.path(name).unlink()


def test_a_removed_image_counts_no_more(btrfs: Pool) -> None:
    subvolume(btrfs, "web", 20)
    btrfs.do("SetPoolLimit", limit=60 * MEBIBYTE)
    for _ in range(4):
        btrfs.do("Clone", name="web", newName="other")
        write(btrfs.path("other") / "more", 20)
        btrfs.do("Remove", name="other")
        counted(btrfs)


@pytest.mark.parametrize("kind", ["tmpfs", "xfs"])
def test_other_file_systems(make_pool: MakePool, kind: str) -> None:
    pool = make_pool(kind)
    pool.path("web").mkdir()
    assert pool.error("Update", name="web", limit=MEBIBYTE) == NOT_SUPPORTED
    assert pool.error("SetPoolLimit", limit=MEBIBYTE) == NOT_SUPPORTED
