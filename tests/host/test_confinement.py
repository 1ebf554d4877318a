# SPDX-License-Identifier: MIT
"""What the units may: no more than systemd-machined's on the same host, each line of it explained, nothing to spare."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pytest

from tests.lab import PROJECT, wait_for

from .booted import AGAINST_MACHINED, USER_ID, BootedHost
from .conftest import TAKE_OVER_SECONDS, serves
from .guests import MACHINES, Guest, start_shell

pytestmark = pytest.mark.skipif(AGAINST_MACHINED, reason="about mymachinesd's units")

PAGE = PROJECT / "docs/confinement.md"
OUR_UNITS = sorted(path.name for path in (PROJECT / "system").glob("mymachine*.service"))
MACHINED = "/usr/lib/systemd/system/systemd-machined.service"
COPY = "theirs.service"
CTL = "/usr/local/bin/mymachinesctl"
DNS_OPTIONS = "/etc/default/mymachines-dns"
DROP_IN = "/run/systemd/system/mymachinesd.service.d"


class Checked(NamedTuple):
    """What `systemd-analyze security` finds: how much is left to a unit, of 10, and which settings restrict it."""

    exposure: float
    settings: Mapping[str, bool]


def checked(host: BootedHost, unit: str) -> Checked:
    words = ["systemd-analyze", "security", "--no-pager"]
    exposure = re.findall(r"Overall exposure level for \S+: ([\d.]+)", host.out([*words, unit]))
    found = json.loads(host.out([*words, "--json=short", unit]))
    return Checked(float(exposure[0]), {check["name"]: check["set"] for check in found if check["set"] is not None})


@pytest.fixture(scope="module")
def theirs(booted: BootedHost) -> Iterator[Checked]:
    """systemd-machined's unit, under another name: its own is an alias of ours. A second one cannot have a BusName."""
    booted.run(f"grep -v BusName= {MACHINED} >/run/systemd/system/{COPY}; systemctl daemon-reload")
    yield checked(booted, COPY)
    booted.run(f"rm /run/systemd/system/{COPY}; systemctl daemon-reload")


@pytest.mark.parametrize("unit", OUR_UNITS)
def test_no_unit_is_more_exposed_than_machined(booted: BootedHost, theirs: Checked, unit: str) -> None:
    ours = checked(booted, unit)
    assert ours.exposure <= theirs.exposure
    print(f"{unit}: {ours.exposure}, systemd-machined: {theirs.exposure}")


def explained() -> Mapping[str, bool]:
    """The page's table: each check of systemd-analyze, and whether mymachinesd's unit passes it."""
    rows = re.findall(r"(?m)^\| `([^`]+)` \| (yes|no) \| \S", PAGE.read_text())
    assert len(rows) == len(dict(rows))
    return {name.replace("\\|", "|"): passes == "yes" for name, passes in rows}


def test_each_line_of_the_daemons_unit_is_explained(booted: BootedHost) -> None:
    assert checked(booted, "mymachinesd.service").settings == explained()


# --- capabilities ---

FILES = f"""
rm -rf {MACHINES}/gift* /var/tmp/gift* && mkdir -p {MACHINES}/gift/usr {MACHINES}/gift/etc &&
echo ID=tiny >{MACHINES}/gift/etc/os-release && cd {MACHINES}/gift && mknod null c 1 3 && cp /bin/true able &&
setcap cap_net_raw=ep able && install -d -o {USER_ID} -m 700 /var/tmp/gift && echo x >/var/tmp/gift/file &&
chown {USER_ID} /var/tmp/gift/file && chmod 600 /var/tmp/gift/file
"""
IN_GUEST = """
mkdir -p /var/t && cd /var/t && touch user group && chown 33:34 user group && chmod 0600 user && chmod 2770 group
"""
CLEAN = f"chattr -i {MACHINES}/gift 2>/dev/null; rm -rf {MACHINES}/gift2 /var/tmp/gift-*"

RESTART = ("systemctl daemon-reload; systemctl reset-failed mymachinesd.service; "
           "systemctl restart mymachinesd.service")

OS_RELEASE = ("busctl call org.freedesktop.machine1 /org/freedesktop/machine1 org.freedesktop.machine1.Manager"
              " GetMachineOSRelease s db")
FROM = "machinectl copy-from db /var/t /var/tmp/gift-t"
NEEDS = {
    "CAP_KILL": "machinectl kill --kill-whom=leader --signal=CONT alices",
    "CAP_SYS_PTRACE": OS_RELEASE,
    "CAP_SYS_ADMIN": "machinectl bind --mkdir db /etc /run/given-$$",
    "CAP_SYS_CHROOT": "machinectl bind --mkdir plain /etc /run/given-$$",
    "CAP_SETUID": OS_RELEASE,
    "CAP_SETGID": OS_RELEASE,
    "CAP_DAC_OVERRIDE": "machinectl copy-to db /var/tmp/gift/file /run/file-$$",
    "CAP_CHOWN": f"{FROM} && test $(stat --format=%u:%g /var/tmp/gift-t/user) != 0:0",
    "CAP_FOWNER": f"{FROM} && test $(stat --format=%a /var/tmp/gift-t/user) = 600",
    "CAP_FSETID": f"{FROM} && test $(stat --format=%a /var/tmp/gift-t/group) = 2770",
    "CAP_MKNOD": f"machinectl clone gift gift2 && test -c {MACHINES}/gift2/null",
    "CAP_SETFCAP": f"machinectl clone gift gift2 && getcap {MACHINES}/gift2/able | grep -q net_raw",
    "CAP_LINUX_IMMUTABLE": f"machinectl read-only gift true && lsattr -d {MACHINES}/gift | grep -q i",
}
"""What cannot be done without one of them, as a script of root's. `db` has a user namespace, in which whoever enters it
has every capability; `plain` has the host's users; the leader of `alices` is a process of a user's of the host, as a
VM's is."""

SERVES = "machinectl --no-legend list"
"""What needs none of them."""


@pytest.fixture
def machines(booted: BootedHost) -> Iterator[None]:
    booted.run(FILES)
    guests = [Guest(booted, "db"), Guest(booted, "plain")]
    try:
        start_shell(booted, "db")
        start_shell(booted, "plain", "--private-users=no")
        booted.run(guests[0].entered(IN_GUEST))
        booted.run(["systemd-run", "--quiet", "--unit=alices", f"--uid={USER_ID}", "sleep", "infinity"])
        booted.run([CTL, "register", "alices", "--class", "vm", "--leader", str(booted.main_pid("alices.service"))])
        yield
    finally:
        for guest in guests:
            guest.remove()
        booted.run(f"systemctl stop alices; {CLEAN}; rm -rf {MACHINES}/gift /var/tmp/gift {DROP_IN}; {RESTART}")
        wait_for(lambda: serves(booted), TAKE_OVER_SECONDS)


def bounding_set(unit: str) -> set[str]:
    found = re.findall(r"(?m)^CapabilityBoundingSet=(.*)$", (PROJECT / "system" / unit).read_text())
    assert len(found) == 1
    return set(found[0].split())


def starts_without(host: BootedHost, capability: str) -> bool:
    """Whether mymachinesd starts anew without this one; with all of its unit where there is none to leave out."""
    setting = f"CapabilityBoundingSet=~{capability}" if capability else ""
    host.run(f"mkdir -p {DROP_IN}; printf '[Service]\\nRestart=no\\n{setting}\\n' >{DROP_IN}/less.conf")
    return host.run(RESTART, check=False).returncode == 0


def failure(host: BootedHost, capability: str) -> str:
    """What comes of what needs it; empty where it is done."""
    done = host.run(["timeout", "10", "sh", "-c", NEEDS[capability]], check=False)
    host.run(CLEAN, check=False)
    return f"{done.returncode}: {done.stderr}" if done.returncode else ""


@pytest.mark.usefixtures("machines")
def test_each_capability_is_needed(booted: BootedHost) -> None:
    assert bounding_set("mymachinesd.service") == set(NEEDS)
    assert starts_without(booted, "")
    assert {name: failure(booted, name) for name in NEEDS} == dict.fromkeys(NEEDS, "")
    spare = []
    # A daemon that may not look at processes does not start where there are machines, and the table goes: last.
    for name in sorted(NEEDS, key=lambda name: name == "CAP_SYS_PTRACE"):
        if starts_without(booted, name):
            assert all(f"{machine} " in booted.out(SERVES) for machine in ("db", "plain", "alices")), name
            spare += [] if failure(booted, name) else [name]
        else:
            assert name == "CAP_SYS_PTRACE"
    assert spare == []


OTHERS_NEED = {"mymachines-dns.service": {"CAP_NET_BIND_SERVICE"}, "mymachines-take-over.service": {"CAP_SYS_PTRACE"}}


def test_other_units_have_none_or_one(booted: BootedHost) -> None:
    others = [unit for unit in OUR_UNITS if unit != "mymachinesd.service"]
    assert {unit: bounding_set(unit) for unit in others} == {unit: OTHERS_NEED.get(unit, set()) for unit in others}
    status = booted.out(["cat", f"/proc/{booted.main_pid('mymachines-userdb.service')}/status"])
    assert dict(re.findall(r"(?m)^Cap(Prm|Eff|Bnd):\t(0+)$", status)).keys() == {"Prm", "Eff", "Bnd"}


def test_dns_needs_its_capability_to_bind_its_port(booted: BootedHost) -> None:
    """And no other: the same with it is in test_dns.py."""
    folder = "/run/systemd/system/mymachines-dns.service.d"
    less = "[Service]\\nRestart=no\\nAmbientCapabilities=\\nCapabilityBoundingSet=\\n"
    booted.run(f"mkdir -p /etc/default {folder}; echo 'OPTIONS=\"--listen 127.0.0.153 --zone lab\"' >{DNS_OPTIONS}; "
               f"printf '{less}' >{folder}/less.conf; systemctl daemon-reload")
    try:
        assert booted.run("systemctl start mymachines-dns.service", check=False).returncode != 0
        assert "Permission denied" in booted.out("journalctl --no-pager --unit mymachines-dns.service --lines 20")
    finally:
        booted.run(f"rm -r {folder} {DNS_OPTIONS}; systemctl daemon-reload; "
                   "systemctl reset-failed mymachines-dns.service")


def test_taking_over_needs_its_capability_to_see_what_runs(booted: BootedHost) -> None:
    reads = f"readlink /proc/{booted.main_pid()}/exe"
    with_it, without_it = (
        booted.run(f"systemd-run --quiet --wait --pipe --property=CapabilityBoundingSet={capability} {reads}",
                   check=False).stdout for capability in ("CAP_SYS_PTRACE", ""))
    assert "python" in with_it
    assert without_it == ""
