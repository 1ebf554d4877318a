# SPDX-License-Identifier: MIT
"""systemd's other clients, and what reads machines through libsystemd."""

import json
from collections.abc import Iterator

import pytest

from tests.lab.waiting import Lines

from .booted import AGAINST_MACHINED, BootedHost
from .conftest import Introspections, Shell
from .guests import Guest

MONITOR = """
import ctypes, select, sys
sd = ctypes.CDLL("libsystemd.so.0")
monitor, names = ctypes.c_void_p(), ctypes.POINTER(ctypes.c_char_p)()
assert sd.sd_login_monitor_new(b"machine", ctypes.byref(monitor)) >= 0
poll = select.poll()
poll.register(sd.sd_login_monitor_get_fd(monitor), sd.sd_login_monitor_get_events(monitor))
while True:
    count = sd.sd_get_machine_names(ctypes.byref(names))
    print(" ".join(["machines:", *sorted(names[i].decode() for i in range(count))]), flush=True)
    poll.poll(60000)
    sd.sd_login_monitor_flush(monitor)
"""


def test_systemctl(booted: BootedHost, web: Guest) -> None:
    assert booted.out(["systemctl", "-M", "web", "is-active", "systemd-journald.service"]) == "active"
    assert booted.out(["systemctl", "-M", "root@web", "is-active", "systemd-journald.service"]) == "active"
    listed = {line.split()[0]: line.split()[1] for line in booted.out(
        ["systemctl", "list-machines", "--no-legend", "--plain"]).splitlines()}
    assert listed["web"] == "running"
    assert "labhost" in listed
    # Of sockets: for units, systemctl 257.13 fails with any machine that has some, whoever registered it.
    sockets = booted.out(["systemctl", "list-sockets", "--recursive", "--no-legend"])
    assert sockets.count("/run/dbus/system_bus_socket") == 2, sockets



def test_journalctl(booted: BootedHost, web: Guest) -> None:
    entries = booted.out(["journalctl", "-M", "web", "-n", "5", "-o", "json"]).splitlines()
    assert {json.loads(entry)["_HOSTNAME"] for entry in entries} == {"web"}


def test_loginctl_and_hostnamectl(booted: BootedHost, web: Guest) -> None:
    assert booted.out(["loginctl", "-M", "web"]).split()[:2] in (["SESSION", "UID"], ["No", "sessions."])
    assert json.loads(booted.out(["hostnamectl", "-M", "web", "--json=short"]))["StaticHostname"] == "web"


def test_ps_and_cgls(booted: BootedHost, shell: Shell, web: Guest) -> None:
    db = shell("db")
    shown = dict(line.split()[:2] for line in booted.out(["ps", "-eo", "pid=,machine="]).splitlines())
    assert shown[str(db.leader)] == "db"
    assert shown[str(web.leader)] == "web"
    assert shown["1"] == "-"
    assert "systemd-journald" in booted.out(["systemd-cgls", "--no-pager", "-M", "web"])


def test_login_monitor_sees_machines_come_and_go(booted: BootedHost, shell: Shell) -> None:
    with booted.popen(["python3", "-c", MONITOR]) as monitor:
        try:
            lines = Lines(monitor)

            def wait_seen(there: str, gone: str) -> None:
                while not ({there} - {""} <= (seen := set(lines.next(20).split()[1:])) and gone not in seen):
                    pass

            lines.next(20)
            db = shell("db")
            wait_seen("db", "")
            redis = shell("redis")
            wait_seen("redis", "")
            db.stop()
            wait_seen("redis", "db")
            redis.stop()
            wait_seen("", "redis")
        finally:
            monitor.kill()


def members(text: str) -> set[tuple[str, ...]]:
    """Of busctl's table: what is there, its type and signature, what a method gives, and flags. Values differ."""
    found: set[tuple[str, ...]] = set()
    interface = ""
    for line in text.splitlines()[1:]:
        words = line.split()
        if words[1] == "interface":
            interface = words[0]
        elif words[1] == "method":
            found.add((interface, *words[:4]))
        else:
            found.add((interface, *words[:3], words[-1]))
    return found


@pytest.mark.skipif(AGAINST_MACHINED, reason="compares mymachinesd with it")
@pytest.mark.parametrize("path", ["/org/freedesktop/machine1", "/org/freedesktop/machine1/machine/db",
                                  "/org/freedesktop/LogControl1"])
def test_introspection_holds_all_that_machined_has(
        introspections: Introspections, booted: BootedHost, shell: Shell, path: str) -> None:
    shell("db")
    ours = members(booted.out(["busctl", "introspect", "org.freedesktop.machine1", path]))
    assert members(introspections[path]) - ours == set()


@pytest.mark.skipif(AGAINST_MACHINED, reason="compares mymachinesd with it")
def test_the_tree_of_objects(booted: BootedHost, shell: Shell) -> None:
    shell("db")
    shell("a-b.c")
    tree = booted.out(["busctl", "tree", "--list", "org.freedesktop.machine1"]).splitlines()
    assert "/org/freedesktop/machine1/machine/db" in tree
    assert "/org/freedesktop/machine1/machine/a_2db_2ec" in tree
    assert "/org/freedesktop/machine1/machine/_2ehost" in tree
    for path in tree:
        booted.run(["busctl", "introspect", "org.freedesktop.machine1", path])


def test_signals(booted: BootedHost, shell: Shell) -> None:
    path, interface = "/org/freedesktop/machine1", "org.freedesktop.machine1.Manager"
    with booted.popen(["busctl", "monitor", "--json=short", f"--match=type=signal,interface={interface}"]) as monitor:
        try:
            lines = Lines(monitor)

            def signals() -> Iterator[tuple[str, list[str]]]:
                while True:
                    line = lines.next(20)
                    if line.startswith("{"):
                        message = json.loads(line)
                        yield message["member"], message["payload"]["data"]

            for _ in range(20):     # until it listens
                booted.run(["busctl", "emit", path, interface, "Probe"])
            coming = (signal for signal in signals() if signal[0] != "Probe")
            shell("db").stop()
            assert next(coming) == ("MachineNew", ["db", f"{path}/machine/db"])
            assert next(coming) == ("MachineRemoved", ["db", f"{path}/machine/db"])
        finally:
            monitor.kill()


def test_log_level(booted: BootedHost) -> None:
    assert booted.out(["systemctl", "service-log-level", "systemd-machined.service"]) == "info"
    booted.run(["systemctl", "service-log-level", "systemd-machined.service", "debug"])
    assert booted.out(["systemctl", "service-log-level", "systemd-machined.service"]) == "debug"
    booted.run(["systemctl", "service-log-level", "systemd-machined.service", "info"])


def test_getent_and_userdbctl_agree(booted: BootedHost, shell: Shell) -> None:
    db = shell("db")
    uid = int(booted.out(["stat", "--format=%u", f"/proc/{db.leader}"])) + 7
    by_service = booted.out(["userdbctl", "user", "vu-db-7", "--output=json", "--with-nss=no"])
    assert json.loads(by_service)["uid"] == uid
    assert booted.out(["getent", "passwd", "vu-db-7"]).split(":")[2] == str(uid)
    assert booted.out(["getent", "group", str(uid)]).startswith("vg-db-7:")
    assert json.loads(booted.out(["userdbctl", "group", "vg-db-7", "--output=json", "--with-nss=no"]))["gid"] == uid
    assert "io.systemd.Machine" in booted.out(["userdbctl", "services", "--no-legend"])
    assert booted.run(["userdbctl", "user", "vu-db-70000"], check=False).returncode != 0
