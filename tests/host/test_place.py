# SPDX-License-Identifier: MIT
"""Installed as README.md says, mymachinesd has systemd-machined's place, and gives it back."""

import time

import pytest

from tests.lab import wait_for

from .booted import AGAINST_MACHINED, USER_ID, BootedHost
from .conftest import TAKE_OVER_SECONDS, Shell, serves, take_place
from .guests import Guest
from .root import SOURCES

PACKAGES = ("libnss-mymachines", "systemd-container", "dbus-system-bus-common", "polkitd")
LEFT_OUT_OF_THE_TREE = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/")


pytestmark = pytest.mark.skipif(AGAINST_MACHINED, reason="about mymachinesd's units")


def test_nothing_of_debian_is_touched(booted: BootedHost) -> None:
    lines = booted.run(["dpkg", "--verify", *PACKAGES], check=False).stdout.splitlines()
    assert [line for line in lines if not line.split()[-1].startswith(LEFT_OUT_OF_THE_TREE)] == []


def test_programs_load_our_module(booted: BootedHost) -> None:
    first = next(line for line in booted.out(["ldconfig", "-p"]).splitlines() if "libnss_mymachines.so.2" in line)
    assert first.endswith("=> /usr/local/lib/libnss_mymachines.so.2")
    loaded = booted.run("LD_DEBUG=files getent passwd vu-no-1", check=False).stderr
    assert "calling init: /usr/local/lib/libnss_mymachines.so.2" in loaded


def test_whoever_wants_machined_gets_us(booted: BootedHost) -> None:
    """By each of the names that others use, also while the daemon does not run; and nothing complains."""
    names = booted.out(["systemctl", "show", "--property=Names", "--value", "mymachinesd.service"]).split()
    assert set(names) == {"mymachinesd.service", "systemd-machined.service", "dbus-org.freedesktop.machine1.service"}
    for starts_it in ("machinectl list", "systemctl start systemd-machined.service"):   # libvirtd: as its Wants= does
        booted.run(["systemctl", "stop", "mymachinesd.service"])
        booted.run(starts_it)
        wait_for(lambda: serves(booted), TAKE_OVER_SECONDS)
    assert booted.run(["pgrep", "-x", "systemd-machine"], check=False).stdout == ""
    assert booted.out(["systemctl", "--failed", "--no-legend"]) == ""
    assert booted.out(["systemd-analyze", "verify", "/usr/local/lib/systemd/system/mymachinesd.service",
                       "/usr/local/lib/systemd/system/mymachines-userdb.service",
                       "/usr/local/lib/systemd/system/mymachines-dns.service",
                       "/usr/local/lib/systemd/system/mymachines-resolve-hook.service",
                       "/usr/local/lib/systemd/system/mymachines-retire.service",
                       "/usr/local/lib/systemd/system/mymachines-take-over.service"]) == ""


@pytest.mark.parametrize("theirs", ["there", "not there"])
def test_the_bus_starts_us_and_lets_users_ask(booted: BootedHost, theirs: str) -> None:
    """Also where systemd-container is not installed, whose files for D-Bus say the same as ours."""
    files = ["/usr/share/dbus-1/system.d/org.freedesktop.machine1.conf",
             "/usr/share/dbus-1/system-services/org.freedesktop.machine1.service"]
    reload = "busctl call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus ReloadConfig"
    booted.run(["systemctl", "stop", "mymachinesd.service"])
    try:
        if theirs == "not there":
            booted.run(" && ".join(f"mv {file} {file}.aside" for file in files) + f" && {reload}")
        assert "No machines" in booted.unit_run(["machinectl"], uid=USER_ID).stdout
        wait_for(lambda: serves(booted), TAKE_OVER_SECONDS)
        refused = booted.unit_run(["busctl", "call", "org.freedesktop.machine1", "/org/freedesktop/machine1",
                                   "org.freedesktop.machine1.Manager", "RegisterMachine", "sayssus", "x", "0", "", "",
                                   "0", ""], uid=USER_ID, check=False)
        assert "denied" in refused.stderr
    finally:
        if theirs == "not there":
            booted.run(" && ".join(f"mv {file}.aside {file}" for file in files) + f" && {reload}")
    assert "should have been named" not in booted.out(["journalctl", "-b", "--identifier=dbus-daemon"])


def test_the_place_is_given_back_and_taken_again(booted: BootedHost, shell: Shell) -> None:
    """systemd-machined reads our state files, and we read its."""
    db = shell("db")
    leader = db.leader
    booted.run(["systemctl", "disable", "--now", "mymachinesd.service"])
    try:
        assert sorted(booted.out(["machinectl", "show", "db", "--property=Leader", "--property=Class",
                                  "--property=Unit", "--property=RootDirectory"]).splitlines()) == [
            "Class=container", f"Leader={leader}", "RootDirectory=/var/lib/machines/db", "Unit=db.service"]
        assert booted.main_pid("systemd-machined.service") != 0
        assert booted.run(["pgrep", "-f", "mymachine"], check=False).stdout == ""
        wait_for(lambda: "vu-db-5" in booted.run(["userdbctl", "user", "vu-db-5"], check=False).stdout)
        assert booted.run(["ls", "/run/mymachines"], check=False).returncode != 0
        redis = shell("redis")
    finally:
        take_place(booted)
    assert {line.split()[0] for line in booted.out(["machinectl", "--no-legend"]).splitlines()} == {"db", "redis"}
    assert booted.out(["machinectl", "show", "redis", "--property=Leader", "--value"]) == str(redis.leader)
    assert booted.out(["getent", "passwd", "vu-db-5"]).startswith("vu-db-5:")


def test_ten_machines_outlive_every_restart(booted: BootedHost, shell: Shell) -> None:
    guests = [shell(f"m{number}") for number in range(10)]
    expected = {guest.name: guest.leader for guest in guests}
    userdb = booted.main_pid("mymachines-userdb.service")

    def seen() -> dict[str, int]:
        return {name: int(booted.run(["machinectl", "show", name, "--property=Leader", "--value"],
                                     check=False).stdout or 0) for name in expected}

    assert seen() == expected
    for command in ("daemon-reload", "daemon-reexec", "restart mymachinesd.service"):
        booted.run(f"systemctl {command}")
        assert seen() == expected, command
    old = booted.main_pid()
    booted.run("systemctl kill --signal=KILL --kill-whom=main mymachinesd.service")
    assert booted.out(["getent", "passwd", "vu-m3-5"]).startswith("vu-m3-5:")  # while nobody is there
    wait_for(lambda: booted.main_pid() not in (0, old) and serves(booted), TAKE_OVER_SECONDS)
    assert seen() == expected
    assert booted.main_pid("mymachines-userdb.service") == userdb, "logins had nobody to ask"


def test_reload_applies_all_or_fails(booted: BootedHost, shell: Shell) -> None:
    db, pid = shell("db"), booted.main_pid()
    folder = "/etc/mymachines"
    try:
        booted.run(f"mkdir -p {folder} && echo '[log]\nlevel = \"loud\"' >{folder}/mymachinesd.toml")
        done = booted.run(["systemctl", "reload", "mymachinesd.service"], check=False)
        assert done.returncode != 0
        assert f"{folder}/mymachinesd.toml:2: [log] level must be one of" in booted.out(
            ["journalctl", "-b", "-u", "mymachinesd.service", "--no-pager", "-n", "20"])
        booted.run(f"echo '[log]\nlevel = \"debug\"' >{folder}/mymachinesd.toml")
        booted.run(["systemctl", "reload", "mymachinesd.service"])
        wait_for(lambda: booted.out(["systemctl", "service-log-level", "mymachinesd.service"]) == "debug")
    finally:
        booted.run(["rm", "-r", folder])
        booted.run(["systemctl", "reload", "mymachinesd.service"])
    wait_for(lambda: booted.out(["systemctl", "service-log-level", "mymachinesd.service"]) == "info")
    assert booted.main_pid() == pid
    assert booted.out(["machinectl", "show", "db", "--property=Leader", "--value"]) == str(db.leader)


def test_a_daemon_that_hangs_is_replaced(booted: BootedHost, shell: Shell) -> None:
    """By the watchdog; its time is shortened for the test. Look-ups do not notice."""
    db = shell("db")
    drop_in = "/run/systemd/system/mymachinesd.service.d"
    booted.run(f"mkdir -p {drop_in} && printf '[Service]\\nWatchdogSec=2s\\nTimeoutAbortSec=1s\\n' >{drop_in}/x.conf"
               " && systemctl daemon-reload && systemctl restart mymachinesd.service")
    try:
        wait_for(lambda: serves(booted), TAKE_OVER_SECONDS)
        old = booted.main_pid()
        booted.run(["kill", "-STOP", str(old)])
        started = time.monotonic()
        assert booted.out(["getent", "passwd", "vu-db-5"]).startswith("vu-db-5:")
        assert booted.out(["userdbctl", "user", "vu-db-5"]) != ""
        assert time.monotonic() - started < 1
        wait_for(lambda: booted.main_pid() not in (0, old) and serves(booted), TAKE_OVER_SECONDS)
        assert booted.out(["machinectl", "show", "db", "--property=Leader", "--value"]) == str(db.leader)
    finally:
        booted.run(f"rm -r {drop_in} && systemctl daemon-reload && systemctl restart mymachinesd.service")
        wait_for(lambda: serves(booted), TAKE_OVER_SECONDS)


def test_a_table_that_nobody_keeps_is_taken_away(booted: BootedHost, shell: Shell) -> None:
    """A daemon that cannot start again is given up, and nothing answers for it any more."""
    shell("db")
    drop_in = "/run/systemd/system/mymachinesd.service.d"
    booted.run(f"mkdir -p {drop_in} && printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' >{drop_in}/broken.conf"
               " && systemctl daemon-reload")
    try:
        assert booted.out(["getent", "passwd", "vu-db-5"]).startswith("vu-db-5:")
        booted.run("systemctl kill --signal=KILL --kill-whom=main mymachinesd.service")
        wait_for(lambda: booted.run(["systemctl", "is-failed", "mymachinesd.service"], check=False).returncode == 0, 60)
        wait_for(lambda: booted.run(["getent", "passwd", "vu-db-5"], check=False).stdout == "", 10)
        wait_for(lambda: booted.run(["test", "-e", "/run/systemd/userdb/io.systemd.Machine"],
                                    check=False).returncode == 1, 10)
        assert booted.out(["systemctl", "--failed", "--no-legend", "--plain"]).split()[0] == "mymachinesd.service"
    finally:
        booted.run(f"rm -r {drop_in} && systemctl daemon-reload && systemctl reset-failed mymachinesd.service"
                   " && systemctl start mymachinesd.service")
        wait_for(lambda: serves(booted), TAKE_OVER_SECONDS)


def test_a_daemon_that_failed_gives_its_place_back(booted: BootedHost) -> None:
    drop_in = "/run/systemd/system/mymachinesd.service.d"
    booted.run(f"mkdir -p {drop_in} && printf '[Service]\nExecStart=\nExecStart=/bin/false\n' >{drop_in}/broken.conf"
               " && systemctl daemon-reload && systemctl restart mymachinesd.service || true")
    try:
        wait_for(lambda: booted.run(["systemctl", "is-failed", "mymachinesd.service"], check=False).returncode == 0, 60)
        booted.run(["systemctl", "disable", "--now", "mymachinesd.service"])
        # CollectMode=: systemd forgets it when it has nothing else to do, such as units that were to come after it.
        wait_for(lambda: booted.run(["systemctl", "is-failed", "mymachinesd.service"], check=False).returncode != 0, 20,
                 "that it is forgotten")
        booted.run(["machinectl", "list"])
        assert booted.main_pid("systemd-machined.service") != 0
    finally:
        booted.run(f"rm -r {drop_in} && systemctl daemon-reload")
        take_place(booted)


def test_uninstall_takes_away_what_install_put(booted: BootedHost) -> None:
    """And nothing else; then all is there again, without a network."""
    everything = "find / -xdev -path /usr/src -prune -o -path /var/log -prune -o -iname '*mymachine*' -print"
    debian = set(booted.out(["dpkg", "-L", "libnss-mymachines"]).splitlines())
    try:
        booted.run(["make", "--silent", "-C", f"/{SOURCES}", "uninstall"])
        # Debian's own file, and what dpkg and debconf know of it.
        assert [path for path in booted.out(everything).splitlines()
                if path not in debian and not path.startswith("/var/lib/dpkg/")] == []
        assert booted.run(["find", "/etc/systemd", "-xtype", "l"]).stdout == ""
        assert "No machines" in booted.out(["machinectl"])
        assert booted.main_pid("systemd-machined.service") != 0
        assert "/usr/local" not in booted.run("ldconfig -p | grep mymachines").stdout
    finally:
        booted.run(["make", "--silent", "-C", f"/{SOURCES}", "install"], timeout=120)
        take_place(booted)


def test_users_and_addresses_of_a_container_that_boots(booted: BootedHost, web: Guest) -> None:
    """From registration by systemd-nspawn to getent, with networkd at both ends of the link."""
    wait_for(lambda: "." in booted.run(["getent", "ahostsv4", "web"], check=False).stdout, 20)
    address = booted.out(["getent", "ahostsv4", "web"]).split()[0]
    assert address in booted.out(["machinectl", "status", "web", "--lines=0"])
    assert booted.out(["getent", "hosts", address]).split() == [address, "web"]
    uid = booted.out(["stat", "--format=%u", f"/proc/{web.leader}"])
    assert booted.out(["getent", "passwd", uid]).startswith(f"vu-web-0:!*:{uid}:")
