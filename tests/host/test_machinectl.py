# SPDX-License-Identifier: MIT
"""machinectl of systemd 257: what it shows, and what it does to containers."""

import re

import pytest

from tests.lab import wait_for

from .booted import BootedHost
from .conftest import Shell
from .guests import Guest

END_SECONDS = 20.0


def names(host: BootedHost, *options: str) -> set[str]:
    return {line.split()[0] for line in host.out(["machinectl", "list", "--no-legend", *options]).splitlines()}


def fails(host: BootedHost, *arguments: str) -> str:
    """What machinectl says when it fails, as it must."""
    done = host.run(["machinectl", "--no-ask-password", *arguments], check=False)
    assert done.returncode == 1, done
    return done.stderr


def test_list(booted: BootedHost, shell: Shell, web: Guest) -> None:
    shell("db")
    assert names(booted) == {"db", "web"}
    assert names(booted, "--all") == {".host", "db", "web"}
    table = booted.out(["machinectl", "list"]).splitlines()
    assert table[0].split() == ["MACHINE", "CLASS", "SERVICE", "OS", "VERSION", "ADDRESSES"]
    assert table[-1] == "2 machines listed."
    row = next(line.split() for line in table if line.startswith("web "))
    assert row[:5] == ["web", "container", "systemd-nspawn", "debian", "13"]
    assert "ADDRESSES" not in booted.out(["machinectl", "list", "--max-addresses=0"])
    wait_for(lambda: re.search(r"192\.168\.\d+\.\d+\s+fe80::", booted.out(
        ["machinectl", "list", "--max-addresses=all", "--full"])), END_SECONDS)
    one = next(line for line in booted.out(["machinectl", "list", "--max-addresses=1"]).splitlines() if "web" in line)
    assert re.search(r"192\.168\.\d+\.\d+…", one), one


def test_status(booted: BootedHost, shell: Shell, web: Guest) -> None:
    db = shell("db")
    text = booted.out(["machinectl", "status", "db", "web"])
    for line in (f"Leader: {db.leader} (bash)", f"Leader: {web.leader} (systemd)", "Iface: ve-web", "Unit: db.service",
                 "Service: systemd-nspawn; class container", "Root: /var/lib/machines/db",
                 "OS: Debian GNU/Linux 13 (trixie)"):
        assert line in text
    assert re.search(r"UID Shift: \d+", text)
    assert re.search(r"^db$", text, re.MULTILINE) or re.search(r"^db\([0-9a-f]{32}\)$", text, re.MULTILINE)
    assert "Started db.service" in booted.out(["machinectl", "status", "db", "--lines=5"])
    assert "Started db.service" not in booted.out(["machinectl", "status", "db", "--lines=0"])
    for output in ("short", "short-precise", "short-iso", "short-full", "short-unix", "verbose", "json", "cat"):
        assert f"Leader: {db.leader}" in booted.out(["machinectl", "status", "db", f"--output={output}"])


def test_show(booted: BootedHost, shell: Shell) -> None:
    db = shell("db")
    shell("redis")
    assert booted.out(["machinectl", "show", "db", "-p", "State", "--value"]) == "running"
    shown = dict(line.split("=", 1) for line in booted.out(["machinectl", "show", "db"]).splitlines())
    assert shown["Name"] == "db"
    assert shown["Class"] == "container"
    assert shown["Service"] == "systemd-nspawn"
    assert shown["Leader"] == str(db.leader)
    assert shown["RootDirectory"] == "/var/lib/machines/db"
    assert shown["Unit"] == "db.service"
    assert shown["State"] == "running"
    assert re.fullmatch(r"[0-9a-f]{32}", shown["Id"])
    assert shown["Timestamp"] != ""
    assert int(shown["TimestampMonotonic"]) > 0
    interface = booted.out(["cat", "/sys/class/net/ve-db/ifindex"])
    assert booted.out(["busctl", "get-property", "org.freedesktop.machine1", "/org/freedesktop/machine1/machine/db",
                       "org.freedesktop.machine1.Machine", "NetworkInterfaces"]) == f"ai 1 {interface}"
    everything = booted.out(["machinectl", "show", "--all", "db"])
    assert "VSockCID=4294967295" in everything
    assert "SSHAddress=" in everything
    two = booted.out(["machinectl", "show", "db", "redis", "-p", "Name"]).split()
    assert two == ["Name=db", "Name=redis"]
    assert "PoolPath=/var/lib/machines" in booted.out(["machinectl", "show"])
    host = booted.out(["machinectl", "show", ".host"]).splitlines()
    assert {"Name=.host", "Class=host", "Leader=1", "RootDirectory=/", "Unit=-.slice", "State=running"} <= set(host)


def test_by_the_user_on_this_host(booted: BootedHost, shell: Shell) -> None:
    """-M user@ goes over a bridge that is started for that user, and reaches the same service."""
    shell("db")
    assert "db" in names(booted, "-M", "root@")
    assert booted.out(["machinectl", "-M", ".host", "show", "db", "-p", "Class", "--value"]) == "container"


def test_what_is_refused(booted: BootedHost, shell: Shell) -> None:
    db = shell("db")
    assert "No machine 'nosuch' known" in fails(booted, "show", "nosuch")
    assert "No machine 'nosuch' known" in fails(booted, "status", "nosuch")
    for verb in ("terminate", "kill", "poweroff", "reboot"):
        assert "No machine 'nosuch' known" in fails(booted, verb, "nosuch"), verb
    assert "'nobody'" in fails(booted, "kill", "--kill-whom=nobody", "db")
    assert "Unknown output 'strange'" in fails(booted, "status", "db", "--output=strange")
    assert fails(booted, "--max-addresses=many", "list") != ""
    assert fails(booted, "kill", "--signal=NOSUCH", "db") != ""
    assert fails(booted, "--lines=some", "status", "db") != ""
    assert fails(booted, "--no-such-option") != ""
    assert db.running()
    assert set(db.told()) == {"child"}


def test_poweroff_and_reboot_send_what_inits_wait_for(booted: BootedHost, shell: Shell) -> None:
    db, redis = shell("db"), shell("redis")
    booted.run(["machinectl", "poweroff", "db", "redis", "db", "db"])
    db.wait_told("RTMIN+4")
    redis.wait_told("RTMIN+4")
    booted.run(["machinectl", "reboot", "db"])
    db.wait_told("INT")
    assert "INT" not in redis.told()


def test_kill_reaches_whom_it_names(booted: BootedHost, shell: Shell) -> None:
    db = shell("db")
    booted.run(["machinectl", "kill", "--signal=USR1", "--kill-whom=leader", "db"])
    db.wait_told("USR1")
    assert "child USR1" not in db.told()
    booted.run(["machinectl", "kill", "--signal=HUP", "--kill-whom=leader", "db", "db", "db"])
    db.wait_told("HUP")
    booted.run(["machinectl", "kill", "--signal=USR1", "--kill-whom=all", "db"])
    db.wait_told("child USR1")


def test_kill_reaches_all_by_default(booted: BootedHost, shell: Shell) -> None:
    shell("db")
    booted.run(["machinectl", "kill", "--signal=KILL", "db"])
    wait_for(lambda: "db" not in names(booted), END_SECONDS)


def test_terminate_stops_the_unit_and_frees_the_name(booted: BootedHost, shell: Shell) -> None:
    db = shell("db")
    booted.run(["machinectl", "terminate", "db"])
    db.wait_told("RTMIN+3")
    wait_for(lambda: "db" not in names(booted), END_SECONDS)
    wait_for(lambda: not db.running(), END_SECONDS)
    db.remove()
    again = shell("db")
    assert booted.out(["machinectl", "show", "db", "-p", "Leader", "--value"]) == str(again.leader)


@pytest.mark.parametrize("verb", ["reboot", "poweroff"])
def test_a_container_that_boots_does_it(booted: BootedHost, web: Guest, verb: str) -> None:
    old = web.leader
    booted.run(["machinectl", verb, "web"])
    if verb == "reboot":    # systemd-nspawn starts its payload anew, under the same name
        wait_for(lambda: web.leader not in (0, old), 40)
        wait_for(lambda: booted.run(["systemctl", "-M", "web", "is-system-running"], check=False).stdout.strip() in (
            "running", "degraded"), 40)
        assert booted.out(["machinectl", "show", "web", "-p", "Leader", "--value"]) == str(web.leader)
    else:
        wait_for(lambda: not web.running(), 40)
        assert "web" not in names(booted)
