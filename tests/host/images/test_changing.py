# SPDX-License-Identifier: MIT
"""Clone, rename, read-only, remove, clean and limits, where the pool is on no btrfs."""

import os
import stat
from pathlib import Path

import pytest

from tests.host.booted import AGAINST_MACHINED, BootedHost
from tests.host.guests import MACHINES

from .clients import bus, bus_fails, fails, listed, machinectl, shown
from .conftest import SETTINGS, Images


def immutable(host: BootedHost, path: str) -> bool:
    return "i" in host.out(["lsattr", "-d", path]).split()[0]


def test_clone(booted: BootedHost, images: Images) -> None:
    images.directory("tiny")
    images.raw("disk", data=b"boot")
    booted.run(["machinectl", "clone", "tiny", "other"])
    booted.run(["machinectl", "clone", "disk", "other-disk"])
    found = listed(booted)
    assert set(found) == {"tiny", "other", "disk", "other-disk", "web"}
    assert found["other"]["type"] == "directory"
    assert found["other"]["created"] >= found["tiny"]["created"]
    assert booted.path(f"{MACHINES}/other/etc/hostname").read_text() == "tiny-host\n"
    assert booted.path(f"{MACHINES}/other-disk.raw").read_bytes() == booted.path(f"{MACHINES}/disk.raw").read_bytes()
    (booted.path(f"{MACHINES}/other/etc/hostname")).write_text("changed\n")
    assert bus(booted, "GetImageHostname", "s", "tiny") == 's "tiny-host"'
    assert images.entries() >= {"tiny", "other", "disk.raw", "other-disk.raw"}


def test_a_clone_that_must_fail(booted: BootedHost, images: Images) -> None:
    images.directory("tiny")
    images.directory("other", hostname="other\n")
    images.raw("disk")
    before = images.entries()
    fails(booted, "clone", "tiny", "other")
    assert fails(booted, "clone", "nosuch", "third") == "Could not clone image: No image 'nosuch' known"
    for source, target, error in (("tiny", "other", "Exists"), ("tiny", "tiny", "Exists"),
                                  ("disk", "other", "Exists"), ("nosuch", "x", "No such image")):
        assert bus_fails(booted, "CloneImage", "ssb", source, target, "false") == error
    assert bus_fails(booted, "Clone", "sb", "other", "false", image="tiny") == "Exists"
    assert images.entries() == before
    assert bus(booted, "GetImageHostname", "s", "other") == 's "other"'


def special_files(tree: Path) -> None:
    """One of each, with what is easily lost."""
    (tree / "program").write_text("text")
    os.chown(tree / "program", 1234, 4321)
    (tree / "program").chmod(0o4751)
    os.link(tree / "program", tree / "usr/second-name")
    os.symlink("/etc/../nowhere", tree / "link")
    os.lchown(tree / "link", 77, 78)
    os.mkfifo(tree / "pipe", 0o640)
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (tree / "sticky").mkdir()
    (tree / "sticky").chmod(0o1777)
    (tree / "na\nme\udcff").mkdir()
    for path in (tree / "program", tree / "etc", tree / "link"):
        os.utime(path, ns=(978_307_200_123_456_789, 978_307_200_123_456_789), follow_symlinks=False)


def pictured(tree: Path) -> dict[str, tuple[object, ...]]:
    """Of each file what a copy must have too."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        aged = status.st_mtime_ns if status.st_mtime_ns < 10**18 else 0
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(tree))] = (
            stat.filemode(status.st_mode), status.st_uid, status.st_gid, status.st_rdev,
            status.st_nlink if not path.is_dir() else 0, aged, content)
    return found


def test_a_clone_is_whole(booted: BootedHost, images: Images) -> None:
    tree = images.directory("tiny")
    special_files(tree)
    booted.run(["machinectl", "clone", "tiny", "other"])
    copy = booted.path(f"{MACHINES}/other")
    assert pictured(copy) == pictured(tree)
    assert (copy / "program").stat().st_ino == (copy / "usr/second-name").stat().st_ino
    assert (copy / "program").stat().st_ino != (tree / "program").stat().st_ino


@pytest.mark.skipif(AGAINST_MACHINED, reason="257 fills holes, and loses capabilities where it gives files away")
def test_a_clone_keeps_holes_and_capabilities(booted: BootedHost, images: Images) -> None:
    tree = images.directory("tiny")
    (tree / "program").write_text("text")
    booted.run(["chown", "7:7", f"{MACHINES}/tiny/program"])
    booted.run(["setcap", "cap_net_raw+ep", f"{MACHINES}/tiny/program"])
    os.setxattr(tree / "etc", "user.note", b"kept")
    with (tree / "sparse").open("wb") as file:
        file.truncate(1 << 30)
    images.raw("disk", size=1 << 30, data=b"boot")
    booted.run(["machinectl", "clone", "tiny", "other"])
    booted.run(["machinectl", "clone", "disk", "other-disk"])
    copy = booted.path(f"{MACHINES}/other")
    assert "cap_net_raw=ep" in booted.out(["getcap", f"{MACHINES}/other/program"])
    assert os.getxattr(copy / "etc", "user.note") == b"kept"
    for path in (copy / "sparse", booted.path(f"{MACHINES}/other-disk.raw")):
        assert path.stat().st_size == 1 << 30
        assert path.stat().st_blocks * 512 < 1 << 20


def test_rename(booted: BootedHost, images: Images) -> None:
    images.directory("tiny")
    images.raw("disk")
    booted.run(["machinectl", "rename", "tiny", "other"])
    booted.run(["machinectl", "rename", "disk", "other-disk"])
    assert set(listed(booted)) == {"other", "other-disk", "web"}
    assert {"other", "other-disk.raw"} <= images.entries()
    assert fails(booted, "show-image", "tiny") == "Could not get path to image: No image 'tiny' known"
    assert fails(booted, "rename", "tiny", "x") == "Could not rename image: No image 'tiny' known"
    assert shown(booted, "other")["Path"] == f"{MACHINES}/other"
    images.directory("third")
    before = images.entries()
    for source, target in (("third", "other"), ("other-disk", "third")):
        assert bus_fails(booted, "RenameImage", "ss", source, target) == "Exists"
    assert images.entries() == before
    booted.run(["busctl", "call", "org.freedesktop.machine1", "/org/freedesktop/machine1/image/third",
                "org.freedesktop.machine1.Image", "Rename", "s", "fourth"])
    assert bus_fails(booted, "GetHostname", image="third") == "No such object"
    assert bus(booted, "GetImageHostname", "s", "fourth") == 's "third-host"'


def test_read_only(booted: BootedHost, images: Images) -> None:
    """Of a directory by the immutable attribute, of a disk by its mode; it stays where the name changes."""
    images.directory("tiny")
    disk = images.raw("disk")
    for name in ("tiny", "disk"):
        assert shown(booted, name)["ReadOnly"] == "no"
        booted.run(["machinectl", "read-only", name])
        assert shown(booted, name)["ReadOnly"] == "yes"
        assert listed(booted)[name]["ro"] is True
        booted.run(["machinectl", "read-only", name, "yes"])    # once more
    assert immutable(booted, f"{MACHINES}/tiny")
    assert booted.run(["touch", f"{MACHINES}/tiny/x"], check=False).returncode != 0
    assert stat.S_IMODE(disk.stat().st_mode) == 0o444
    for name in ("tiny", "disk"):
        booted.run(["machinectl", "rename", name, f"{name}-2"])
        assert shown(booted, f"{name}-2")["ReadOnly"] == "yes"
        booted.run(["machinectl", "read-only", f"{name}-2", "no"])
        assert shown(booted, f"{name}-2")["ReadOnly"] == "no"
    assert not immutable(booted, f"{MACHINES}/tiny-2")
    booted.run(["touch", f"{MACHINES}/tiny-2/x"])
    assert fails(booted, "read-only", "nosuch") == "Could not mark image read-only: No image 'nosuch' known"
    assert fails(booted, "read-only", "tiny-2", "perhaps") != ""
    booted.run(["machinectl", "clone", "--read-only", "tiny-2", "locked"])
    booted.run(["machinectl", "clone", "--read-only", "disk-2", "locked-disk"])
    assert {shown(booted, name)["ReadOnly"] for name in ("locked", "locked-disk")} == {"yes"}
    booted.run(["machinectl", "clone", "locked", "open"])       # a clone is as it is asked for
    assert shown(booted, "open")["ReadOnly"] == "no"
    booted.run(["machinectl", "remove", "locked", "locked-disk"])
    assert set(listed(booted)) == {"disk-2", "open", "tiny-2", "web"}


def test_remove(booted: BootedHost, images: Images) -> None:
    before = images.entries()
    special_files(images.directory("tiny"))
    images.directory("other")
    images.raw("disk")
    booted.run(["ln", "-s", "/usr/lib", f"{MACHINES}/other/usr/lib"])
    done = machinectl(booted, "remove", "tiny", "nosuch", "disk")
    assert (done.returncode, done.stderr) == (1, "Could not remove image: No image 'nosuch' known\n")
    assert not booted.path(f"{MACHINES}/tiny").exists()
    booted.run(["machinectl", "remove", *(set(listed(booted)) - {"web"})])
    assert images.entries() == before
    assert booted.run(["test", "-e", "/usr/lib/systemd/systemd"]).returncode == 0     # links are not followed
    assert bus_fails(booted, "RemoveImage", "s", "tiny") == "No such image"


def test_the_host_is_no_image_to_change(booted: BootedHost) -> None:
    for method, signature, *arguments in (("RemoveImage", "s", ".host"), ("RenameImage", "ss", ".host", "x"),
                                          ("MarkImageReadOnly", "sb", ".host", "false")):
        assert bus_fails(booted, method, signature, *arguments) == "Read-only"


def test_settings_go_along(booted: BootedHost, images: Images) -> None:
    images.directory("tiny")
    images.settings("tiny", "[Exec]\n")
    inside = [booted.path(f"{MACHINES}/{name}.nspawn") for name in ("tiny", "other", "third")]
    inside[0].write_text("[Files]\n")
    beside = [booted.path(f"{SETTINGS}/{name}.nspawn") for name in ("tiny", "other", "third")]
    booted.run(["machinectl", "clone", "tiny", "other"])
    assert [path.read_text() for path in (inside[1], beside[1])] == ["[Files]\n", "[Exec]\n"]
    booted.run(["machinectl", "rename", "other", "third"])
    assert [path.read_text() for path in (inside[2], beside[2])] == ["[Files]\n", "[Exec]\n"]
    assert not any(path.exists() for path in (inside[1], beside[1]))
    booted.run(["machinectl", "remove", "third"])
    assert [path.exists() for path in (*inside, *beside)] == [True, False, False] * 2


def cleaned(host: BootedHost) -> list[str]:
    done = machinectl(host, "clean")
    assert done.returncode == 0, done
    return (done.stdout + done.stderr).splitlines()


def test_clean(booted: BootedHost, images: Images) -> None:
    """Hidden ones alone; of `--all` see test_btrfs.py, where the pool has nothing else."""
    images.directory("tiny")
    booted.run(["machinectl", "clone", "tiny", ".one"])
    booted.run(["machinectl", "clone", "--read-only", "tiny", ".two"])
    images.raw(".disk")
    assert {".one", ".two", ".disk"} <= set(listed(booted, "--all"))
    lines = cleaned(booted)
    assert {line.split("'")[1] for line in lines[:-1]} == {".one", ".two", ".disk"}
    assert all(line.startswith("Removed image '") for line in lines[:-1])
    assert lines[-1].startswith("Removed 3 images in total.")
    assert set(listed(booted, "--all")) == {".host", "tiny", "web"}
    assert cleaned(booted)[-1].startswith("Removed 0 images in total.")
    assert bus_fails(booted, "CleanPool", "s", "some") == "Invalid"


def test_limits_are_not_supported(booted: BootedHost, images: Images) -> None:
    images.directory("tiny")
    images.raw("disk")
    for arguments in (["set-limit", "tiny", "1G"], ["set-limit", "1G"]):
        fails(booted, *arguments)
    assert fails(booted, "set-limit", "nosuch", "1G") == "Could not set limit: No image 'nosuch' known"
    for name in ("tiny", "disk"):
        assert bus_fails(booted, "SetImageLimit", "st", name, "1000000") == "Not supported"
    assert bus_fails(booted, "SetLimit", "t", "1000000", image="tiny") == "Not supported"
    assert bus_fails(booted, "SetPoolLimit", "t", "1000000") == "Not supported"
