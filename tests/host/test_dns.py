# SPDX-License-Identifier: MIT
"""The DNS server and resolved's hook as units: enabled, killed, stopped.

Debian 13's systemd-resolved (257) knows no hooks: a file that names them stands for one that does, so that the unit's
condition holds; what asks is written against the interface's text, as tests/dns has it.
"""

import json
import os
from collections.abc import Iterator

import pytest

from tests.lab import wait_for

from .booted import AGAINST_MACHINED, BootedHost
from .conftest import TAKE_OVER_SECONDS, Shell, serves

pytestmark = pytest.mark.skipif(AGAINST_MACHINED, reason="about mymachinesd's units")

PYTHON = "/usr/local/lib/mymachines/bin/python3"
OPTIONS = "/etc/default/mymachines-dns"
RESOLVED = "/usr/lib/systemd/systemd-resolved"
HOOK_UNIT = "mymachines-resolve-hook.service"
HOOK = "/run/systemd/resolve.hook/io.systemd.Machine"

ASK = """
import dns.message, dns.query, sys
answer = dns.query.udp(dns.message.make_query(sys.argv[1], sys.argv[2]), "127.0.0.153", timeout=10)
print(answer.rcode().name, *(data for rrset in answer.answer for data in rrset))
"""


@pytest.fixture
def server(booted: BootedHost) -> Iterator[BootedHost]:
    booted.run(f"mkdir -p /etc/default; echo 'OPTIONS=\"--listen 127.0.0.153 --zone lab\"' >{OPTIONS}")
    booted.run(["systemctl", "enable", "--now", "--quiet", "mymachines-dns.service"])
    yield booted
    booted.run(["systemctl", "disable", "--now", "--quiet", "mymachines-dns.service"])
    booted.run(["rm", OPTIONS])


def ask(host: BootedHost, name: str, rdtype: str = "SOA") -> str:
    return host.out([PYTHON, "-c", ASK, name, rdtype])


def test_the_server(server: BootedHost, shell: Shell) -> None:
    shell("db")
    assert ask(server, "nobody.lab", "A") == "NXDOMAIN"
    assert ask(server, "db.lab", "A").startswith("NOERROR")
    status = server.out(["cat", f"/proc/{server.main_pid('mymachines-dns.service')}/status"])
    uid = next(line.split()[1] for line in status.splitlines() if line.startswith("Uid:"))
    assert int(uid) >= 61184     # a dynamic user's, systemd.exec(5)


def test_the_server_comes_back_and_outlives_the_daemon(server: BootedHost) -> None:
    pid = server.main_pid("mymachines-dns.service")
    server.run(["kill", "-9", str(pid)])
    wait_for(lambda: server.main_pid("mymachines-dns.service") not in (0, pid), what="another server")
    wait_for(lambda: server.out(["systemctl", "is-active", "mymachines-dns.service"], check=False) == "active")
    server.run(["systemctl", "stop", "mymachinesd.service"])
    try:
        wait_for(lambda: ask(server, "db.lab", "A") == "SERVFAIL", what="the table to go")
    finally:
        server.run(["systemctl", "start", "mymachinesd.service"])
        wait_for(lambda: serves(server), TAKE_OVER_SECONDS)
    wait_for(lambda: ask(server, "nobody.lab", "A") == "NXDOMAIN", what="the table to be back")


def test_without_options_it_says_what_is_missing_and_is_not_tried_again(booted: BootedHost) -> None:
    assert booted.run(["systemctl", "start", "mymachines-dns.service"], check=False).returncode != 0
    assert "nowhere to listen" in booted.out(["journalctl", "-b", "-u", "mymachines-dns.service"])
    assert booted.out(["systemctl", "show", "--property=NRestarts", "--value", "mymachines-dns.service"]) == "0"
    booted.run(["systemctl", "reset-failed", "mymachines-dns.service"])


def test_no_hook_where_resolved_knows_none(booted: BootedHost) -> None:
    assert booted.out(["systemctl", "is-active", HOOK_UNIT], check=False) == "inactive"
    assert booted.run(["test", "-e", HOOK], check=False).returncode == 1


@pytest.fixture
def hook(booted: BootedHost) -> Iterator[BootedHost]:
    booted.run(["mv", RESOLVED, f"{RESOLVED}.real"])
    booted.run(f"echo {HOOK} >{RESOLVED}")
    booted.run(["systemctl", "restart", "mymachinesd.service"])
    wait_for(lambda: booted.main_pid(HOOK_UNIT) != 0 and listens(booted), what="the hook")
    yield booted
    booted.run(["mv", f"{RESOLVED}.real", RESOLVED])
    booted.run(["systemctl", "stop", HOOK_UNIT])
    booted.run(["rmdir", os.path.dirname(HOOK)])    # which says that there is a resolved that asks
    wait_for(lambda: serves(booted), TAKE_OVER_SECONDS)


def listens(host: BootedHost) -> bool:
    return host.run(["test", "-S", HOOK], check=False).returncode == 0


def test_the_hook(hook: BootedHost, shell: Shell) -> None:
    shell("db")
    reply = hook.out(["varlinkctl", "call", "--json=short", HOOK, "io.systemd.Resolve.Hook.QueryFilter", "{}"])
    assert json.loads(reply) == {"filterDomains": ["db", "machines.internal"]}
    question = json.dumps({"question": [{"key": {"class": 1, "type": 1, "name": "www.db"}}]})
    assert json.loads(hook.out(["varlinkctl", "call", "--json=short", HOOK, "io.systemd.Resolve.Hook.ResolveRecord",
                                question])) == {}


def test_no_dead_socket_is_left(hook: BootedHost) -> None:
    """Not even of a process that was killed, nor when it cannot start again."""
    hook.run(["systemctl", "kill", "--signal=SIGSTOP", HOOK_UNIT])
    hook.run(["systemctl", "set-property", "--runtime", HOOK_UNIT, "TasksMax=0"], check=False)
    hook.run(["systemctl", "stop", HOOK_UNIT], timeout=60)
    assert not listens(hook)
    assert hook.out(["ls", "-A", "/run/systemd/resolve.hook"]) == ""
    hook.run(["systemctl", "revert", HOOK_UNIT], check=False)
    hook.run(["systemctl", "start", HOOK_UNIT])
    assert listens(hook)
    pid = hook.main_pid(HOOK_UNIT)
    hook.run(["kill", "-9", str(pid)])
    wait_for(lambda: hook.main_pid(HOOK_UNIT) not in (0, pid) and listens(hook), what="another process")


def test_the_hook_goes_with_the_daemon_and_not_with_its_restart(hook: BootedHost) -> None:
    pid = hook.main_pid(HOOK_UNIT)
    hook.run(["systemctl", "restart", "mymachinesd.service"])
    assert hook.main_pid(HOOK_UNIT) == pid
    hook.run(["systemctl", "stop", "mymachinesd.service"])
    try:
        wait_for(lambda: not listens(hook), what="the hook's socket to go")
    finally:
        hook.run(["systemctl", "start", "mymachinesd.service"])
    wait_for(lambda: listens(hook), what="the hook's socket to be back")
