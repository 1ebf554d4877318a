# SPDX-License-Identifier: MIT
"""Guests that are not what they seem: an error for who asked, in time; nothing of the host reached, nobody held up."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.lab.waiting import Lines

from .asking import Answer, dbus, varlink
from .booted import AGAINST_MACHINED, BootedHost
from .conftest import Shell
from .guests import Guest
from .sessions import pseudo_terminals, shells

pytestmark = pytest.mark.skipif(AGAINST_MACHINED, reason="it follows where the guest leads")

PROMISED_SECONDS = 5.0
BUSY_SECONDS = 2.0
"""What a busy machine may add."""

MARKER = "/var/tmp/reached"
TOUCH = {"mode": "shell", "path": "/usr/bin/touch", "args": ["touch", MARKER]}
TOUCH_BY_DBUS: tuple[object, ...] = ("/usr/bin/touch", ["touch", MARKER], [])

LISTENER = """
import os, socket, sys, time
kind, path = sys.argv[1:]
os.makedirs(os.path.dirname(path), exist_ok=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(0 if kind == "full" else 16)
if kind == "full":
    waiting = []
    for _ in range(4):
        waiting.append(socket.socket(socket.AF_UNIX))
        waiting[-1].setblocking(False)
        waiting[-1].connect_ex(path)
print("listening", flush=True)
while kind in ("full", "not accepted"):
    time.sleep(60)
kept = []
while True:
    connection, _ = listener.accept()
    kept.append(connection)
    if kind == "garbage":
        connection.sendall(b"OK " + b"x" * 100000)
    elif kind == "closed":
        connection.close()
    elif kind == "polite":
        while data := connection.recv(4096):
            if b"AUTH" in data:
                connection.sendall(b"OK 0123456789abcdef0123456789abcdef\\r\\n")
            elif b"NEGOTIATE" in data:
                connection.sendall(b"AGREE_UNIX_FD\\r\\n")
"""
BUS = "/run/dbus/system_bus_socket"

HOSTS_USERS = pytest.mark.parametrize("options", [[], ["--private-users=no"]], ids=["own users", "the host's users"])


@contextmanager
def nothing_of_the_host(host: BootedHost) -> Iterator[None]:
    """No shell is started there, no terminal made, nothing touched."""
    before = pseudo_terminals(host), shells(host), host.out(["ls", "/var/tmp"])
    yield
    assert (pseudo_terminals(host), shells(host), host.out(["ls", "/var/tmp"])) == before
    assert not host.path(MARKER).exists()


def fails_in_time(answer: Answer) -> None:
    assert answer.error != "", answer
    assert "AccessDenied" not in answer.error
    assert answer.descriptors == []
    assert answer.seconds < PROMISED_SECONDS + BUSY_SECONDS


def all_shells_fail(host: BootedHost, name: str) -> None:
    with nothing_of_the_host(host), ThreadPoolExecutor() as together:
        answers = [
            together.submit(varlink, host, "Open", {"name": name, **TOUCH}),
            together.submit(varlink, host, "Open", {"name": name, "mode": "login"}),
            together.submit(dbus, host, "OpenMachineShell", "sssasas", name, "", *TOUCH_BY_DBUS),
            together.submit(dbus, host, "OpenMachineLogin", "s", name)]
        for answer in answers:
            fails_in_time(answer.result())


@contextmanager
def listening(guest: Guest, kind: str) -> Iterator[None]:
    """Somebody in the guest is at the place of its bus."""
    with guest.host.popen(guest.entered(["python3", "-c", LISTENER, kind, BUS])) as listener:
        try:
            assert Lines(listener).next(10) == "listening"
            yield
        finally:
            listener.kill()


@HOSTS_USERS
@pytest.mark.parametrize("how", ["mounted in its place", "a link to the mounted one", "a link", "through a process"])
def test_the_hosts_bus_in_place_of_its_own(booted: BootedHost, shell: Shell, how: str, options: Sequence[str]) -> None:
    mounts = {"mounted in its place": ["--bind=/run/dbus:/run/dbus"],
              "a link to the mounted one": ["--bind=/run/dbus:/run/of-host"]}.get(how, [])
    db = shell("db", *options, *mounts)
    if how == "a link to the mounted one":
        db.out(f"mkdir -p /run/dbus; ln -s /run/of-host/system_bus_socket {BUS}; test -S {BUS}")
    elif how == "a link":
        db.out(f"mkdir -p /run/dbus; ln -s ../../../../../../../..{BUS} {BUS}")
    elif how == "through a process":
        db.out(f"mkdir -p /run/dbus; ln -s /proc/1/root{BUS} {BUS}")
    else:
        db.out(f"test -S {BUS}")
    all_shells_fail(booted, "db")


@pytest.mark.parametrize("kind", ["not accepted", "full", "silent", "garbage", "closed", "polite"])
def test_a_bus_that_does_not_serve(booted: BootedHost, shell: Shell, kind: str) -> None:
    db = shell("db")
    shell("redis")
    with listening(db, kind), booted.popen(["busctl", "call", "org.freedesktop.machine1", "/org/freedesktop/machine1",
                                            "org.freedesktop.machine1.Manager", "OpenMachineLogin", "s",
                                            "db"]) as waiting:
        try:
            started = time.monotonic()
            assert "running" in booted.out(["machinectl", "show", "redis"])     # nobody else waits for it
            assert varlink(booted, "Open", {"name": "redis", "mode": "tty"}).error == ""
            assert time.monotonic() - started < PROMISED_SECONDS
            assert waiting.wait(PROMISED_SECONDS + BUSY_SECONDS) != 0
        finally:
            waiting.kill()
            waiting.communicate()
        all_shells_fail(booted, "db")


@pytest.mark.parametrize("what", ["mkfifo", "touch", "mkdir", "ln -s /dev/null", "ln -s /dev/full", "nothing"])
@pytest.mark.parametrize("node", ["/dev/ptmx", "/dev/pts/ptmx"])
def test_terminals_that_are_none(booted: BootedHost, shell: Shell, what: str, node: str) -> None:
    """Either node may be what it likes: what comes is a terminal of the machine's, or an error."""
    db = shell("db")
    script = "umount /dev/ptmx 2>/dev/null; rm -f /dev/ptmx; " if node == "/dev/ptmx" else \
        "mount -t tmpfs none /dev/pts; "
    db.out(script + ("true" if what == "nothing" else f"{what} {node}"))
    with nothing_of_the_host(booted):
        for answer in (varlink(booted, "Open", {"name": "db", "mode": "tty"}),
                       dbus(booted, "OpenMachinePTY", "s", "db")):
            if answer.error:
                fails_in_time(answer)
            else:
                assert node == "/dev/ptmx"      # which is not needed
                [terminal] = answer.descriptors
                assert str(terminal["peer device"]) == booted.out(
                    ["stat", "--format=%d", f"/proc/{db.leader}/root/dev/pts"])


@HOSTS_USERS
def test_the_hosts_terminals_in_place_of_its_own(booted: BootedHost, shell: Shell, options: Sequence[str]) -> None:
    db = shell("db", *options, "--bind=/dev/pts:/hosts-terminals", "--bind=/dev/pts/ptmx:/hosts-ptmx")
    db.out("mount --bind /hosts-terminals /dev/pts; rm -f /dev/ptmx; ln -s pts/ptmx /dev/ptmx")
    with nothing_of_the_host(booted):
        fails_in_time(varlink(booted, "Open", {"name": "db", "mode": "tty"}))
        fails_in_time(dbus(booted, "OpenMachinePTY", "s", "db"))


def test_one_node_of_the_hosts(booted: BootedHost, shell: Shell) -> None:
    db = shell("db", "--bind=/dev/pts/ptmx:/hosts-ptmx")
    db.out("mount --bind /hosts-ptmx /dev/pts/ptmx")
    with nothing_of_the_host(booted):
        fails_in_time(varlink(booted, "Open", {"name": "db", "mode": "tty"}))


def test_a_guest_that_is_stopped(booted: BootedHost, shell: Shell) -> None:
    """Its first process need not run for a terminal or its root; and shells end in an error."""
    db = shell("db")
    booted.run(["kill", "-STOP", str(db.leader)])
    try:
        assert varlink(booted, "Open", {"name": "db", "mode": "tty"}).error == ""
        assert varlink(booted, "OpenRootDirectory", {"name": "db"}).error == ""
        all_shells_fail(booted, "db")
    finally:
        booted.run(["kill", "-CONT", str(db.leader)])


def test_no_worker_is_left(booted: BootedHost, shell: Shell) -> None:
    db = shell("db")
    with listening(db, "silent"):
        all_shells_fail(booted, "db")
    done = booted.run(["pgrep", "--full", "resolver\\.enter"], check=False)
    assert done.stdout == "", done.stdout
