# SPDX-License-Identifier: MIT
"""Debian's packages, installed, upgraded, removed and purged on a booted host while machines run.

Each test begins where the one before it ended: a host's life.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab import wait_for

from .booted import AGAINST_MACHINED
from .conftest import TAKE_OVER_SECONDS, serves
from .guests import MACHINES, Guest, start_shell
from .packaged import MADE, NSSWITCH_WITH_OURS, NSSWITCH_WITHOUT, PackagedHost

pytestmark = pytest.mark.skipif(AGAINST_MACHINED, reason="about mymachinesd's packages")

NEXT_VERSION = "0.1.0+later"
OURS = ("mymachines", "libnss-mymachines-table")
LOCALLY = "mymachines [NOTFOUND=return] dns"
"""What an administrator makes of our word in hosts."""

# What grows on any host, and what dpkg, apt and their like remember.
NOT_OURS = ("/var/log", "/var/cache", "/var/lib/dpkg", "/var/lib/apt", "/var/lib/systemd/random-seed",
            "/var/lib/systemd/timers", "/var/tmp", "/tmp", "/usr/src", "/var/lib/machines", "/root")


@pytest.fixture(scope="module")
def host() -> Iterator[PackagedHost]:
    with PackagedHost() as host:
        yield host


@pytest.fixture(scope="module")
def db(host: PackagedHost) -> Iterator[Guest]:
    """A container that systemd-machined knows before there is anything of ours."""
    guest = start_shell(host, "db")
    yield guest
    guest.remove()


@pytest.fixture(scope="module")
def before(host: PackagedHost, db: Guest) -> set[str]:
    """The host's files before the first installation, but for Debian's module, which ours replaces."""
    host.run(["userdbctl", "user", "root"])
    theirs = set(host.out(["dpkg", "-L", "libnss-mymachines"]).splitlines())
    return files(host) - {path for path in theirs if not host.path(path).is_dir()}


def files(host: PackagedHost) -> set[str]:
    pruned = " -o ".join(f"-path {path}" for path in NOT_OURS)
    return set(host.out(f"find / -xdev \\( {pruned} \\) -prune -o ! -type d -print").splitlines())


def nsswitch(host: PackagedHost) -> str:
    return host.path("/etc/nsswitch.conf").read_text()


def leaders(host: PackagedHost) -> dict[str, int]:
    """Of all machines, as machinectl lists them."""
    names = [line.split()[0] for line in host.out(["machinectl", "list", "--no-legend"]).splitlines()]
    return {name: int(host.out(["machinectl", "show", name, "--property=Leader", "--value"])) for name in names}


def wait_serves(host: PackagedHost) -> None:
    wait_for(lambda: serves(host), TAKE_OVER_SECONDS, "mymachinesd to serve the bus and userdb")


@contextmanager
def asked_all_the_time(host: PackagedHost) -> Iterator[None]:
    """Names and users are looked up without a pause; AssertionError where one was not found."""
    stop = "/run/asked-enough"
    host.run(["rm", "-f", stop])
    asking = host.popen(f"""while ! test -e {stop}; do
            getent passwd vu-db-5 >/dev/null || echo no user
            getent group vg-db-5 >/dev/null || echo no group
            n=$((n + 1)); sleep 0.02
        done; echo $n""")
    try:
        yield
    finally:
        host.run(["touch", stop])
        told, _ = asking.communicate(timeout=TAKE_OVER_SECONDS)
        host.run(["rm", stop])
    *failures, number = told.decode().split("\n")[:-1]
    assert failures == []
    assert int(number) > 5


def test_packages_are_made_of_what_this_debian_has(host: PackagedHost, before: set[str]) -> None:
    """lintian was content, else `make deb` had failed; and Debian's own Python packages are used where they serve."""
    depends = host.out(["dpkg-deb", "--field", host.packages("*")[0], "Depends"])
    bundled = host.out(f"dpkg-deb --contents {host.packages('*')[0]} | grep -o 'site-packages/[^/]*/METADATA'")
    for name in ("dnspython", "varlink"):
        in_debian = host.run(["dpkg", "--status", f"python3-{name}"], check=False).returncode == 0
        assert (f"python3-{name} " in depends) == in_debian
        assert (f"/{name}-" in bundled) == (not in_debian)
    assert "/dbus_fast-" in bundled
    assert "python3-cffi-backend" in depends


def test_installed_they_take_machineds_place(host: PackagedHost, db: Guest, before: set[str]) -> None:
    assert leaders(host) == {"db": db.leader}
    assert host.main_pid("systemd-machined.service") != 0
    host.apt("install", *host.packages("*"))
    wait_serves(host)
    assert leaders(host) == {"db": db.leader}
    assert host.out(["dpkg-query", "--show", "--showformat=${db:Status-Status}\n", "systemd-container"]) == "installed"
    assert nsswitch(host) == NSSWITCH_WITH_OURS
    assert host.out(["getent", "passwd", "vu-db-5"]).startswith("vu-db-5:")
    assert host.out(["getent", "group", "vg-db-5"]).startswith("vg-db-5:")
    assert host.run(["getent", "ahosts", "db"], check=False).returncode in (0, 2)
    loaded = host.run("LD_DEBUG=files getent passwd vu-no-1", check=False).stderr
    assert "-linux-gnu/libnss_mymachines.so.2" in loaded
    names = host.out(["systemctl", "show", "--property=Names", "--value", "mymachinesd.service"]).split()
    assert set(names) == {"mymachinesd.service", "systemd-machined.service", "dbus-org.freedesktop.machine1.service"}
    assert host.out(["systemctl", "is-enabled", "mymachinesd.service"]) == "enabled"
    assert host.run(["systemctl", "is-enabled", "mymachines-dns.service"], check=False).stdout == "disabled\n"
    assert host.out(["systemctl", "--failed", "--no-legend"]) == ""
    changed = host.run(["dpkg", "--verify", *OURS, "systemd-container", "polkitd"], check=False).stdout
    assert [line for line in changed.splitlines() if "/usr/share/" not in line] == []


def test_all_parts_run(host: PackagedHost, db: Guest) -> None:
    """Each command, and each kind of process that the daemon starts, find their modules."""
    for command in ("mymachinesd", "mymachinesctl", "mymachines-userdb", "mymachines-dns", "mymachines-resolve-hook",
                    "mymachines-dns-publish", "mymachines-metrics"):
        assert host.out([command, "--version"]) == f"{command} 0.1.0"
    host.run(["machinectl", "copy-to", "db", "/etc/hostname", "/var/copied"])
    assert host.path(f"{MACHINES}/db/var/copied").read_text() == host.path("/etc/hostname").read_text()
    system = host.out(["grep", "-oP", '^PRETTY_NAME="\\K[^"]*', "/etc/os-release"])
    assert system in host.out(["machinectl", "status", "db", "--lines=0"])
    host.run(["mkdir", "-p", f"{MACHINES}/small/usr"])
    host.run(["machinectl", "rename", "small", "smaller"])
    host.run(["machinectl", "remove", "smaller"])
    assert not host.path(f"{MACHINES}/smaller").exists()
    assert host.out(["userdbctl", "user", "vu-db-5", "--output=classic"]).startswith("vu-db-5:")
    modules = host.out(["find", "/usr/lib/mymachines", "-name", "*.pyc"]).splitlines()
    assert any("resolver/__pycache__/daemon" in path for path in modules)


def test_upgraded_they_lose_nothing(host: PackagedHost, db: Guest) -> None:
    """Look-ups go on, machines stay, and what the administrator has changed does too."""
    host.build_again(NEXT_VERSION)
    changed = NSSWITCH_WITH_OURS.replace("mymachines dns", LOCALLY)
    host.path("/etc/nsswitch.conf").write_text(changed)
    old, table = host.main_pid(), host.out(["stat", "--format=%i", "/run/mymachines/table-2"])
    old_userdb = host.main_pid("mymachines-userdb.service")
    with asked_all_the_time(host):
        host.apt("install", *host.packages(NEXT_VERSION))
    wait_serves(host)
    assert host.out(["dpkg-query", "--show", "--showformat=${Version}", "mymachines"]) == NEXT_VERSION
    assert host.main_pid() not in (0, old)
    assert host.main_pid("mymachines-userdb.service") not in (0, old_userdb)
    assert host.out(["stat", "--format=%i", "/run/mymachines/table-2"]) == table
    assert leaders(host) == {"db": db.leader}
    assert nsswitch(host) == changed


def test_a_disabled_daemon_stays_so(host: PackagedHost, db: Guest) -> None:
    """Over another version, and over removal and installation. Then it can have its place again, though a unit that is
    enabled had systemd know mymachinesd beside systemd-machined."""
    host.run(["systemctl", "disable", "--now", "mymachinesd.service"])
    host.run(["systemctl", "enable", "mymachines-dns.service"])
    host.apt("install", "--reinstall", *host.packages(NEXT_VERSION))
    assert leaders(host) == {"db": db.leader}
    assert host.main_pid("systemd-machined.service") != 0
    assert host.run(["systemctl", "is-enabled", "mymachinesd.service"], check=False).stdout == "disabled\n"
    assert host.out(["systemctl", "is-enabled", "mymachines-dns.service"]) == "enabled"
    host.apt("remove", "mymachines")
    host.apt("install", *host.packages(NEXT_VERSION))
    assert host.run(["systemctl", "is-enabled", "mymachinesd.service"], check=False).stdout == "disabled\n"
    assert host.run(["pgrep", "-x", "mymachinesd"], check=False).stdout == ""
    assert leaders(host) == {"db": db.leader}
    host.run(["systemctl", "enable", "--now", "mymachinesd.service"])
    wait_serves(host)
    host.run(["systemctl", "disable", "mymachines-dns.service"])


def test_removed_they_give_the_place_back(host: PackagedHost, db: Guest) -> None:
    """With the machines, at once; installed again, they have it again."""
    host.apt("remove", *OURS)
    assert host.run(["pgrep", "-f", "/usr/lib/mymachines"], check=False).stdout == ""
    assert leaders(host) == {"db": db.leader}
    assert host.main_pid("systemd-machined.service") != 0
    assert host.out("find /etc/systemd -name '*machined*' -o -name '*machinesd*' -o -name '*machine1*'") == ""
    assert nsswitch(host) == NSSWITCH_WITHOUT
    assert host.out(["systemctl", "--failed", "--no-legend"]) == ""
    assert host.run(["ls", "/run/mymachines"], check=False).returncode != 0
    redis = start_shell(host, "redis")
    try:
        host.apt("install", *host.packages(NEXT_VERSION))
        wait_serves(host)
        assert leaders(host) == {"db": db.leader, "redis": redis.leader}
        assert host.out(["getent", "passwd", "vu-redis-5"]).startswith("vu-redis-5:")
        assert nsswitch(host) == NSSWITCH_WITH_OURS
    finally:
        redis.remove()


def test_purged_they_leave_nothing(host: PackagedHost, db: Guest, before: set[str]) -> None:
    host.run("mkdir -p /etc/mymachines && echo OPTIONS= >/etc/mymachines/dns-publish.conf")
    host.run("echo 'OPTIONS=--listen 127.0.0.1' >/etc/default/mymachines-dns")
    host.run(["systemctl", "enable", "mymachines-dns.service"])
    host.path("/etc/nsswitch.conf").write_text(NSSWITCH_WITH_OURS.replace("mymachines dns", LOCALLY))
    host.apt("purge", *OURS)
    assert files(host) ^ before == set()
    assert host.run("find / -xdev -iname '*mymachines*' -type d | grep -v '^/var/lib/dpkg\\|/usr/src'",
                    check=False).stdout == ""
    assert nsswitch(host) == NSSWITCH_WITHOUT
    assert host.run("ls -d /run/*/mymachines /run/mymachines", check=False).stdout == ""
    assert leaders(host) == {"db": db.leader}
    assert host.main_pid("systemd-machined.service") != 0


def test_debians_module_replaces_ours_and_is_replaced(host: PackagedHost, db: Guest) -> None:
    """Nothing of either is lost by which comes first: they share a file, and a word in nsswitch.conf."""
    host.apt("install", next(path for path in host.packages(NEXT_VERSION) if "libnss" in path))
    assert nsswitch(host) == NSSWITCH_WITH_OURS
    host.run(f"""set -e; cd {MADE}; mkdir -p fake/DEBIAN
        printf 'Package: libnss-mymachines\\nVersion: 999\\nArchitecture: all\\nMaintainer: nobody <root@localhost>\\n\
Description: stands in for Debian\\n its own, which cannot be fetched here\\n' >fake/DEBIAN/control
        dpkg-deb --build fake fake.deb""")
    host.apt("install", f"{MADE}/fake.deb")
    assert host.run(["dpkg", "--status", "libnss-mymachines-table"], check=False).returncode != 0
    assert nsswitch(host) == NSSWITCH_WITHOUT
