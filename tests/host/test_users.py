# SPDX-License-Identifier: MIT
"""What a user may who is not root, and what polkit's rules make of it."""

import json
from collections.abc import Iterator

import pytest

from tests.lab import wait_for

from .booted import AGAINST_MACHINED, USER, USER_ID, BootedHost
from .conftest import Shell

SOCKET = "/run/systemd/machine/io.systemd.Machine"
RULES = "/etc/polkit-1/rules.d/10-test.rules"
RULE_SECONDS = 20.0     # polkitd notices a file by inotify


@pytest.fixture
def rule(booted: BootedHost) -> Iterator[str]:
    """Lets alice manage and register the machines that are called db or mine, and no other."""
    yield """polkit.addRule(function(action, subject) {
        if (action.id.indexOf("org.freedesktop.machine1.") == 0 && subject.user == "%s" &&
            ["db", "mine"].indexOf(action.lookup("name")) >= 0 && action.lookup("class") == "container")
            return polkit.Result.YES;
    });""" % USER  # noqa: UP031 - JavaScript is full of braces
    booted.run(["rm", "-f", RULES])


def as_user(host: BootedHost, *argv: str) -> tuple[int, str]:
    done = host.unit_run(list(argv), uid=USER_ID, check=False)
    return done.returncode, done.stdout + done.stderr


def register(host: BootedHost, **fields: object) -> tuple[int, str]:
    """By alice, from a program whose end ends the machine; with what the host then sees."""
    script = f"varlinkctl call {SOCKET} io.systemd.Machine.Register '{json.dumps(fields)}'"
    return as_user(host, "sh", "-c", script)


def test_reading_is_for_all(booted: BootedHost, shell: Shell) -> None:
    db = shell("db")
    for argv in (["machinectl", "list"], ["machinectl", "status", "db", "--lines=0"], ["machinectl", "show", "db"],
                 ["busctl", "introspect", "org.freedesktop.machine1", "/org/freedesktop/machine1/machine/db"]):
        code, text = as_user(booted, *argv)
        assert (code, "db" in text) == (0, True), text
    code, text = as_user(booted, "varlinkctl", "--json=short", "call", SOCKET, "io.systemd.Machine.List",
                         '{"name":"db"}')
    assert json.loads(text)["leader"]["pid"] == db.leader
    uid = booted.out(["stat", "--format=%u", f"/proc/{db.leader}"])
    for method, arguments, expected in (("GetMachineUIDShift", ["s", "db"], f"u {uid}"),
                                        ("MapFromMachineUser", ["su", "db", "7"], f"u {int(uid) + 7}")):
        assert as_user(booted, "busctl", "call", "org.freedesktop.machine1", "/org/freedesktop/machine1",
                       "org.freedesktop.machine1.Manager", method, *arguments) == (0, f"{expected}\n")


def test_changing_is_not(booted: BootedHost, shell: Shell) -> None:
    db = shell("db")
    for verb in (["kill", "--signal=USR1", "db"], ["terminate", "db"], ["poweroff", "db"], ["reboot", "db"]):
        code, text = as_user(booted, "machinectl", "--no-ask-password", *verb)
        assert code != 0, verb
        assert "denied" in text or "authentication" in text, text
    for fields in ({"name": "mine", "class": "container"}, {"name": "mine", "class": "host"},
                   {"name": "mine", "class": "container", "leader": db.leader}):
        code, text = register(booted, **fields)
        assert code != 0, text
    assert set(db.told()) == {"child"}
    assert "mine" not in booted.out(["ls", "/run/systemd/machines"]).split()


@pytest.mark.skipif(AGAINST_MACHINED, reason="257 tells rules no class")
def test_what_rules_allow_is_done(booted: BootedHost, shell: Shell, rule: str) -> None:
    db, redis = shell("db"), shell("redis")
    booted.run(["tee", RULES], stdin=rule)
    wait_for(lambda: as_user(booted, "machinectl", "--no-ask-password", "kill", "--signal=USR1", "--kill-whom=leader",
                             "db")[0] == 0, RULE_SECONDS)
    db.wait_told("USR1")
    assert as_user(booted, "machinectl", "--no-ask-password", "kill", "--signal=USR1", "redis")[0] != 0
    assert set(redis.told()) == {"child"}
    code, text = register(booted, name="mine", **{"class": "container"})
    assert code == 0, text
    for fields in ({"name": "other", "class": "container"}, {"name": "mine", "class": "host"},
                   {"name": "mine", "class": "vm"}, {"name": "mine", "class": "container", "leader": redis.leader},
                   {"name": "mine.example.com", "class": "container"}):
        code, text = register(booted, **fields)
        assert code != 0, fields


@pytest.mark.skipif(AGAINST_MACHINED, reason="Debian 13 does not know this action")
def test_polkit_knows_the_action(booted: BootedHost) -> None:
    assert "org.freedesktop.machine1.register-machine" in booted.out(["pkaction"]).split()
