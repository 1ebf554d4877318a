# SPDX-License-Identifier: MIT
"""mymachinesctl top on a real terminal, and where its output is read by a program."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from resolver.cli.screen import ENTER, LEAVE
from tests.endtoend.conftest import World
from tests.lab import Container, command, wait_for
from tests.lab.processes import children
from tests.lab.terminal import Terminal

LOOK = ["top", "--delay", "0.3"]


def top(world: World, *words: str, term: str = "xterm", no_color: str = "") -> Terminal:
    variables = [f"TERM={term}", *([f"NO_COLOR={no_color}"] if no_color else [])]
    # A shell around it, which says how the terminal is afterwards.
    script = 'before=$(stty -g); "$@"; echo "ended with $?"; [ "$before" = "$(stty -g)" ] && echo "as before"'
    return Terminal([*world.host.enter(), "env", *variables, "sh", "-c", script, "sh", *command("mymachinesctl"),
                     *(words or LOOK)])


@pytest.fixture
def web(world: World) -> Container:
    web = world.machine("web", scope="web.scope")
    web.popen(["sleep", "600"], uid=1000, gid=1000)
    web.popen(["sleep", "600"], uid=1000, gid=1000)
    wait_for(lambda: len(web.exec(["pgrep", "-x", "sleep"]).stdout.split()) == 2)
    return web


@pytest.fixture
def db(world: World) -> Iterator[Container]:
    """Without a unit of its own."""
    db = world.machine("db", link=False)
    child = db.popen(["sleep", "600"], uid=7, gid=7)
    wait_for(lambda: db.exec(["pgrep", "-x", "sleep"]).stdout)
    yield db
    child.kill()


def test_where_a_program_reads_it_is_plain_and_once(world: World, web: Container, db: Container) -> None:
    done = world.host.run([*command("mymachinesctl"), "top"], check=True, env={**os.environ, "COLUMNS": "20"})
    machines, users = done.stdout.split("\n\n")[1:]
    assert "\x1b" not in done.stdout
    assert re.match(r"\d\d:\d\d:\d\d, 2 machines, \d+ processes, ~?[\d.]+M\n", done.stdout)
    rows = {line.split()[0]: line.split() for line in machines.splitlines()}
    assert rows["MACHINE"] == ["MACHINE", "CLASS", "PROCESSES", "USERS", "MEMORY", "EVENTS/S", "ADDRESSES"]
    assert rows["web"][-2:] == [f"{web.ipv4},", web.ipv6]
    assert rows["db"][1:4] == ["container", "2", "2"]
    assert rows["db"][-1] == "-"
    of_users = {line.split()[0]: line.split() for line in users.splitlines()}
    assert of_users["vu-web-1000"][1:3] == ["web", "2"]
    assert of_users["vu-web-0"][1:3] == ["web", "1"]
    assert of_users["vu-db-7"][1:3] == ["db", "1"]
    looks = world.host.run([*command("mymachinesctl"), *LOOK, "-b", "-n", "2"], check=True).stdout
    assert looks.count("MACHINE ") == 4     # two tables, two times
    assert re.search(r"web +container .* 0\.0 ", looks)
    assert world.ctl("top", "-d", "0", check=False).startswith("1: mymachinesctl: --delay")


def test_it_follows_machines_and_counts_events(world: World, web: Container) -> None:
    with top(world) as terminal:
        terminal.expect("1 machine, ")
        terminal.expect(r"web +container")
        db = world.machine("db", link=False)
        terminal.expect(r"2 machines, [^\n]*, [1-9][\d.]* events/s")
        db.kill()
        terminal.expect("1 machine, ")
        world.daemon.kill9()
        terminal.expect("mymachinesd is away; ")
        world.restart()
        world.machine("late", link=False)
        terminal.expect(r"\d\d:\d\d:\d\d, 2 machines, (.|\n)*late +container")
        terminal.type("q")
        terminal.expect("ended with 0\nas before")


def test_it_fits_the_terminal_and_its_changes(world: World, web: Container) -> None:
    for number in range(8):
        world.machine(f"m{number}", link=False)
    with top(world) as terminal:
        terminal.expect("9 machines")
        terminal.expect(r"\nUSER +MACHINE")
        terminal.resize(12, 40)
        terminal.expect(r"\.\.\. and \d more")
        terminal._seen = b""
        terminal.expect(r"9 machines(.|\n)*\.\.\. and \d+ more(.|\n)*9 machines")
        screen = terminal._seen.decode()
        assert max(map(len, screen.splitlines())) <= 40
        terminal.type("q")
        terminal.expect("ended with 0\nas before")


def test_colours_are_for_terminals_that_want_them(world: World, web: Container) -> None:
    for no_color, coloured in (("", True), ("1", False)):
        with top(world, no_color=no_color) as terminal:
            wait_for(lambda terminal=terminal: terminal._read(0.1) and b"web" in terminal._seen)  # type: ignore[misc]
            assert (b"\x1b[1m" in terminal._seen) is coloured
            assert ENTER.encode() in terminal._seen
            terminal.type("q")
            terminal.expect("ended with 0")
    with top(world, "top", term="dumb") as terminal:
        terminal.expect("ended with 0")
        assert terminal.process.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_it_gives_the_terminal_back(world: World, web: Container, number: int) -> None:
    with top(world) as terminal:
        terminal.expect("1 machine, ")
        [pid] = children(terminal.process.pid)
        os.kill(pid, number)
        wait_for(lambda: terminal._read(0.1) and LEAVE.encode() in terminal._seen)
        terminal.expect(f"ended with {128 + number}\nas before")


def test_stopped_it_gives_the_terminal_back_until_it_goes_on(world: World, web: Container) -> None:
    with top(world) as terminal:
        terminal.expect("1 machine, ")
        [pid] = children(terminal.process.pid)
        os.kill(pid, signal.SIGTSTP)
        wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        wait_for(lambda: not terminal._read(0.05))
        assert terminal._seen.endswith(LEAVE.encode())
        terminal._seen = b""
        os.kill(pid, signal.SIGCONT)
        terminal.expect("1 machine, ")
        terminal.type("q")
        terminal.expect("ended with 0\nas before")
