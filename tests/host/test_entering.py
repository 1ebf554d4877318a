# SPDX-License-Identifier: MIT
"""Terminals and root directories as programs get them: descriptors, over D-Bus and Varlink."""

import json
import os
import stat

import pytest

from tests.lab import wait_for

from .asking import SOCKET, Answer, dbus, varlink
from .booted import AGAINST_MACHINED, USER, BootedHost
from .conftest import Shell
from .guests import Guest
from .sessions import pseudo_terminals, wait_until_quiet

INVALID = "org.varlink.service.InvalidParameter"
NO_SUCH = "io.systemd.Machine.NoSuchMachine"
DBUS_NO_SUCH = "org.freedesktop.machine1.NoSuchMachine"

END_SECONDS = 20.0
UNIX98_PTY = 136    # <linux/major.h>: UNIX98_PTY_SLAVE_MAJOR


def is_terminal_of(host: BootedHost, leader: int, path: str, found: dict[str, object]) -> None:
    """The controlling end of a pseudo terminal (pts(4)), of the instance of devpts that the leader sees."""
    assert stat.S_ISCHR(int(str(found["mode"])))
    assert found["access"] == os.O_RDWR
    assert path == f"/dev/pts/{found['number']}"
    seen = host.out(["stat", "--format=%d", f"/proc/{leader}/root/dev/pts"])
    assert seen == str(found["peer device"])
    assert found["peer"] == os.makedev(UNIX98_PTY, int(str(found["number"])))


def asks_who(user: str) -> list[list[str]]:
    """A dialogue with a shell: once it has shown its prompt, it says whose it is."""
    return [[r"[#$] $", "id -un\n"], [rf"[\r\n]{user}\r\n", "exit\n"]]


@pytest.mark.parametrize("wrong", [{}, {"mode": None}, {"mode": ""}, {"mode": "strange"}, {"mode": 1}])
def test_open_needs_a_mode(booted: BootedHost, web: Guest, wrong: dict[str, object]) -> None:
    before = pseudo_terminals(booted, web.leader)
    answer = varlink(booted, "Open", {"name": "web", **wrong})
    assert (answer.error, answer.reply) == (INVALID, {"parameter": "mode"})
    assert answer.descriptors == []
    done = booted.run(["varlinkctl", "call", SOCKET, "io.systemd.Machine.Open", json.dumps({"name": "web", **wrong})],
                      check=False)
    assert done.returncode != 0
    assert "InvalidParameter" in done.stderr or "type" in done.stderr, done     # varlinkctl looks at types itself
    assert pseudo_terminals(booted, web.leader) == before


@pytest.mark.parametrize("mode", ["tty", "login", "shell"])
def test_open_passes_a_terminal(booted: BootedHost, web: Guest, mode: str) -> None:
    for parameters in ({"name": "web"}, {"pid": {"pid": web.leader}}):
        answer = varlink(booted, "Open", {**parameters, "mode": mode})
        assert answer.error == "", answer.text
        assert set(answer.reply) == {"ptyFileDescriptor", "ptyPath"}
        assert answer.reply["ptyFileDescriptor"] == 0       # the first that was passed
        [terminal] = answer.descriptors
        is_terminal_of(booted, web.leader, answer.reply["ptyPath"], terminal)
    shown = json.loads(booted.out(["varlinkctl", "--json=short", "call", SOCKET, "io.systemd.Machine.Open",
                                   json.dumps({"name": "web", "mode": mode})]))
    assert shown["ptyPath"].startswith("/dev/pts/")
    wait_until_quiet(web)


def test_a_shell_by_varlink(booted: BootedHost, web: Guest) -> None:
    answer = varlink(booted, "Open", {
        "name": "web", "mode": "shell", "user": "root", "path": "/bin/sh", "args": ["sh", "-c", "echo $0 $FOO; read x"],
        "environment": ["FOO=bar"]}, dialogue=[[r"sh bar\r\n", "\n"]])
    assert answer.error == "", answer.text
    plain = varlink(booted, "Open", {"name": "web", "mode": "shell"}, dialogue=asks_who("root"))
    assert plain.error == "", plain.text
    login = varlink(booted, "Open", {"name": "web", "mode": "login"}, dialogue=[["web login: ", ""]])
    assert login.error == "", login.text
    wait_until_quiet(web)


def test_open_of_the_host(booted: BootedHost) -> None:
    before = pseudo_terminals(booted)
    answer = varlink(booted, "Open", {"name": ".host", "mode": "tty"})
    assert answer.error == "", answer.text
    is_terminal_of(booted, 1, answer.reply["ptyPath"], answer.descriptors[0])
    assert varlink(booted, "Open", {"mode": "tty"}).error in (NO_SUCH, INVALID)     # no machine is not the host
    shell = varlink(booted, "Open", {"name": ".host", "mode": "shell", "user": USER}, dialogue=asks_who(USER))
    assert shell.error == "", shell.text
    wait_for(lambda: pseudo_terminals(booted) == before, END_SECONDS)


def test_open_of_what_is_not_there(booted: BootedHost, shell: Shell) -> None:
    db = shell("db")
    assert varlink(booted, "Open", {"name": "nosuch", "mode": "tty"}).error == NO_SUCH
    assert varlink(booted, "Open", {"name": "nosuch", "mode": "shell"}).error == NO_SUCH
    for mode in ("login", "shell"):     # nothing runs in it that could start one
        answer = varlink(booted, "Open", {"name": "db", "mode": mode})
        assert (answer.error, answer.descriptors) == ("io.systemd.Machine.NoIPC", [])
    assert pseudo_terminals(booted, db.leader) == 0
    tty = varlink(booted, "Open", {"name": "db", "mode": "tty"})
    is_terminal_of(booted, db.leader, tty.reply["ptyPath"], tty.descriptors[0])


@pytest.mark.parametrize(("field", "value"), [
    ("user", ""), ("path", "relative"), ("environment", ["1a=b"]), ("environment", ["no"]), ("args", "a")])
def test_open_refuses_what_makes_no_sense(booted: BootedHost, web: Guest, field: str, value: object) -> None:
    answer = varlink(booted, "Open", {"name": "web", "mode": "shell", field: value})
    assert (answer.error, answer.reply) == (INVALID, {"parameter": field})
    assert pseudo_terminals(booted, web.leader) == 0


def test_terminals_by_dbus(booted: BootedHost, shell: Shell, web: Guest) -> None:
    db = shell("db")
    for name, leader in (("web", web.leader), ("db", db.leader), (".host", 1)):
        answer = dbus(booted, "OpenMachinePTY", "s", name)
        assert answer.error == "", answer.text
        is_terminal_of(booted, leader, answer.reply[1], answer.descriptors[0])
    login = dbus(booted, "OpenMachineLogin", "s", "web", dialogue=[["web login: ", ""]])
    assert login.error == "", login.text
    for arguments in ((["", "", [], []]), (["root", "", [], []]), (["root", "/bin/bash", ["-bash"], []])):
        answer = dbus(booted, "OpenMachineShell", "sssasas", "web", *arguments, dialogue=asks_who("root"))
        assert answer.error == "", answer.text
    for method, signature in (("OpenMachinePTY", "s"), ("OpenMachineLogin", "s"), ("OpenMachineRootDirectory", "s")):
        assert dbus(booted, method, signature, "nosuch").error == DBUS_NO_SUCH
    assert dbus(booted, "OpenMachineLogin", "s", "db").error == "org.freedesktop.DBus.Error.NotSupported"
    assert dbus(booted, "OpenMachineShell", "sssasas", "web", "", "relative", [], []).error \
        == "org.freedesktop.DBus.Error.InvalidArgs"
    wait_until_quiet(web)


def is_root_of(host: BootedHost, leader: int, answer: Answer, marker: str) -> None:
    assert answer.error == "", answer.text
    [root] = answer.descriptors
    assert host.out(["stat", "--format=%d %i", f"/proc/{leader}/root/"]) == f"{root['device']} {root['inode']}"
    assert marker in root["names"]


def test_root_directories(booted: BootedHost, shell: Shell) -> None:
    db = shell("db")
    booted.path("/var/lib/machines/db/only-here").touch()
    is_root_of(booted, db.leader, dbus(booted, "OpenMachineRootDirectory", "s", "db"), "only-here")
    is_root_of(booted, 1, dbus(booted, "OpenMachineRootDirectory", "s", ".host"), "boot")


@pytest.mark.skipif(AGAINST_MACHINED, reason="systemd 258 has it first")
def test_root_directories_by_varlink(booted: BootedHost, shell: Shell) -> None:
    db = shell("db")
    booted.path("/var/lib/machines/db/only-here").touch()
    for parameters, leader, marker in (({"name": "db"}, db.leader, "only-here"), ({"name": ".host"}, 1, "boot"),
                                       ({"pid": {"pid": db.leader}}, db.leader, "only-here")):
        answer = varlink(booted, "OpenRootDirectory", parameters)
        is_root_of(booted, leader, answer, marker)
        assert answer.reply == {"fileDescriptor": 0}
    assert varlink(booted, "OpenRootDirectory", {"name": "nosuch"}).error == NO_SUCH
