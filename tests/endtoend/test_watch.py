# SPDX-License-Identifier: MIT
"""mymachinesctl watch beside the real daemon: a line for each change, over a restart, until nobody reads."""

import json
import signal
import subprocess
import time
from typing import Any

import pytest

from resolver.cli.following import ALL_SECONDS, Following
from tests.endtoend.conftest import MACHINE_SOCKET, World
from tests.lab import Container, command
from tests.lab.waiting import Lines

SECONDS = 10.0


class Watch:
    """The command, running, and its lines."""

    last: Any

    def __init__(self, world: World, *options: str) -> None:
        self.process = world.host.popen([*command("mymachinesctl"), "watch", *options], stdout=subprocess.PIPE)
        self._lines = Lines(self.process)

    def text(self) -> str:
        return self._lines.next(SECONDS)

    def next(self) -> tuple[str, Any]:
        """The event, and the name or nothing."""
        self.last = json.loads(self.text())
        return self.last["event"], self.last.get("name")

    def until(self, event: str) -> list[tuple[str, Any]]:
        seen = [self.next()]
        while seen[-1][0] != event:
            seen.append(self.next())
        return seen


@pytest.fixture
def web(world: World) -> Container:
    return world.machine("web")


@pytest.fixture
def watch(world: World, web: Container) -> Watch:
    return Watch(world, "--json")


def test_each_change_is_a_line_with_what_was_and_is(world: World, web: Container, watch: Watch) -> None:
    assert [watch.next(), watch.next()] == [("present", "web"), ("ready", None)]
    web.add_address("10.213.1.77/24")
    assert watch.next() == ("changed", "web")
    assert sorted(watch.last["before"]["addresses"]) == sorted(web.plain_addresses)
    assert set(watch.last["after"]["addresses"]) == {*web.plain_addresses, "10.213.1.77"}
    db = world.machine("db", link=False)
    assert watch.next() == ("added", "db")
    after = {"name": "db", "class": "container", "leader": db.leader, "addresses": []}
    assert (watch.last["before"], watch.last["after"]) == (None, after)
    db.kill()
    assert watch.next() == ("removed", "db")
    assert (watch.last["before"], watch.last["after"]) == (after, None)


def test_what_happens_while_the_daemon_is_away_is_told_when_it_is_back(world: World, web: Container, watch: Watch
                                                                       ) -> None:
    watch.until("ready")
    db = world.machine("db", link=False)
    assert watch.next() == ("added", "db")
    world.daemon.kill9()
    assert watch.next() == ("lost", None)
    web.add_address("10.213.1.77/24")
    db.kill()
    world.restart()
    assert watch.next() == ("back", None)
    # The addresses inside may be known a moment after the machine is there again.
    told = watch.until("ready")
    assert ("removed", "db") in told
    world.machine("late", link=False)
    assert ("added", "late") in watch.until("added")
    assert world.ctl("resolve", "web").count("10.213.1.77") == 1


def test_people_get_text(world: World, web: Container) -> None:
    watch = Watch(world)
    first = watch.text()
    assert f" present web: container {web.leader}, " in first
    assert web.ipv4 in first
    assert watch.text().endswith(" ready: these are all machines")
    web.kill()
    assert " removed web: container " in watch.text()


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_it_ends_with_its_reader_without_another_line(world: World, web: Container, options: list[str]) -> None:
    watch = Watch(world, *options)
    watch.text()
    watch.text()
    assert watch.process.stdout is not None
    watch.process.stdout.close()
    assert watch.process.wait(SECONDS) == 0


def test_it_ends_at_an_interrupt(world: World, watch: Watch) -> None:
    watch.until("ready")
    watch.process.send_signal(signal.SIGINT)
    assert watch.process.wait(SECONDS) == 130


def test_without_a_daemon_it_says_so(world: World) -> None:
    world.daemon.stop()
    said = world.ctl("watch", check=False)
    assert said.startswith("5: mymachinesctl: mymachinesd is not there")


def test_a_daemon_that_does_not_tell_of_machines_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.daemon.sigstop()
    following = Following(f"/proc/{world.host.pid}/root{MACHINE_SOCKET}")
    try:
        assert following.events() == []
        seconds = following.seconds()
        assert seconds is not None
        assert 0 < seconds <= ALL_SECONDS
        later = time.monotonic() + seconds
        monkeypatch.setattr("resolver.cli.following.time.monotonic", lambda: later)
        with pytest.raises(TimeoutError):
            following.events()
    finally:
        following.close()
        world.daemon.sigcont()
