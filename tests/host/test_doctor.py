# SPDX-License-Identifier: MIT
"""mymachinesctl doctor on a host that runs systemd, as installed: each trouble is made, found, and mended by typing the
very command that the finding gives."""

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from tests.lab import wait_for
from tests.lab.waiting import Lines

from .booted import AGAINST_MACHINED, NSSWITCH, BootedHost
from .conftest import serves
from .guests import Guest, start_shell

pytestmark = pytest.mark.skipif(AGAINST_MACHINED, reason="about mymachinesd")

DOCTOR_SECONDS = 60.0
MENDED_SECONDS = 30.0
"""A service that was started anew may answer a moment after `systemctl` has returned."""

MUTE = "/run/systemd/userdb/io.example.Mute"
LISTENER = f"""
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind({MUTE!r})
sock.listen(8)
print("listening", flush=True)
sys.stdin.read()
"""

Report = dict[str, dict[str, Any]]
"""Findings by their text."""


def type_in(host: BootedHost, command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """As root, whose shell has /usr/local."""
    return host.run(f"PATH=/usr/local/bin:$PATH; {command}", check=check, timeout=DOCTOR_SECONDS)


def doctor(host: BootedHost, *arguments: str) -> tuple[int, Report]:
    done = type_in(host, " ".join(["mymachinesctl doctor --json", *arguments]), check=False)
    assert done.stdout, done.stderr
    return done.returncode, {finding["text"]: finding for finding in json.loads(done.stdout)}


def bad(report: Report) -> list[str]:
    return [text for text, finding in report.items() if finding["level"] in ("warning", "broken")]


class Trouble(NamedTuple):
    """What is typed to make it; `found` is in the finding's text."""

    make: str
    checks: str
    code: int
    found: str
    mend: str
    """What the finding is to say, or its beginning."""


TROUBLES = {
    "hosts without us": Trouble(
        "sed -i '/^hosts/s/ mymachines//' /etc/nsswitch.conf", "nsswitch", 7, "hosts: files dns: mymachines is not",
        "sed -i 's|^[[:blank:]]*hosts[[:blank:]]*:.*|hosts: files mymachines dns|' /etc/nsswitch.conf"),
    "users without us": Trouble(
        "sed -i '/^passwd/s/ mymachines//' /etc/nsswitch.conf", "nsswitch", 7, "passwd: files systemd: mymachines",
        "sed"),
    "dns before us": Trouble(
        "sed -i 's/^hosts.*/hosts: files dns mymachines/' /etc/nsswitch.conf", "nsswitch", 6, "dns before mymachines",
        "sed"),
    "no hosts line": Trouble(
        "sed -i /^hosts/d /etc/nsswitch.conf", "nsswitch", 7, "mymachines is not asked", "echo 'hosts: "),
    "daemon stopped": Trouble(
        "systemctl stop mymachinesd", "daemon userdb table", 7, "mymachinesd does not run",
        "systemctl start mymachinesd"),
    "daemon mute": Trouble(
        "systemctl kill --signal=STOP mymachinesd", "daemon", 7, "does not answer", "systemctl restart mymachinesd"),
    "userdb stopped": Trouble(
        "systemctl stop mymachines-userdb", "userdb", 6, "mymachines-userdb does not run",
        "systemctl restart mymachinesd"),
    "userdb mute": Trouble(
        "systemctl kill --signal=STOP mymachines-userdb", "userdb sockets", 7, "mymachines-userdb, pid ",
        "systemctl restart mymachines-userdb.service"),
    "nscd": Trouble("systemctl start nscd", "caches", 6, "answers in between and keeps answers", "systemctl disable"),
    "table unreadable": Trouble(
        "chmod 700 /run/mymachines", "table", 7, "cannot be read by all users", "chmod 755 /run/mymachines"),
    "table stale": Trouble(
        "cp -p /run/mymachines/table-2 /run/old && mymachinesctl unregister db && mv /run/old /run/mymachines/table-2",
        "table", 7, "the table and mymachinesd disagree about db", "systemctl restart mymachinesd"),
    "table gone": Trouble(
        "rm /run/mymachines/table-2", "table", 7, "table-2 is not there", "systemctl restart mymachinesd"),
    "table open to all": Trouble(
        "chmod 666 /run/mymachines/table-2", "table", 7, "not a file that root alone can write", "rm "),
    "machined in the way": Trouble(
        "systemctl disable --now mymachinesd && systemctl start systemd-machined", "machined daemon", 7,
        "org.freedesktop.machine1 is systemd-machined's", "systemctl enable --now mymachinesd"),
}


@pytest.fixture(scope="module")
def db(booted: BootedHost) -> Iterator[Guest]:
    guest = start_shell(booted, "db")
    yield guest
    guest.remove()


@pytest.fixture
def afterwards(booted: BootedHost) -> Iterator[None]:
    """Other tests find the host as it was, whatever happens."""
    yield
    booted.path("/etc/nsswitch.conf").write_text(NSSWITCH)
    booted.run("systemctl disable --now nscd; rm -f /run/old; chmod 755 /run/mymachines; "
               "systemctl reset-failed; systemctl enable --now mymachinesd", check=False)
    wait_for(lambda: serves(booted), MENDED_SECONDS)


def test_an_installed_host_is_well(booted: BootedHost, web: Guest) -> None:
    wait_well(booted, ["web"])      # its address may come a moment after its boot
    code, report = doctor(booted, "web")
    assert bad(report) == []
    assert code == 0
    assert "programs load /usr/local/lib/libnss_mymachines.so.2" in report
    assert f"org.freedesktop.machine1 is pid {booted.main_pid()}'s (mymachinesd)" in report
    assert "users: getpwuid: vu-web-0" in report
    dynamic = "/run/systemd/userdb/io.systemd.DynamicUser: pid 1 (systemd) answers"
    assert any(text.startswith(dynamic) for text in report)


@pytest.mark.usefixtures("db", "afterwards")
@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_what_is_wrong_is_mended_as_it_says(booted: BootedHost, trouble: Trouble) -> None:
    checks = [f"--check={name}" for name in trouble.checks.split()]
    assert doctor(booted, *checks)[0] == 0
    type_in(booted, trouble.make)
    code, report = doctor(booted, *checks)
    assert code == trouble.code, report
    [text] = [text for text in bad(report) if trouble.found in text]
    assert report[text]["meaning"]
    assert report[text]["mend"].startswith(trouble.mend)
    type_in(booted, report[text]["mend"])
    wait_well(booted, checks)


def wait_well(host: BootedHost, checks: list[str]) -> None:
    seen: list[list[str]] = []

    def well() -> bool:
        code, report = doctor(host, *checks)
        seen.append(bad(report))
        return code == 0

    try:
        wait_for(well, MENDED_SECONDS, "all to be well again")
    except AssertionError as late:
        raise AssertionError(f"{late}: {seen[-1]}") from None


def test_a_map_that_the_table_does_not_have(booted: BootedHost, afterwards: None) -> None:
    """mymachinesd waits a minute for it. Here the table is of the time before."""
    sleeping = booted.popen(["unshare", "--user", "--net", "sleep", "613"])  # no other's number
    try:
        leader = int(wait_for(lambda: booted.out("pgrep -xf 'sleep 613'", check=False), MENDED_SECONDS))
        type_in(booted, f"mymachinesctl register box --leader {leader}")
        booted.run("cp -p /run/mymachines/table-2 /run/old")
        booted.run(f"for map in uid gid; do echo 0 300000 65536 >/proc/{leader}/${{map}}_map; done")
        wait_for(lambda: booted.run("getent passwd vu-box-7", check=False).returncode == 0, MENDED_SECONDS)
        assert "users: userdb: vu-box-0" in doctor(booted, "box", "--check=path")[1]
        booted.run("mv /run/mymachines/table-2 /run/new && mv /run/old /run/mymachines/table-2")
        code, report = doctor(booted, "box", "--check=path")
        assert code == 7
        finding = report[f"users: uid 300000 is in the map of pid {leader}, and nobody by the table"]
        booted.run("mv /run/new /run/mymachines/table-2")
        type_in(booted, finding["mend"])
        assert "users: userdb: vu-box-0" in doctor(booted, "box", "--check=path")[1]
    finally:
        _end(sleeping, lambda: booted.run("pkill -xf 'sleep 613'", check=False))


def test_somebody_elses_mute_socket(booted: BootedHost, afterwards: None) -> None:
    """Not a unit's: a process that was started by hand, and takes connections without a word."""
    mute = booted.popen(["/usr/local/lib/mymachines/bin/python3", "-c", LISTENER])
    try:
        assert Lines(mute).next(MENDED_SECONDS) == "listening"
        code, report = doctor(booted, "--check=sockets")
        assert code == 7
        [text] = bad(report)
        assert text.startswith(f"{MUTE}: pid ")
        assert "logins hang" in report[text]["meaning"]
        type_in(booted, report[text]["mend"])
        wait_well(booted, ["--check=sockets"])
    finally:
        _end(mute, lambda: booted.run(["rm", "-f", MUTE]))


def _end(process: "subprocess.Popen[bytes]", then: Callable[[], object]) -> None:
    process.kill()
    process.communicate()
    then()
