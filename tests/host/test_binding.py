# SPDX-License-Identifier: MIT
"""Files of the host shown in a container: machinectl bind, and what programs call."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .asking import dbus, varlink
from .booted import AGAINST_MACHINED, BootedHost
from .conftest import Shell
from .guests import Guest

SHOWN = "/var/tmp/shown"

OURS = pytest.mark.skipif(AGAINST_MACHINED, reason="systemd 258 has it first")
USERS = [pytest.param([], id="own users", marks=pytest.mark.skipif(
    AGAINST_MACHINED, reason="it refuses containers that have a user namespace")),
    pytest.param(["--private-users=no"], id="the host's users")]


@pytest.fixture
def shown(booted: BootedHost) -> Iterator[Path]:
    """A folder of the host with a file, and nothing mounted that was not before."""
    folder = booted.path(SHOWN)
    booted.run(["rm", "-rf", "--one-file-system", SHOWN])
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "file").write_text("of the host\n")
    before = mounts(booted)
    yield folder
    after = mounts(booted)
    booted.run(["rm", "-rf", "--one-file-system", SHOWN])
    assert {point for point in after - before if "nspawn" not in point} == set()


def mounts(host: BootedHost) -> set[str]:
    """Where something is mounted on the host."""
    return {line.split()[4] for line in host.out(["cat", "/proc/1/mountinfo"]).splitlines()}


def fails(host: BootedHost, *arguments: str) -> str:
    done = host.run(["machinectl", "--no-ask-password", "bind", *arguments], check=False)
    assert done.returncode == 1, done
    return done.stderr.rstrip()


def inside(guest: Guest, script: str) -> tuple[int, str]:
    """As a shell in the container sees it."""
    done = guest.host.run(guest.entered(f"exec 2>&1; {script}"), check=False)
    return done.returncode, done.stdout.rstrip("\n")


@pytest.mark.parametrize("options", USERS)
def test_a_folder(booted: BootedHost, shell: Shell, shown: Path, options: list[str]) -> None:
    db = shell("db", *options)
    inside(db, "mkdir /mnt /there")
    booted.run(["machinectl", "bind", "db", SHOWN, "/there"])
    assert inside(db, "cat /there/file") == (0, "of the host")
    assert inside(db, "grep -c ' /there ' /proc/self/mountinfo") == (0, "1")
    (shown / "later").write_text("later\n")
    assert inside(db, "cat /there/later") == (0, "later")
    if options:
        assert inside(db, "echo of db >/there/new") == (0, "")
        assert (shown / "new").read_text() == "of db\n"
    assert not booted.path("/there").exists()


@pytest.mark.parametrize("options", USERS)
def test_mkdir(booted: BootedHost, shell: Shell, shown: Path, options: list[str]) -> None:
    """What is not there is made only when that is asked for; the same path where none is given."""
    db = shell("db", *options)
    assert fails(booted, "db", SHOWN, "/not/there") != ""
    assert inside(db, "test -e /not")[0] == 1
    booted.run(["machinectl", "bind", "--mkdir", "db", SHOWN, "/not/there"])
    assert inside(db, "cat /not/there/file") == (0, "of the host")
    booted.run(["machinectl", "bind", "--mkdir", "db", SHOWN])
    assert inside(db, f"cat {SHOWN}/file") == (0, "of the host")
    assert inside(db, "stat --format=%u /not /not/there/..") == (0, "0\n0")


@pytest.mark.parametrize("options", USERS)
def test_read_only(booted: BootedHost, shell: Shell, shown: Path, options: list[str]) -> None:
    db = shell("db", *options)
    booted.run(["machinectl", "bind", "--mkdir", "--read-only", "db", SHOWN, "/there"])
    assert inside(db, "cat /there/file") == (0, "of the host")
    status, said = inside(db, "echo broken >/there/file")
    assert status != 0
    assert "Read-only" in said or ("denied" in said and not options)
    status, said = inside(db, "mount -o remount,bind,rw /there && echo broken >/there/file")
    assert status != 0 or options, said     # who has the host's users may undo it
    if not options:
        assert (shown / "file").read_text() == "of the host\n"
        assert inside(db, "umount /there && cat /there/file")[1] != "of the host"


@pytest.mark.parametrize("options", USERS)
def test_one_file(booted: BootedHost, shell: Shell, shown: Path, options: list[str]) -> None:
    db = shell("db", *options)
    inside(db, "echo of db >/etc/shown")
    booted.run(["machinectl", "bind", "--read-only", "db", f"{SHOWN}/file", "/etc/shown"])
    assert inside(db, "cat /etc/shown") == (0, "of the host")
    inside(db, "umount /etc/shown")
    booted.run(["machinectl", "bind", "--mkdir", "db", f"{SHOWN}/file", "/etc/new/shown"])
    assert inside(db, "cat /etc/new/shown") == (0, "of the host")


def test_a_container_that_boots(booted: BootedHost, web: Guest, shown: Path) -> None:
    if AGAINST_MACHINED:
        pytest.skip("it refuses containers that have a user namespace")
    booted.run(["machinectl", "bind", "--mkdir", "web", SHOWN, "/srv/shown"])
    in_web = ["systemd-run", "--quiet", "--machine=web", "--pipe", "--wait", "--collect"]
    assert booted.out([*in_web, "cat", "/srv/shown/file"]) == "of the host"
    booted.run([*in_web, "umount", "/srv/shown"])


@pytest.mark.parametrize("options", USERS)
def test_the_containers_links_lead_nowhere_outside(
        booted: BootedHost, shell: Shell, shown: Path, options: list[str]) -> None:
    db = shell("db", *options)
    inside(db, "mkdir /etc/place /root/place; ln -s /etc/place /root/absolute; ln -s ../../../../etc /root/relative; "
               "ln -s /proc/1/root/etc /root/magic")
    booted.run(["mkdir", "/etc/place"])
    try:
        for place in ("/root/absolute", "/root/relative/place", "/root/magic/place"):
            booted.run(["machinectl", "bind", "db", SHOWN, place], check=False)
            assert not booted.path("/etc/place/file").exists()
        booted.run(["machinectl", "bind", "--mkdir", "db", SHOWN, "/root/relative/made"], check=False)
        assert not booted.path("/etc/made").exists()
        assert booted.out(["grep", "-c", "/etc/place", "/proc/1/mountinfo"], check=False) == "0"
    finally:
        booted.run(["rmdir", "/etc/place"])


def test_what_is_refused(booted: BootedHost, shell: Shell, shown: Path) -> None:
    db = shell("db", "--private-users=no")
    assert "No machine 'nosuch' known" in fails(booted, "nosuch", SHOWN)
    assert fails(booted, ".host", SHOWN, "/mnt") != ""
    assert fails(booted, "--mkdir", "db", f"{SHOWN}/nosuch", "/there") != ""
    invalid = "org.freedesktop.DBus.Error.InvalidArgs"
    for source, destination in (("relative", "/there"), (SHOWN, "there"), (f"{SHOWN}/../shown", "/there"),
                                (SHOWN, "/there/../../x")):
        answer = dbus(booted, "BindMountMachine", "sssbb", "db", source, destination, False, True)
        assert answer.error == invalid, answer
    assert inside(db, "ls / | grep -c there") == (1, "0")
    answer = dbus(booted, "BindMountMachine", "sssbb", "db", SHOWN, "", True, True)
    assert answer.error == "", answer
    assert inside(db, f"cat {SHOWN}/file") == (0, "of the host")


@OURS
def test_by_varlink(booted: BootedHost, shell: Shell, shown: Path) -> None:
    db = shell("db")
    assert varlink(booted, "BindMount", {"name": "db", "source": SHOWN, "destination": "/there"}).error != ""
    request = {"pid": {"pid": db.leader}, "source": SHOWN, "destination": "/there", "mkdir": True, "readOnly": True}
    assert varlink(booted, "BindMount", request).error == ""
    assert inside(db, "cat /there/file") == (0, "of the host")
    assert inside(db, "echo x >/there/file")[0] != 0
    for field in ("source", "destination"):
        answer = varlink(booted, "BindMount", {"name": "db", "source": SHOWN, field: "relative"})
        assert (answer.error, answer.reply) == ("org.varlink.service.InvalidParameter", {"parameter": field})
    assert varlink(booted, "BindMount", {"name": "nosuch", "source": SHOWN}).error == "io.systemd.Machine.NoSuchMachine"
    assert varlink(booted, "BindMount", {"name": ".host", "source": SHOWN}).error == "io.systemd.Machine.NotSupported"
