# SPDX-License-Identifier: MIT
"""Images whose files are made to leak, to hang or to fill memory. They do none of it, whoever asks."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.host.booted import AGAINST_MACHINED, USER_ID, BootedHost
from tests.host.guests import MACHINES
from tests.lab import wait_for

from .clients import MANAGER, SOCKET, as_alice, bus, fails, listed, machinectl, workers
from .conftest import RUNS_SECONDS, Images

SECRET = "/etc/secret"
SECRET_WORD = "hunter2"
FILES = ("os-release", "hostname", "machine-id", "machine-info")

PROMISED_SECONDS = 20.0
"""For all questions about one image to end, in an answer or an error: a file's reader has five."""
AT_ONCE_SECONDS = 4.0
"""For all else meanwhile, starting a client included; takes some 100 ms, and less than what hangs is waited for."""
CROWDED_SECONDS = 15.0
"""The same while many ask: each question starts a process. One after the other, the hanging ones would take minutes."""
MEMORY_MAX = 200 << 20
"""Of the daemon and what it starts; a quarter of it is what they need."""

LEAKS: dict[str, str] = {
    "absolute": SECRET,
    "upwards": "../../../../../../.." + SECRET,
    "by proc": f"/proc/1/root{SECRET}",
    "by its own proc": f"/proc/self/root{SECRET}",
    "environment": "/proc/self/environ",
}
"""Where a link in the image leads; the files that are meant are root's alone."""


@pytest.fixture
def secret(booted: BootedHost) -> str:
    """A file of the host's that would be readable as each of an image's files."""
    path = booted.path(SECRET)
    path.write_text(f"{SECRET_WORD}\nPASSWORD={SECRET_WORD}\nNAME={SECRET_WORD}\nPRETTY_NAME={SECRET_WORD}\n")
    path.chmod(0o600)
    return SECRET_WORD


def asked(image: str) -> list[list[str]]:
    """All that reads an image's files."""
    by_name = [["busctl", "call", *MANAGER, f"GetImage{what}", "s", image] for what in (
        "Hostname", "MachineID", "MachineInfo", "OSRelease")]
    by_object = [["busctl", "call", MANAGER[0], f"/org/freedesktop/machine1/image/{image}",
                  "org.freedesktop.machine1.Image", f"Get{what}"] for what in ("Hostname", "OSRelease")]
    by_varlink = [["varlinkctl", "--json=short", "call", SOCKET, "io.systemd.MachineImage.List",
                   f'{{"name":"{image}","acquireMetadata":"{how}"}}'] for how in ("yes", "graceful")]
    return [*by_name, *by_object, *by_varlink, ["machinectl", "image-status", image]]


def replace(tree: Path, how: Callable[[Path], None]) -> None:
    for name in FILES:
        path = tree / "etc" / name
        path.unlink(missing_ok=True)
        how(path)


def others_are_served(host: BootedHost, within: float = AT_ONCE_SECONDS) -> None:
    """Of images that are as they should be, and of machines."""
    for argv in (["machinectl", "list-images"], ["busctl", "call", *MANAGER, "GetImageHostname", "s", "good"],
                 ["machinectl", "image-status", "good"], ["machinectl", "list"], ["machinectl", "show", ".host"],
                 ["varlinkctl", "call", SOCKET, "io.systemd.MachineImage.List",
                  '{"name":"good","acquireMetadata":"yes"}']):
        started = time.monotonic()
        host.run(argv)
        assert time.monotonic() - started < within, argv


@pytest.mark.parametrize("how", LEAKS)
def test_nothing_leaks(booted: BootedHost, images: Images, secret: str, how: str) -> None:
    """To nobody: what an administrator sees, and copies into a report, is the image's alone."""
    replace(images.directory("bad"), lambda path: path.symlink_to(LEAKS[how]))
    for argv in asked("bad"):
        _, text = as_alice(booted, argv)
        by_root = booted.run(argv, check=False)
        for told in (text, by_root.stdout + by_root.stderr):
            assert secret not in told, argv
            assert "PATH=" not in told, argv     # of an environment


def test_nothing_leaks_by_folders(booted: BootedHost, images: Images, secret: str) -> None:
    """Where /etc or /usr/lib of an image are links, they lead to the image's own."""
    tree = images.directory("bad")
    (tree / "etc").rename(tree / "real")
    (tree / "etc").symlink_to("/etc")
    (tree / "usr/lib").symlink_to("/usr/lib")
    for argv in asked("bad"):
        _, text = as_alice(booted, argv)
        assert "labhost" not in text, argv
        assert "Debian" not in text, argv
    (tree / "etc").unlink()
    (tree / "etc").symlink_to("/real")
    assert bus(booted, "GetImageHostname", "s", "bad") == 's "bad-host"'


def test_links_inside_lead_where_they_do_in_the_image(booted: BootedHost, images: Images, secret: str) -> None:
    tree = images.directory("good")
    (tree / "usr/lib").mkdir()
    (tree / "etc/os-release").rename(tree / "usr/lib/os-release")
    (tree / "etc/os-release").symlink_to("../usr/lib/os-release")
    (tree / "etc/hostname").rename(tree / "etc/secret")
    (tree / "etc/hostname").symlink_to(SECRET)
    assert bus(booted, "GetImageHostname", "s", "good") == 's "good-host"'
    assert '"PRETTY_NAME" "Tiny Linux"' in bus(booted, "GetImageOSRelease", "s", "good")
    (tree / "etc/os-release").unlink()      # os-release(5): /usr/lib has it where /etc has not
    assert '"PRETTY_NAME" "Tiny Linux"' in bus(booted, "GetImageOSRelease", "s", "good")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"ID=huge\nNAME=")
        file.truncate(10 << 30)


def crowded(path: Path) -> None:
    path.mkdir()
    for number in range(20_000):
        (path / f"{number:0200}").touch()


def written(path: Path, content: bytes) -> None:
    path.write_bytes(content)


HANGS: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "zeros without end": lambda path: os.mknod(path, 0o666 | 0o020000, os.makedev(1, 5)),
    "memory": lambda path: os.mknod(path, 0o666 | 0o020000, os.makedev(1, 1)),
    "terminal": lambda path: os.mknod(path, 0o666 | 0o020000, os.makedev(5, 0)),
    "10 GB": huge,
    "directory": crowded,
    "itself": lambda path: path.symlink_to(path.name),
    "one long line": lambda path: written(path, b"ID=" + b"x" * (8 << 20)),
    "no text": lambda path: written(path, bytes(range(256)) * 20),
}


@pytest.mark.skipif(AGAINST_MACHINED, reason="257 opens a pipe and reads what has no end, and answers nobody meanwhile")
@pytest.mark.parametrize("how", HANGS)
def test_nothing_hangs(booted: BootedHost, images: Images, how: str) -> None:
    tree = images.directory("bad")
    images.directory("good")
    if how == "directory":
        crowded(tree / "etc/os-release.d")
        for name in FILES:
            (tree / "etc" / name).unlink(missing_ok=True)
            (tree / "etc" / name).symlink_to("os-release.d")
    else:
        replace(tree, HANGS[how])
    started = time.monotonic()
    asking = [booted.popen(argv, uid=USER_ID) for argv in asked("bad")]
    try:
        others_are_served(booted)
        for each in asking:
            output, _ = each.communicate(timeout=max(0.1, PROMISED_SECONDS - (time.monotonic() - started)))
            assert len(output) < 1 << 20, each.args
    finally:
        for each in asking:
            each.kill()
            each.communicate()
    assert memory(booted) < MEMORY_MAX
    assert set(listed(booted)) == {"bad", "good", "web"}
    wait_for(lambda: not workers(booted), RUNS_SECONDS)
    done = machinectl(booted, "remove", "bad")
    assert done.returncode == 0, done
    assert set(listed(booted)) == {"good", "web"}


def memory(host: BootedHost) -> int:
    """Of the daemon's unit, at its highest; in bytes."""
    peak = host.out(["systemctl", "show", "--property=MemoryPeak", "--value", "mymachinesd.service"])
    return int(peak) if peak.isdigit() else 0


@pytest.mark.skipif(AGAINST_MACHINED, reason="257 answers nobody while it waits for a pipe")
def test_many_who_ask_about_what_hangs(booted: BootedHost, images: Images) -> None:
    """One user has his questions answered or refused, and everybody else his answers."""
    replace(images.directory("bad"), os.mkfifo)
    images.directory("good")
    asking = [booted.popen(["busctl", "call", *MANAGER, "GetImageOSRelease", "s", "bad"], uid=USER_ID)
              for _ in range(40)]
    try:
        others_are_served(booted, within=CROWDED_SECONDS)
    finally:
        for each in asking:
            each.kill()
            each.communicate()
    wait_for(lambda: not workers(booted), RUNS_SECONDS)
    others_are_served(booted)


def test_a_clone_takes_nothing_from_the_host(booted: BootedHost, images: Images, secret: str) -> None:
    """Links are copied as links, and pipes are not read."""
    tree = images.directory("bad")
    (tree / "link").symlink_to(SECRET)
    (tree / "usr/lib").symlink_to("/etc")
    os.mkfifo(tree / "pipe")
    os.mknod(tree / "zero", 0o666 | 0o020000, os.makedev(1, 5))
    booted.run(["machinectl", "clone", "bad", "copy"])
    assert os.readlink(booted.path(f"{MACHINES}/copy/link")) == SECRET
    assert secret not in booted.out(f"grep -r --devices=skip . {MACHINES}/copy/ 2>/dev/null; true")
    booted.run(["machinectl", "remove", "bad", "copy"])
    assert booted.path(SECRET).read_text().startswith(secret)


def test_an_image_whose_name_is_a_link_away(booted: BootedHost, images: Images, secret: str) -> None:
    """Removing it takes the link away, and nothing of where it leads."""
    booted.run(["ln", "-s", "/etc", f"{MACHINES}/bad"])
    booted.run(["machinectl", "remove", "bad"])
    assert booted.path(SECRET).exists()
    assert fails(booted, "show-image", "bad") == "Could not get path to image: No image 'bad' known"
