# SPDX-License-Identifier: MIT
"""Who may enter: root; others as polkit says, which is told of machine, user and program."""

import json
from collections.abc import Iterator

import pytest

from tests.lab import wait_for

from .asking import dbus, varlink
from .booted import AGAINST_MACHINED, USER, USER_ID, BootedHost
from .conftest import Shell
from .guests import Guest
from .sessions import pseudo_terminals, shells, wait_until_quiet
from .terminal import Terminal

REFUSED = {"org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
           "org.varlink.service.PermissionDenied", "io.systemd.InteractiveAuthenticationRequired"}

RULES = "/etc/polkit-1/rules.d/10-test.rules"
RULE_SECONDS = 20.0     # for polkit to read a new rule; takes one

ANYTHING = f"""
polkit.addRule(function(action, subject) {{
    if (action.id.indexOf("org.freedesktop.machine1.") == 0 && subject.user == "{USER}")
        return polkit.Result.YES;
}});
"""

BOB, BOB_ID = "bob", 1235
ONE_SHELL = f"""
polkit.addRule(function(action, subject) {{
    if (action.id == "org.freedesktop.machine1.shell" && subject.user == "{USER}" &&
        action.lookup("machine") == "web" && action.lookup("user") == "{BOB}" &&
        action.lookup("program") != "/bin/false")
        return polkit.Result.YES;
}});
"""

PRIVATE = "/var/tmp/private"    # root's alone
IN_MACHINE = "/root/stolen"

OF_MACHINE: dict[str, tuple[str, list[object]]] = {
    "OpenMachinePTY": ("s", []), "OpenMachineLogin": ("s", []), "OpenMachineRootDirectory": ("s", []),
    "OpenMachineShell": ("sssasas", ["", "/bin/touch", ["touch", IN_MACHINE], []]),
    "BindMountMachine": ("sssbb", [PRIVATE, IN_MACHINE, False, True]),
    "CopyToMachine": ("sss", [PRIVATE, IN_MACHINE]), "CopyToMachineWithFlags": ("ssst", [PRIVATE, IN_MACHINE, 1]),
    "CopyFromMachine": ("sss", ["/etc/shadow", f"{PRIVATE}.out"]),
    "CopyFromMachineWithFlags": ("ssst", ["/etc/shadow", f"{PRIVATE}.out", 1]),
}
BY_VARLINK: list[tuple[str, dict[str, object]]] = [
    ("Open", {"mode": "tty"}), ("Open", {"mode": "login"}),
    ("Open", {"mode": "shell", "path": "/bin/touch", "args": ["touch", IN_MACHINE]}),
]
BY_VARLINK_258: list[tuple[str, dict[str, object]]] = [
    ("OpenRootDirectory", {}), ("BindMount", {"source": PRIVATE, "destination": IN_MACHINE, "mkdir": True}),
    ("CopyTo", {"source": PRIVATE, "destination": IN_MACHINE, "replace": True}),
    ("CopyFrom", {"source": "/etc/shadow", "destination": f"{PRIVATE}.out", "replace": True}),
]


@pytest.fixture
def private(booted: BootedHost) -> Iterator[str]:
    booted.run(["install", "--mode=0600", "/etc/hostname", PRIVATE])
    yield PRIVATE
    booted.run(["rm", "-rf", PRIVATE, f"{PRIVATE}.out"])


@pytest.fixture
def bob(booted: BootedHost, web: Guest) -> Iterator[str]:
    in_web = ["systemd-run", "--quiet", "--machine=web", "--pipe", "--wait", "--collect"]
    booted.run([*in_web, "useradd", "--create-home", f"--uid={BOB_ID}", "--shell=/bin/bash", BOB])
    yield BOB
    booted.run([*in_web, "sh", "-c", f"loginctl terminate-user {BOB}; userdel --force --remove {BOB} 2>&1"],
               check=False)


@pytest.fixture
def rules(booted: BootedHost) -> Iterator[None]:
    yield
    booted.run(["rm", "-f", RULES])
    restart_polkit(booted)


def set_rules(host: BootedHost, text: str) -> None:
    """polkit is started anew, which reads them all."""
    host.run(["sh", "-c", f"cat >{RULES}"], stdin=text)
    restart_polkit(host)


def restart_polkit(host: BootedHost) -> None:
    """As often as tests like: systemd would refuse the sixth time in ten seconds."""
    host.run(["systemctl", "reset-failed", "polkit.service"], check=False)
    host.run(["systemctl", "restart", "polkit.service"])


def marker(guest: Guest) -> bool:
    return guest.host.run(guest.entered(["test", "-e", IN_MACHINE]), check=False).returncode == 0


@pytest.mark.parametrize("name", ["web", ".host"])
def test_each_method_is_refused(booted: BootedHost, web: Guest, private: str, name: str) -> None:
    terminals = pseudo_terminals(booted), pseudo_terminals(booted, web.leader)
    units = shells(booted), shells(booted, "web")
    for method, (signature, arguments) in OF_MACHINE.items():
        if name == ".host" and ("Copy" in method or "Bind" in method):
            continue    # cannot be done there, whoever asks
        answer = dbus(booted, method, signature, name, *arguments, uid=USER_ID)
        assert answer.error in REFUSED, (method, answer)
        assert answer.descriptors == [], method
    for method, parameters in BY_VARLINK + ([] if AGAINST_MACHINED else BY_VARLINK_258):
        if name == ".host" and ("Copy" in method or "Bind" in method):
            continue
        answer = varlink(booted, method, {"name": name, **parameters}, uid=USER_ID)
        assert answer.error in REFUSED, (method, parameters, answer)
        assert answer.descriptors == [], method
    assert not marker(web)
    assert not booted.path(IN_MACHINE).exists()
    assert not booted.path(f"{PRIVATE}.out").exists()
    assert (pseudo_terminals(booted), pseudo_terminals(booted, web.leader)) == terminals
    assert (shells(booted), shells(booted, "web")) == units


def test_methods_of_the_machines_object_too(booted: BootedHost, web: Guest, private: str) -> None:
    machine = ["org.freedesktop.machine1", "/org/freedesktop/machine1/machine/web", "org.freedesktop.machine1.Machine"]
    for call in (["OpenPTY"], ["OpenLogin"], ["OpenShell", "ssasas", "", "", "0", "0"], ["OpenRootDirectory"],
                 ["BindMount", "ssbb", PRIVATE, IN_MACHINE, "false", "true"], ["CopyTo", "ss", PRIVATE, IN_MACHINE],
                 ["CopyToWithFlags", "sst", PRIVATE, IN_MACHINE, "1"], ["CopyFrom", "ss", "/etc/shadow", PRIVATE],
                 ["CopyFromWithFlags", "sst", "/etc/shadow", PRIVATE, "1"]):
        done = booted.run(["busctl", "call", *machine, *call], uid=USER_ID, check=False)
        assert done.returncode == 1, call
        assert "denied" in done.stderr or "uthentication" in done.stderr, done.stderr
    assert not marker(web)


def test_machinectl_says_so(booted: BootedHost, web: Guest) -> None:
    for arguments in (["shell", "web"], ["login", "web"], ["shell"], ["copy-to", "web", "/etc/hostname", "/root/x"],
                      ["bind", "web", "/etc", "/root/x"]):
        with Terminal(booted, ["machinectl", "--no-ask-password", *arguments], uid=USER_ID) as terminal:
            assert terminal.wait() == 1, arguments
            assert "uthentication" in terminal.text or "denied" in terminal.text, terminal.text


def test_polkit_decides_by_machine_user_and_program(booted: BootedHost, web: Guest, bob: str, rules: None) -> None:
    set_rules(booted, ONE_SHELL)

    def shell(user: str, *command: str) -> str:
        with Terminal(booted, ["machinectl", "--quiet", "--no-ask-password", "shell", f"{user}@web", *command],
                      uid=USER_ID) as terminal:
            terminal.wait()
            return terminal.text.strip()

    assert wait_for(lambda: shell(bob, "/usr/bin/id", "-un"), RULE_SECONDS) == bob
    for user, program in (("root", "/usr/bin/id"), (bob, "/bin/false")):
        assert "uthentication" in shell(user, program), (user, program)
    mine = {"name": "web", "mode": "shell", "user": bob, "path": "/usr/bin/id", "args": ["id", "-un"]}
    answer = varlink(booted, "Open", mine, uid=USER_ID, dialogue=[[rf"{bob}\r\n", ""]])
    assert answer.error == "", answer
    assert varlink(booted, "Open", {**mine, "user": "root"}, uid=USER_ID).error in REFUSED
    assert varlink(booted, "Open", {"name": "web", "mode": "tty"}, uid=USER_ID).error in REFUSED
    assert varlink(booted, "Open", {"name": "web", "mode": "login"}, uid=USER_ID).error in REFUSED
    assert dbus(booted, "OpenMachineShell", "sssasas", ".host", bob, "", [], [], uid=USER_ID).error in REFUSED
    assert varlink(booted, "Open", mine, uid=USER_ID + 1).error in REFUSED
    wait_until_quiet(web)


@pytest.mark.skipif(AGAINST_MACHINED, reason="it does as polkit says")
def test_no_shell_where_root_is_the_hosts(booted: BootedHost, shell: Shell, rules: None) -> None:
    """In a machine with the host's users, root could do to the host what root can. Whatever polkit says."""
    shell("redis", "--private-users=no")
    shell("db")
    set_rules(booted, ANYTHING)
    no_bus = {"org.freedesktop.DBus.Error.NotSupported", "io.systemd.Machine.NoIPC"}
    wait_for(lambda: dbus(booted, "OpenMachineShell", "sssasas", "db", "", "", [], [], uid=USER_ID).error in no_bus,
             RULE_SECONDS, "polkit's leave")
    denied = {"org.freedesktop.DBus.Error.AccessDenied", "org.varlink.service.PermissionDenied"}
    assert dbus(booted, "OpenMachineShell", "sssasas", "redis", "", "", [], [], uid=USER_ID).error in denied
    assert varlink(booted, "Open", {"name": "redis", "mode": "shell"}, uid=USER_ID).error in denied
    assert dbus(booted, "OpenMachineShell", "sssasas", "redis", "", "", [], []).error in no_bus     # root asks
    assert varlink(booted, "Open", {"name": "redis", "mode": "shell"}).error in no_bus


def test_a_user_may_ask_for_what_is_his(booted: BootedHost, web: Guest, rules: None) -> None:
    """With leave for all: each action has the details that its rules can decide by."""
    set_rules(booted, """
polkit.addRule(function(action, subject) {
    if (action.id.indexOf("org.freedesktop.machine1.") == 0 && action.lookup("machine") == "web")
        return polkit.Result.YES;
});
""")
    wait_for(lambda: varlink(booted, "Open", {"name": "web", "mode": "tty"}, uid=USER_ID).error == "", RULE_SECONDS)
    assert varlink(booted, "Open", {"name": "web", "mode": "login"}, uid=USER_ID).error == ""
    assert varlink(booted, "Open", {"name": ".host", "mode": "tty"}, uid=USER_ID).error in REFUSED
    shown = booted.out(["varlinkctl", "--json=short", "call", "/run/systemd/machine/io.systemd.Machine",
                        "io.systemd.Machine.Open", json.dumps({"name": "web", "mode": "tty"})], uid=USER_ID)
    assert "/dev/pts/" in shown
    wait_until_quiet(web)
