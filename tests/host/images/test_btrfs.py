# SPDX-License-Identifier: MIT
"""A pool on btrfs: subvolumes, snapshots, limits. The file system is a file, by a loop device of this machine."""

import errno
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.booted import BootedHost
from tests.host.guests import MACHINES
from tests.lab import Unavailable

from .clients import SYSTEM, bus_error, bus_fails, call, call_fails, listed, machinectl, shown
from .conftest import Images

FILE = "/srv/pool.btrfs"
SIZE = 300 << 20        # the smallest that is not one of mixed block groups, with room for what is written here
MEBIBYTE = 1 << 20


def loop_device(file: Path) -> Path:
    """Lets go of itself where nobody has it mounted any more."""
    done = subprocess.run(["losetup", "--find", "--show", str(file)], capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"this kernel has no loop device to spare: {done.stderr}")
    return Path(done.stdout.strip())


@pytest.fixture
def btrfs(booted: BootedHost) -> Iterator[Images]:
    """Over the pool there is an empty one on btrfs."""
    file = booted.path(FILE)
    with file.open("wb") as new:
        new.truncate(SIZE)
    booted.run(["mkfs.btrfs", "--quiet", FILE])
    device = loop_device(file)
    try:
        number = os.stat(device).st_rdev
        node = f"/dev/{device.name}"
        booted.run(["mknod", node, "b", str(os.major(number)), str(os.minor(number))])
        mounted = booted.run(["mount", node, MACHINES], check=False)
        booted.run(["rm", node])
        if "unknown filesystem type" in mounted.stderr:
            raise Unavailable("this kernel has no btrfs")
        assert mounted.returncode == 0, mounted
    finally:
        subprocess.run(["losetup", "--detach", str(device)], check=True)
    try:
        yield Images(booted)
    finally:
        booted.run(["umount", MACHINES])
        file.unlink()


def subvolumes(host: BootedHost) -> set[str]:
    lines = host.out(["btrfs", "subvolume", "list", MACHINES]).splitlines()
    return {line.split(" path ", 1)[1] for line in lines}


def subvolume(host: BootedHost, name: str, mebibytes: int = 0) -> None:
    """With an os-release, and so much that no two images share by chance."""
    host.run(["btrfs", "--quiet", "subvolume", "create", f"{MACHINES}/{name}"])
    tree = f"{MACHINES}/{name}"
    host.run(f"mkdir {tree}/etc {tree}/usr && echo PRETTY_NAME={name} >{tree}/etc/os-release"
             f" && head --bytes={mebibytes}M /dev/urandom >{tree}/data && sync -f {tree}")


def test_types(booted: BootedHost, btrfs: Images) -> None:
    subvolume(booted, "web")
    booted.run(["mkdir", "-p", f"{MACHINES}/tree/usr"])
    booted.run(["truncate", "--size=3M", f"{MACHINES}/disk.raw"])
    found = listed(booted)
    assert {name: image["type"] for name, image in found.items()} == {
        "web": "subvolume", "tree": "directory", "disk": "raw"}
    assert abs(found["web"]["created"] / 1e6 - btrfs.since) < 3600
    assert "OS: web" in booted.out(["machinectl", "image-status", "web"])
    [told] = call(booted, "List", name="web")
    assert told["type"] == "subvolume"
    assert told["path"] == f"{MACHINES}/web"


def test_clones_are_snapshots(booted: BootedHost, btrfs: Images) -> None:
    subvolume(booted, "web", mebibytes=20)
    booted.run(["machinectl", "set-limit", "250M"])     # counts usage
    booted.run(["machinectl", "clone", "web", "other"])
    booted.run(["machinectl", "clone", "--read-only", "web", "locked"])
    assert subvolumes(booted) >= {"web", "other", "locked"}
    assert shown(booted, "other")["ReadOnly"] == "no"
    assert shown(booted, "locked")["ReadOnly"] == "yes"
    assert booted.out(["btrfs", "property", "get", f"{MACHINES}/locked", "ro"]) == "ro=true"
    assert booted.run(["cmp", f"{MACHINES}/web/data", f"{MACHINES}/locked/data"]).returncode == 0
    booted.run(["sync", "-f", MACHINES])
    used = booted.out(["df", "--output=used", "--block-size=1M", MACHINES]).split()[-1]
    assert int(used) < 40, "three times 20 MB were written"
    booted.run(["machinectl", "rename", "locked", "locked-2"])
    assert shown(booted, "locked-2")["ReadOnly"] == "yes"
    booted.run(["machinectl", "read-only", "locked-2", "no"])
    assert booted.out(["btrfs", "property", "get", f"{MACHINES}/locked-2", "ro"]) == "ro=false"
    booted.run(["machinectl", "read-only", "locked-2"])
    booted.run(["machinectl", "remove", "other", "locked-2"])
    assert subvolumes(booted) == {"web"}
    assert bus_fails(booted, "CloneImage", "ssb", "web", "web", "false") == "Exists"


def test_subvolumes_inside(booted: BootedHost, btrfs: Images) -> None:
    """Go along with a clone, and away with it."""
    subvolume(booted, "web")
    booted.run(["btrfs", "--quiet", "subvolume", "create", f"{MACHINES}/web/inner"])
    booted.run(["touch", f"{MACHINES}/web/inner/file"])
    booted.run(["machinectl", "clone", "web", "other"])
    assert booted.run(["test", "-e", f"{MACHINES}/other/inner/file"]).returncode == 0
    booted.run(["machinectl", "remove", "web"])
    assert booted.run(["test", "-e", f"{MACHINES}/other/inner/file"]).returncode == 0
    booted.run(["machinectl", "remove", "other"])
    assert subvolumes(booted) == set()


def test_a_directory_is_cloned_to_a_subvolume(booted: BootedHost, btrfs: Images) -> None:
    booted.run(f"mkdir -p {MACHINES}/tree/usr {MACHINES}/tree/etc; mkfifo --mode=640 {MACHINES}/tree/pipe")
    booted.run(["machinectl", "clone", "tree", "other"])
    assert listed(booted)["other"]["type"] == "subvolume"
    assert subvolumes(booted) == {"other"}
    mode = booted.out(["stat", "--format=%f", f"{MACHINES}/other/pipe"])
    assert int(mode, 16) == stat.S_IFIFO | 0o640


def test_raw_disks_share_what_is_in_them(booted: BootedHost, btrfs: Images) -> None:
    booted.run(f"head --bytes=40M /dev/urandom >{MACHINES}/disk.raw && sync -f {MACHINES}")
    booted.run(["machinectl", "clone", "disk", "other"])
    assert booted.run(["cmp", f"{MACHINES}/disk.raw", f"{MACHINES}/other.raw"]).returncode == 0
    booted.run(["sync", "-f", MACHINES])
    used = booted.out(["df", "--output=used", "--block-size=1M", MACHINES]).split()[-1]
    assert int(used) < 60, "40 MB were written twice"


def test_limits(booted: BootedHost, btrfs: Images) -> None:
    subvolume(booted, "web", mebibytes=2)
    booted.run(["mkdir", "-p", f"{MACHINES}/tree/usr"])
    assert shown(booted, "web")["Limit"] == "infinity"
    assert bus_error(booted, "SetImageLimit", "st", "web", "100000000")     # nothing counts yet
    booted.run(["machinectl", "set-limit", "250M"])
    pool = dict(line.split("=") for line in booted.out(["machinectl", "show-image"]).splitlines())
    assert pool["PoolPath"] == MACHINES
    assert pool["PoolLimit"] == str(250 * MEBIBYTE)
    assert 0 < int(pool["PoolUsage"]) < SIZE
    booted.run(["machinectl", "set-limit", "web", "30M"])
    assert shown(booted, "web")["Limit"] == str(30 * MEBIBYTE)
    assert "Limit: 30M" in booted.out(["machinectl", "image-status", "web"])
    booted.run(["btrfs", "quota", "rescan", "--wait", MACHINES])
    booted.run(["sync", "-f", MACHINES])
    assert 2 * MEBIBYTE <= int(shown(booted, "web")["Usage"]) < 4 * MEBIBYTE
    [told] = call(booted, "List", name="web")
    assert told["limit"] == 30 * MEBIBYTE
    assert 2 * MEBIBYTE <= told["usageExclusive"] < 4 * MEBIBYTE
    full = booted.run(f"head --bytes=40M /dev/urandom >{MACHINES}/web/too-much; sync {MACHINES}/web/too-much",
                      check=False)
    assert "Disk quota exceeded" in full.stderr
    assert call(booted, "Update", name="web", limit=60 * MEBIBYTE) == [{}]
    assert shown(booted, "web")["Limit"] == str(60 * MEBIBYTE)
    booted.run(["machinectl", "set-limit", "web", "-"])
    assert shown(booted, "web")["Limit"] == "infinity"
    assert bus_fails(booted, "SetImageLimit", "st", "tree", "1000000") == "Not supported"
    assert call_fails(booted, "Update", name="tree", limit=1_000_000) == (SYSTEM, errno.EOPNOTSUPP)


def test_clean_all(booted: BootedHost, btrfs: Images) -> None:
    subvolume(booted, "web", mebibytes=2)
    booted.run(["mkdir", "-p", f"{MACHINES}/tree/usr"])
    booted.run(["machinectl", "clone", "web", ".hidden"])
    done = machinectl(booted, "clean")
    assert "Removed image '.hidden'" in done.stderr + done.stdout
    assert set(listed(booted, "--all")) == {".host", "tree", "web"}
    done = machinectl(booted, "clean", "--all")
    assert done.returncode == 0, done
    assert "Removed 2 images in total." in done.stderr + done.stdout
    assert set(listed(booted, "--all")) == {".host"}
    assert btrfs.entries() == set()
    assert subvolumes(booted) == set()


def groups_above(host: BootedHost, name: str) -> set[str]:
    """All quota groups that count a subvolume besides its own."""
    text = host.out(["btrfs", "qgroup", "show", "-p", "--raw", MACHINES])
    rows = [re.findall(r"\b\d+/\d+\b", line) for line in text.splitlines()]
    parents = {group: set(above) for group, *above in filter(None, rows)}
    found: set[str] = set()
    pending = {f"0/{host.out(['btrfs', 'inspect-internal', 'rootid', f'{MACHINES}/{name}'])}"}
    while pending:
        above = parents.get(pending.pop(), set()) - found
        found |= above
        pending |= above
    return found


def test_what_is_imported_counts_in_the_pool(booted: BootedHost, btrfs: Images) -> None:
    """systemd-importd makes groups of its own below the one that was made here; limits of either kind hold."""
    booted.run(["machinectl", "set-limit", "100M"])
    booted.run(f"mkdir -p {MACHINES}/tree/etc {MACHINES}/tree/usr && tar -C {MACHINES}/tree -cf /srv/tree.tar .")
    booted.run(["machinectl", "import-tar", "--verify=no", "/srv/tree.tar", "imported"], timeout=60)
    booted.run(["machinectl", "import-fs", f"{MACHINES}/tree", "copied"], timeout=60)
    booted.run(["machinectl", "clone", "imported", "cloned"])
    booted.run(["rm", "/srv/tree.tar"])
    assert subvolumes(booted) == {"imported", "copied", "cloned"}
    for name in ("imported", "copied", "cloned"):
        assert any(group.startswith("255/") for group in groups_above(booted, name)), name
    booted.run(["machinectl", "set-limit", "imported", "10M"])
    assert shown(booted, "imported")["Limit"] == str(10 * MEBIBYTE)
    for name, size in (("imported", 20), ("cloned", 150)):
        full = booted.run(f"head --bytes={size}M /dev/urandom >{MACHINES}/{name}/data; sync {MACHINES}/{name}/data",
                          check=False)
        assert "Disk quota exceeded" in full.stderr, name
        booted.run(["rm", f"{MACHINES}/{name}/data"])
    booted.run(["machinectl", "remove", "imported", "cloned", "copied"])
    assert subvolumes(booted) == set()
