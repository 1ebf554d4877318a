# SPDX-License-Identifier: MIT
"""What hangs delays nobody else: a guest that does not answer, and the daemon itself."""

import subprocess
import time

import pytest

from tests.lab import wait_for

from .booted import AGAINST_MACHINED, BootedHost
from .conftest import Shell, serves

pytestmark = pytest.mark.skipif(AGAINST_MACHINED, reason="it does hang")

PROMISED_SECONDS = 5.0
"""For a call about a guest that hangs to end in an error."""
AT_ONCE_SECONDS = 2.0
"""For all else, starting a client included; takes some 50 ms."""

MANAGER = ["org.freedesktop.machine1", "/org/freedesktop/machine1", "org.freedesktop.machine1.Manager"]


def others_are_served(host: BootedHost) -> None:
    for argv in (["busctl", "call", *MANAGER, "GetMachineOSRelease", "s", "redis"], ["machinectl", "show", "db"],
                 ["getent", "passwd", "vu-db-5"], ["getent", "passwd", "vu-nobody-5"],
                 ["userdbctl", "user", "vu-redis-5"],
                 ["varlinkctl", "--more", "call", "/run/systemd/machine/io.systemd.Machine", "io.systemd.Machine.List",
                  "{}"]):
        started = time.monotonic()
        host.run(argv, check="nobody" not in argv[-1])
        assert time.monotonic() - started < AT_ONCE_SECONDS, argv


@pytest.mark.parametrize("how", ["its os-release is a pipe", "its first process is stopped"])
def test_a_guest_that_hangs(booted: BootedHost, shell: Shell, how: str) -> None:
    db = shell("db")
    shell("redis")
    release = booted.path("/var/lib/machines/db/etc/os-release")
    if how == "its os-release is a pipe":
        release.unlink()
        booted.run(["mkfifo", "/var/lib/machines/db/etc/os-release"])
    else:
        booted.run(["kill", "-STOP", str(db.leader)])
    try:
        started = time.monotonic()
        calls = [booted.popen(["busctl", "call", *MANAGER, method, "s", "db"]) for method in (
            "GetMachineOSRelease", "GetMachineAddresses", "GetMachineUIDShift")]
        others_are_served(booted)
        codes = [call.wait(PROMISED_SECONDS + AT_ONCE_SECONDS - (time.monotonic() - started)) for call in calls]
        assert codes[0] != 0 or how == "its first process is stopped"   # files can be read without it
        for call in calls:
            call.communicate()
        assert booted.run(["machinectl", "list"]).returncode == 0
    finally:
        booted.run(["kill", "-CONT", str(db.leader)])


def test_the_bus_looks_users_up_whatever_the_daemon_does(booted: BootedHost, shell: Shell) -> None:
    """dbus-daemon asks NSS who connects, and can answer nobody meanwhile."""
    db = shell("db")
    uid = int(booted.out(["stat", "--format=%u", f"/proc/{db.leader}"])) + 1000
    daemon = booted.main_pid()
    booted.run(["kill", "-STOP", str(daemon)])
    try:
        waiting = booted.popen(["busctl", "call", *MANAGER, "ListMachines"])     # the bus owes somebody an answer
        for number in range(5):
            started = time.monotonic()
            booted.run(["busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
                        "GetId"], uid=uid + number)
            assert time.monotonic() - started < AT_ONCE_SECONDS
        assert waiting.poll() is None
    finally:
        booted.run(["kill", "-CONT", str(daemon)])
    out, _ = waiting.communicate(timeout=20)
    assert b'"db"' in out
    booted.run(["systemctl", "stop", "mymachinesd.service"])
    try:
        started = time.monotonic()
        subprocess.run(booted.words(["busctl", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                     "org.freedesktop.DBus", "GetId"], uid=uid + 50), check=True, timeout=20,
                       capture_output=True)
        assert time.monotonic() - started < AT_ONCE_SECONDS
    finally:
        booted.run(["systemctl", "start", "mymachinesd.service"])
        wait_for(lambda: serves(booted), 30)
