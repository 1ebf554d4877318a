# SPDX-License-Identifier: MIT
"""Shells and logins in a container that boots systemd, on a terminal, as a person gets them from machinectl."""

import re
from collections.abc import Iterator

import pytest

from tests.lab import wait_for

from .booted import USER, USER_ID, BootedHost
from .conftest import Shell
from .guests import Guest
from .sessions import shells, wait_until_quiet
from .terminal import COLUMNS, ROWS, SECONDS, Terminal

PASSWORD = "correct horse"
INSIDE, INSIDE_ID = "carol", 1234
"""A user that only the container has."""


@pytest.fixture(scope="module")
def carol(booted: BootedHost, web: Guest) -> Iterator[str]:
    in_web = ["systemd-run", "--quiet", "--machine=web", "--pipe", "--wait", "--collect"]
    booted.run([*in_web, "useradd", "--create-home", f"--uid={INSIDE_ID}", "--shell=/bin/bash", INSIDE])
    booted.run([*in_web, "chpasswd"], stdin=f"{INSIDE}:{PASSWORD}\n")
    yield INSIDE
    booted.run([*in_web, "sh", "-c", f"loginctl terminate-user {INSIDE}; userdel --force --remove {INSIDE} 2>&1"],
               check=False)


def shows(host: BootedHost, *arguments: str, uid: int = 0) -> str:
    """What machinectl leaves on a terminal, and that it ends as it should."""
    with Terminal(host, ["machinectl", "--quiet", *arguments], uid=uid) as terminal:
        assert terminal.wait() == 0, terminal.text
        return terminal.text.strip("\n")


def fails(host: BootedHost, *arguments: str) -> str:
    with Terminal(host, ["machinectl", "--quiet", *arguments]) as terminal:
        assert terminal.wait() == 1, terminal.text
        return terminal.text.strip("\n")


def test_a_command(booted: BootedHost, web: Guest) -> None:
    with Terminal(booted, ["machinectl", "shell", "web", "/bin/echo", "hello"]) as terminal:
        assert terminal.wait() == 0
        assert terminal.text.splitlines() == [
            "Connected to machine web. Press ^] three times within 1s to exit session.", "hello",
            "Connection to machine web terminated."]
    assert shells(booted) == {}     # it was started in the container
    wait_until_quiet(web)


def test_arguments_and_directory(booted: BootedHost, web: Guest) -> None:
    assert shows(booted, "shell", "web", "/bin/sh", "-c", 'printf "<%s>" "$@"', "me", "a b", "", "ü'\"") \
        == "<a b><><ü'\">"
    assert shows(booted, "shell", "web", "/bin/pwd") == "/root"
    assert shows(booted, "shell", "web", "/bin/cat", "/etc/hostname") == "web"


def test_what_the_program_finds(booted: BootedHost, web: Guest) -> None:
    """A terminal of the container's own, with the size of ours, and a session of its user's."""
    found = shows(booted, "shell", "web", "/bin/sh", "-c", "tty; stty size; id -un; ps -o pid= 2>&1; "
                                                           "echo $HOME $USER $SHELL $TERM; cat /proc/self/cgroup")
    lines = found.splitlines()
    assert re.fullmatch(r"/dev/pts/\d+", lines[0])
    assert lines[1] == f"{ROWS} {COLUMNS}"
    assert lines[2] == "root"
    assert any(re.fullmatch(r"/root root /bin/bash \S+", line) for line in lines), lines
    assert re.search(r"^0::/user\.slice/user-0\.slice/session-\w+\.scope$", found, re.MULTILINE), found


def test_another_user(booted: BootedHost, web: Guest, carol: str) -> None:
    assert shows(booted, "shell", f"{carol}@web", "/bin/sh", "-c", "id -u; pwd; echo $USER") == \
        f"{INSIDE_ID}\n/home/{carol}\n{carol}"
    assert shows(booted, f"--uid={carol}", "shell", "web", "/usr/bin/id", "-u") == str(INSIDE_ID)
    assert shows(booted, f"--uid={INSIDE_ID}", "shell", "web", "/usr/bin/id", "-un") == carol
    assert shows(booted, "shell", "root@web", "/usr/bin/id", "-u") == "0"


def test_setenv(booted: BootedHost, web: Guest, carol: str) -> None:
    for user in ("root", carol):
        environment = shows(booted, "--setenv=FOO=a b", "--setenv=EMPTY=", "shell", f"{user}@web", "/usr/bin/env")
        assert {"FOO=a b", "EMPTY=", f"USER={user}"} <= set(environment.splitlines())
    assert fails(booted, "--setenv=1a=b", "shell", "web", "/bin/true") != ""


def test_the_shell_ends_and_so_does_machinectl(booted: BootedHost, web: Guest, carol: str) -> None:
    """With success, whatever the program's status was: machinectl(1) sends those who need it to systemd-run."""
    for user in ("root", carol):
        with Terminal(booted, ["machinectl", "shell", f"{user}@web"]) as terminal:
            terminal.expect(rf"{user}@web:~[#$] ")
            terminal.type("exit 3\n")
            terminal.expect(r"Connection to machine web terminated\.")
            assert terminal.wait() == 0
    assert shows(booted, "shell", "web", "/bin/sh", "-c", "exit 3") == ""
    assert shows(booted, "shell", "web", "/bin/nosuch") == ""
    assert shows(booted, "shell", "nobodyknows@web", "/bin/echo", "reached") == ""
    wait_until_quiet(web)


def test_the_escape_leaves_the_shell(booted: BootedHost, web: Guest) -> None:
    with Terminal(booted, ["machinectl", "shell", "web"]) as terminal:
        terminal.expect(r"root@web:~# ")
        terminal.type("\x1d\x1d\x1d")
        assert terminal.wait() == 0
    wait_until_quiet(web)


def test_a_terminal_that_works(booted: BootedHost, web: Guest) -> None:
    """Its size follows, interrupts reach the program and not machinectl, and much output comes whole."""
    with Terminal(booted, ["machinectl", "shell", "web"]) as terminal:
        terminal.expect(r"root@web:~# ")
        terminal.type("stty size\n")
        terminal.expect(rf"\n{ROWS} {COLUMNS}\n")
        terminal.resize(20, 70)

        def followed() -> bool:
            terminal.type("stty size\n")
            return terminal.expect(r"\n(\d+ \d+)\n")[1] == "20 70"

        wait_for(followed, SECONDS)
        terminal.type("sh -c 'trap \"echo caught; exit\" INT; echo ready; while :; do sleep 0.1; done'\n")
        terminal.expect(r"\nready\n")
        terminal.type("\x03")
        terminal.expect(r"\^C\s*caught\n(?s:.*)root@web:~# ")
        terminal.type("echo next $((40 + 2))\n")
        terminal.expect(r"\nnext 42\n")
        terminal.type("echo ready; cat\n")
        terminal.expect(r"\nready\n")
        terminal.type("typed\n")
        terminal.expect(r"^typed\ntyped\n")
        terminal.type("\x1a")
        terminal.expect(r"Stopped")
        terminal.type("kill %1; seq 5000; echo the end\n")
        assert "\n".join(map(str, range(1, 5001))) in terminal.expect(r"\nthe end\n").string
        terminal.type("exit\n")
        assert terminal.wait() == 0


def test_two_at_once_are_apart(booted: BootedHost, web: Guest) -> None:
    with Terminal(booted, ["machinectl", "--quiet", "shell", "web"]) as one, \
            Terminal(booted, ["machinectl", "--quiet", "shell", "web"]) as two:
        seen = set()
        for terminal in (one, two):
            terminal.expect(r"root@web:~# ")
            terminal.type("tty\n")
            seen.add(terminal.expect(r"\n(/dev/pts/\d+)\n")[1])
        assert len(seen) == 2
        one.type("exit\n")
        assert one.wait() == 0
        two.type("echo still $((1 + 1))\n")
        two.expect(r"\nstill 2\n")
        two.type("exit\n")
        assert two.wait() == 0


def test_login(booted: BootedHost, web: Guest, carol: str) -> None:
    with Terminal(booted, ["machinectl", "login", "web"]) as terminal:
        terminal.expect(r"Connected to machine web\. Press \^\] three times within 1s to exit session\.")
        terminal.expect(r"Debian GNU/Linux 13 web pts/\d+\s+web login: ")
        terminal.type(f"{carol}\n")
        terminal.expect(r"Password: ")
        terminal.type("wrong\n")
        terminal.expect(r"Login incorrect\s+web login: ")
        terminal.type(f"{carol}\n")
        terminal.expect(r"Password: ")
        terminal.type(f"{PASSWORD}\n")
        terminal.expect(rf"{carol}@web:~\$ ")
        terminal.type("id -u; tty\n")
        terminal.expect(rf"\n{INSIDE_ID}\n/dev/pts/\d+\n")
        terminal.type("\x1d\x1d\x1d")
        assert terminal.wait() == 0
    wait_until_quiet(web)


def test_the_host(booted: BootedHost) -> None:
    """`.host` and no machine at all are this host, with a unit of its own for each shell."""
    script = "tty; stty size; id -un; pwd; cat /etc/hostname"
    for machine in (["root@.host"], [".host"], ["root@"], [""]):
        found = shows(booted, "shell", *machine, "/bin/sh", "-c", script).splitlines()
        assert re.fullmatch(r"/dev/pts/\d+", found[0])
        assert found[1:] == [f"{ROWS} {COLUMNS}", "root", "/root", "labhost"]
    assert shows(booted, "shell", f"{USER}@", "/usr/bin/id", "-u") == str(USER_ID)
    with Terminal(booted, ["machinectl", "shell"]) as terminal:
        terminal.expect(r"Connected to the local host\. Press \^\] three times within 1s to exit session\.")
        terminal.expect(r"root@labhost:~# ")
        terminal.type("exit\n")
        terminal.expect(r"Connection to the local host terminated\.")
        assert terminal.wait() == 0
    with Terminal(booted, ["machinectl", "login", ".host"]) as terminal:
        terminal.expect(r"labhost login: ")
        terminal.type("\x1d\x1d\x1d")
        assert terminal.wait() == 0
    wait_for(lambda: shells(booted) == {}, SECONDS)


def test_what_cannot_be(booted: BootedHost, shell: Shell, web: Guest) -> None:
    shell("db")
    for verb in ("shell", "login"):
        assert fails(booted, verb, "nosuch") == f"Failed to get {verb} PTY: No machine 'nosuch' known"
        assert "there is no system bus in" in fails(booted, verb, "db").lower()
    assert "path" in fails(booted, "shell", "web", "relative/path").lower()
    assert shells(booted, "web") == {}
