# SPDX-License-Identifier: MIT
"""systemd-importd, unmodified, puts images into the pool and takes them out; `machinectl` hands on to it.

Local files alone: nothing is verified, nothing is fetched.
"""

import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.booted import BootedHost
from tests.host.guests import MACHINES
from tests.lab import wait_for

from .clients import bus, bus_fails, listed, shown
from .conftest import RUNS_SCRIPT, RUNS_SECONDS, SETTINGS, Images

DESK = "/srv/desk"
TRANSFER_SECONDS = 60.0     # takes less than one


@pytest.fixture
def desk(booted: BootedHost) -> Iterator[Path]:
    """Where the test's own files lie, as seen from here."""
    booted.run(["mkdir", "-p", DESK])
    yield booted.path(DESK)
    booted.run(["rm", "-rf", DESK])


def transfer(host: BootedHost, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    verify = ["--verify=no"] if arguments[0] in ("import-tar", "import-raw") else []
    return host.run(["machinectl", *verify, *arguments], check=check, timeout=TRANSFER_SECONDS)


def tree(desk: Path) -> Path:
    made = desk / "tree"
    for folder in ("etc", "usr"):
        (made / folder).mkdir(parents=True)
    (made / "etc/os-release").write_text("ID=packed\n")
    (made / "etc/hostname").write_text("packed\n")
    (made / "link").symlink_to("etc/hostname")
    return made


def test_tar(booted: BootedHost, images: Images, desk: Path) -> None:
    tree(desk)
    booted.run(f"cd {DESK} && tar -C tree -cf packed.tar . && xz --keep packed.tar && gzip --keep packed.tar")
    transfer(booted, "import-tar", f"{DESK}/packed.tar")                            # its name is the file's
    transfer(booted, "import-tar", f"{DESK}/packed.tar.xz", "named")
    transfer(booted, "import-tar", "--read-only", f"{DESK}/packed.tar.gz", "locked")
    found = listed(booted)
    assert {name: image["ro"] for name, image in found.items()} == {
        "packed": False, "named": False, "locked": True, "web": False}
    assert shown(booted, "named")["Path"] == f"{MACHINES}/named"
    assert bus(booted, "GetImageHostname", "s", "packed") == 's "packed"'
    assert bus(booted, "GetImageOSRelease", "s", "locked") == 'a{ss} 1 "ID" "packed"'
    done = transfer(booted, "import-tar", f"{DESK}/packed.tar", "named", check=False)
    assert (done.returncode, "already exists" in done.stderr + done.stdout) == (1, True)
    transfer(booted, "import-tar", "--force", f"{DESK}/packed.tar", "named")

    transfer(booted, "export-tar", "named", f"{DESK}/plain.tar")
    transfer(booted, "export-tar", "named", f"{DESK}/small.tar.xz")
    for name in ("plain.tar", "small.tar.xz"):
        with tarfile.open(desk / name) as archive:
            members = {member.name for member in archive}
            assert {"./etc/hostname", "./link", "./usr"} <= members
    assert transfer(booted, "export-tar", "nosuch", f"{DESK}/x.tar", check=False).returncode == 1
    booted.run(["machinectl", "remove", "packed", "named", "locked"])
    assert set(listed(booted)) == {"web"}


def test_raw(booted: BootedHost, images: Images, desk: Path) -> None:
    content = b"boot" + bytes(3 << 20)
    (desk / "disk.raw").write_bytes(content)
    booted.run(["xz", "--keep", f"{DESK}/disk.raw"])
    transfer(booted, "import-raw", f"{DESK}/disk.raw")
    transfer(booted, "import-raw", "--read-only", f"{DESK}/disk.raw.xz", "locked")
    found = listed(booted)
    assert {name: (image["type"], image["ro"]) for name, image in found.items()} == {
        "disk": ("raw", False), "locked": ("raw", True), "web": ("directory", False)}
    assert shown(booted, "disk")["Limit"] == str(len(content))
    booted.run(["machinectl", "clone", "locked", "copy"])
    transfer(booted, "export-raw", "copy", f"{DESK}/out.raw")
    assert (desk / "out.raw").read_bytes() == content
    transfer(booted, "export-raw", "disk", f"{DESK}/out.raw.xz")
    assert booted.out(f"xz --decompress --stdout {DESK}/out.raw.xz | cmp - {DESK}/disk.raw") == ""
    booted.run(["machinectl", "remove", "disk", "locked", "copy"])
    assert set(listed(booted)) == {"web"}


def test_tree(booted: BootedHost, images: Images, desk: Path) -> None:
    tree(desk)
    transfer(booted, "import-fs", f"{DESK}/tree")
    transfer(booted, "import-fs", "--read-only", f"{DESK}/tree", "locked")
    assert {name: image["ro"] for name, image in listed(booted).items()} == {
        "tree": False, "locked": True, "web": False}
    assert bus(booted, "GetImageHostname", "s", "tree") == 's "packed"'
    booted.run(["machinectl", "rename", "tree", "other"])
    assert bus_fails(booted, "GetImageHostname", "s", "tree") == "No such image"
    booted.run(["machinectl", "remove", "other", "locked"])
    assert set(listed(booted)) == {"web"}


def test_what_was_imported_is_started(booted: BootedHost, images: Images, desk: Path) -> None:
    images.bootable("tiny")
    transfer(booted, "export-tar", "tiny", f"{DESK}/tiny.tar")
    booted.run(["machinectl", "remove", "tiny"])
    transfer(booted, "import-tar", f"{DESK}/tiny.tar", "again")
    assert not booted.path(f"{SETTINGS}/tiny.nspawn").exists()     # it was the image's
    images.settings("again", RUNS_SCRIPT)
    images.start("again")
    assert "again" in booted.out(["machinectl", "list", "--no-legend"]).split()
    booted.run(["machinectl", "poweroff", "again"])
    wait_for(lambda: "again" not in booted.out(["machinectl", "list", "--no-legend"]).split(), RUNS_SECONDS)
