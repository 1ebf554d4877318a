# SPDX-License-Identifier: MIT
"""Files to and from containers: machinectl, and what programs call."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import wait_for

from . import trees
from .asking import dbus, varlink
from .booted import AGAINST_MACHINED, BootedHost
from .conftest import Shell
from .guests import Guest

WORK = "/var/tmp/copies"
FILE = f"{WORK}/tree/file"

OURS = pytest.mark.skipif(AGAINST_MACHINED, reason="systemd 258 has it first")
NOT_BY_MACHINED = ["owner", "attributes", "time", "is sparse"] if AGAINST_MACHINED else []
"""It gives all files to the container's root, fills holes, and loses attributes and times of some kinds of files."""

MANY = 20000    # files: seconds of copying
LEFTOVER = ".#mymachines-"
END_SECONDS = 20.0


@pytest.fixture
def work(booted: BootedHost) -> Iterator[Path]:
    """A folder of the host, with files of every kind in `tree`."""
    folder = booted.path(WORK)
    booted.run(["rm", "-rf", WORK])
    folder.mkdir()
    trees.make(folder / "tree")
    yield folder
    booted.run(["rm", "-rf", WORK])


def fails(host: BootedHost, *arguments: str) -> str:
    done = host.run(["machinectl", "--no-ask-password", *arguments], check=False)
    assert done.returncode == 1, done
    return done.stderr.rstrip()


@pytest.mark.parametrize("options", [[], ["--private-users-ownership=chown"], ["--private-users=no"]],
                         ids=["mapped", "shifted", "as on the host"])
def test_there_and_back(booted: BootedHost, shell: Shell, work: Path, options: list[str]) -> None:
    db = shell("db", *options)
    booted.run(["machinectl", "copy-to", "db", f"{WORK}/tree", "/var/tree"])
    original = trees.without(NOT_BY_MACHINED, trees.seen(booted, f"{WORK}/tree"))
    assert len(original) == 13
    assert trees.without(NOT_BY_MACHINED, trees.seen(db, "/var/tree")) == original
    booted.run(["machinectl", "copy-from", "db", "/var/tree", f"{WORK}/back"])
    assert trees.without(NOT_BY_MACHINED, trees.seen(booted, f"{WORK}/back")) == original
    assert trees.without(NOT_BY_MACHINED, trees.seen(booted, f"{WORK}/tree")) == original
    assert not list(work.glob(f"{LEFTOVER}*"))


@pytest.mark.skipif(AGAINST_MACHINED, reason="it gives all to root")
def test_ids_are_shifted(booted: BootedHost, shell: Shell, work: Path) -> None:
    """On the disk they are the container's, as chown in it would make them; and come back as the host's."""
    db = shell("db", "--private-users-ownership=chown")
    shift = booted.path("/var/lib/machines/db/root").stat().st_uid
    assert shift > 65535
    booted.run(["machinectl", "copy-to", "db", FILE, "/root/file"])
    status = booted.path("/var/lib/machines/db/root/file").stat()
    assert (status.st_uid, status.st_gid) == (shift + 1000, shift + 1001)
    db.out("chown 7:8 /root/file")
    booted.run(["machinectl", "copy-from", "db", "/root/file", f"{WORK}/back"])
    status = (work / "back").stat()
    assert (status.st_uid, status.st_gid) == (7, 8)


def test_one_file(booted: BootedHost, web: Guest, work: Path) -> None:
    """Into a container that boots; the destination is the same path where none is given."""
    booted.run(["machinectl", "copy-to", "web", FILE, "/root/file"])
    inside = ["systemd-run", "--quiet", "--machine=web", "--pipe", "--wait", "--collect"]
    assert booted.out([*inside, "cat", "/root/file"]) == "of the host"
    booted.run([*inside, "mkdir", "-p", f"{WORK}/tree"])
    booted.run(["machinectl", "copy-to", "web", FILE])
    assert booted.out([*inside, "cat", FILE]) == "of the host"
    booted.run([*inside, "sh", "-c", f"echo of web >{FILE}.web"])
    booted.run(["machinectl", "copy-from", "web", f"{FILE}.web"])
    assert Path(f"{work}/tree/file.web").read_text() == "of web\n"
    booted.run([*inside, "rm", "-rf", "/root/file", WORK])


def test_what_is_there_is_replaced_only_with_force(booted: BootedHost, shell: Shell, work: Path) -> None:
    db = shell("db")
    booted.run(["machinectl", "copy-to", "db", FILE, "/root/file"])
    db.out("echo first >/root/file")
    (work / "back").write_text("first\n")
    assert "exists" in fails(booted, "copy-to", "db", FILE, "/root/file")
    assert "exists" in fails(booted, "copy-from", "db", "/root/file", f"{WORK}/back")
    assert db.out("cat /root/file") == "first"
    assert (work / "back").read_text() == "first\n"
    booted.run(["machinectl", "--force", "copy-to", "db", FILE, "/root/file"])
    assert db.out("cat /root/file") == "of the host"
    booted.run(["machinectl", "--force", "copy-from", "db", "/root/file", f"{WORK}/back"])
    assert (work / "back").read_text() == "of the host\n"


def test_a_folder_that_is_there(booted: BootedHost, shell: Shell, work: Path) -> None:
    db = shell("db")
    booted.run(["machinectl", "copy-to", "db", f"{WORK}/tree", "/var/tree"])
    db.out("echo first >/var/tree/file; echo more >/var/tree/more; rm /var/tree/executable")
    if not AGAINST_MACHINED:    # which adds what is missing, and says nothing of the rest
        assert "exists" in fails(booted, "copy-to", "db", f"{WORK}/tree", "/var/tree")
    assert db.out("cat /var/tree/file /var/tree/more") == "first\nmore"
    booted.run(["machinectl", "--force", "copy-to", "db", f"{WORK}/tree", "/var/tree"])
    assert db.out("cat /var/tree/file /var/tree/more; wc -c </var/tree/executable") == "of the host\nmore\n300000"


def test_what_is_not_there(booted: BootedHost, shell: Shell, work: Path) -> None:
    shell("db")
    for arguments in (("copy-to", "db", f"{WORK}/nosuch", "/root/x"), ("copy-from", "db", "/nosuch", f"{WORK}/x"),
                      ("copy-to", "db", FILE, "/no/such/folder/x"),
                      ("copy-from", "db", "/etc/hostname", "/no/such/folder/x")):
        assert "No such file or directory" in fails(booted, *arguments), arguments
    assert "No machine 'nosuch' known" in fails(booted, "copy-to", "nosuch", FILE, "/root/x")
    assert fails(booted, "copy-to", ".host", FILE, f"{WORK}/x").startswith("Failed to copy: ")
    assert sorted(path.name for path in work.iterdir()) == ["tree"]


def test_the_containers_links_lead_nowhere_outside(booted: BootedHost, shell: Shell, work: Path) -> None:
    db = shell("db")
    db.out("echo of db >/etc/hostname; ln -s /etc /root/absolute; ln -s ../../../../../../etc /root/relative; "
           "ln -s /proc/1/root/etc /root/magic; ln -s /proc/self/root/etc /root/self")
    host_name = booted.out(["cat", "/etc/hostname"])
    for number, link in enumerate(("absolute", "relative")):
        booted.run(["machinectl", "copy-from", "db", f"/root/{link}/hostname", f"{WORK}/{number}"])
        assert (work / str(number)).read_text() == "of db\n"
        booted.run(["machinectl", "copy-to", "db", FILE, f"/root/{link}/new-{number}"])
        assert db.out(f"cat /etc/new-{number}") == "of the host"
        assert not booted.path(f"/etc/new-{number}").exists()
    for link in () if AGAINST_MACHINED else ("magic", "self"):      # through a process's root, whoever's it would be
        assert fails(booted, "copy-to", "db", FILE, f"/root/{link}/stolen") != ""
        assert fails(booted, "copy-from", "db", f"/root/{link}/hostname", f"{WORK}/{link}") != ""
        assert not (work / link).exists()
    assert not booted.path("/etc/stolen").exists()
    assert booted.out(["cat", "/etc/hostname"]) == host_name


@OURS
def test_a_device_is_not_for_who_cannot_make_one(booted: BootedHost, shell: Shell, work: Path) -> None:
    shell("db")
    shell("redis", "--private-users=no")
    booted.run(["mknod", f"{WORK}/tree/device", "c", "1", "3"])
    assert "device" in fails(booted, "copy-to", "db", f"{WORK}/tree", "/var/tree")
    assert not booted.path("/var/lib/machines/db/var/tree").exists()
    booted.run(["machinectl", "copy-to", "redis", f"{WORK}/tree", "/var/tree"])
    assert booted.out("stat --format='%F %t %T' /var/lib/machines/redis/var/tree/device") \
        == "character special file 1 3"


def test_a_copy_whose_caller_goes(booted: BootedHost, shell: Shell, work: Path) -> None:
    """Leaves nothing, and nobody works on."""
    if AGAINST_MACHINED:
        pytest.skip("it copies on")
    db = shell("db")
    many = work / "many"
    many.mkdir()
    for number in range(MANY):
        (many / str(number)).touch()
    inside = booted.path("/var/lib/machines/db/var")

    def workers() -> str:
        return booted.run(["pgrep", "--full", "resolver.guest.copy_worker"], check=False).stdout

    with booted.popen(["machinectl", "copy-to", "db", f"{WORK}/many", "/var/many"]) as client:
        try:
            wait_for(lambda: list(inside.glob(f"{LEFTOVER}*")), END_SECONDS, "the copy to begin")
            assert workers() != ""
        finally:
            client.kill()
    wait_for(lambda: workers() == "", END_SECONDS, "the copy to end")
    assert not list(inside.glob(f"{LEFTOVER}*"))
    assert not (inside / "many").exists()
    assert db.out("echo alive") == "alive"


def test_by_dbus(booted: BootedHost, shell: Shell, work: Path) -> None:
    """With flags (1: replace) and without, of the manager's and of the machine's object."""
    db = shell("db")
    machine = ["org.freedesktop.machine1", "/org/freedesktop/machine1/machine/db", "org.freedesktop.machine1.Machine"]
    assert dbus(booted, "CopyToMachine", "sss", "db", FILE, "/root/file").error == ""
    assert dbus(booted, "CopyToMachine", "sss", "db", FILE, "/root/file").error \
        == "org.freedesktop.DBus.Error.FileExists"
    assert dbus(booted, "CopyToMachineWithFlags", "ssst", "db", FILE, "/root/file", 1).error == ""
    assert dbus(booted, "CopyFromMachineWithFlags", "ssst", "db", "/root/file", FILE, 1).error == ""
    assert dbus(booted, "CopyFromMachine", "sss", "db", "/root/file", f"{WORK}/back").error == ""
    assert dbus(booted, "CopyFromMachine", "sss", "db", "/nosuch", f"{WORK}/x").error \
        == "org.freedesktop.DBus.Error.FileNotFound"
    invalid = "org.freedesktop.DBus.Error.InvalidArgs"
    assert dbus(booted, "CopyToMachineWithFlags", "ssst", "db", FILE, "/root/new", 1 << 40).error == invalid
    assert dbus(booted, "CopyToMachine", "sss", "db", "relative", "/root/new").error == invalid
    assert dbus(booted, "CopyToMachine", "sss", "db", FILE, "relative").error == invalid
    booted.run(["busctl", "call", *machine, "CopyTo", "ss", FILE, "/root/second"])
    booted.run(["busctl", "call", *machine, "CopyToWithFlags", "sst", FILE, "/root/second", "1"])
    booted.run(["busctl", "call", *machine, "CopyFrom", "ss", "/root/second", f"{WORK}/second"])
    booted.run(["busctl", "call", *machine, "CopyFromWithFlags", "sst", "/root/second", f"{WORK}/second", "1"])
    assert (work / "second").read_text() == "of the host\n"
    assert db.out("ls /root").split() == ["file", "second"]


@OURS
def test_by_varlink(booted: BootedHost, shell: Shell, work: Path) -> None:
    db = shell("db")
    request = {"name": "db", "source": FILE, "destination": "/root/file"}
    assert varlink(booted, "CopyTo", request).error == ""
    assert varlink(booted, "CopyTo", request).error != ""
    assert varlink(booted, "CopyTo", {**request, "replace": True}).error == ""
    back = {"pid": {"pid": db.leader}, "source": "/root/file", "destination": f"{WORK}/back"}
    assert varlink(booted, "CopyFrom", back).error == ""
    assert varlink(booted, "CopyFrom", {**back, "replace": False}).error != ""
    assert (work / "back").read_text() == "of the host\n"
    invalid = "org.varlink.service.InvalidParameter"
    for field in ("source", "destination"):
        answer = varlink(booted, "CopyTo", {**request, field: "relative"})
        assert (answer.error, answer.reply) == (invalid, {"parameter": field})
    assert varlink(booted, "CopyTo", {**request, "name": "nosuch"}).error == "io.systemd.Machine.NoSuchMachine"
    assert varlink(booted, "CopyTo", {**request, "name": ".host"}).error != ""
