# SPDX-License-Identifier: MIT
"""The daemon is full, of machines or for want of descriptors: it says so, loses nothing, serves all others, waits
without turning in circles, and goes on when there is room again."""

import os
import resource
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resolver.leaders import KEPT_SHARE
from resolver.varlink.client import Client
from resolver.varlink.errors import VarlinkError
from tests.endtoend.conftest import MACHINE_SOCKET, World
from tests.lab import Daemon, TestHost, command, wait_for
from tests.lab.processes import end

ROOM = 24
"""Machines: the limit, or for so many there are descriptors, a pidfd and a netlink socket for each. tests/soak/full.py
has thousands."""

LEADERS = 40
CLIENTS = 8
MANY = 1024
PATIENCE = 20.0
NOT_AVAILABLE = "io.systemd.Machine.NotAvailable"

IDLE_SECONDS = 1.0
IDLE_SHARE = 0.2
"""Of the time without a descriptor to accept with, in which the daemon may be busy: it tries ten times a second."""


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    return tmp_path / "mymachinesd.toml"


@pytest.fixture
def world(host: TestHost, configuration: Path) -> World:
    return World(host, host.start_daemon(None, "--config", str(configuration)))


@pytest.fixture
def leaders(world: World) -> "Iterator[list[subprocess.Popen[bytes]]]":
    """Processes with user and network namespaces of their own."""
    own = Path("/proc/self/ns/net").readlink()
    started = [world.host.popen(["unshare", "--user", "--map-root-user", "--net", "sleep", "600"])
               for _ in range(LEADERS)]
    for each in started:
        wait_for(lambda each=each: Path(f"/proc/{each.pid}/comm").read_text() == "sleep\n", PATIENCE)  # type: ignore[misc]
        assert Path(f"/proc/{each.pid}/ns/net").readlink() != own
    yield started
    for each in started:
        end(each)


def first_free(daemon: Daemon) -> int:
    """The number that the next descriptor would have: the limit goes by numbers (getrlimit(2))."""
    numbers = {int(each) for each in os.listdir(f"/proc/{daemon.pid}/fd")}
    return next(number for number in range(len(numbers) + 1) if number not in numbers)


def allow(daemon: Daemon, descriptors: int) -> None:
    _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (descriptors, hard))


def call(world: World, method: str, parameters: dict[str, object]) -> str:
    """The error's name; empty where there is none."""
    with Client(f"/proc/{world.host.pid}/root{MACHINE_SOCKET}", PATIENCE) as client:
        try:
            client.call(f"io.systemd.Machine.{method}", parameters)
        except VarlinkError as error:
            return error.name
    return ""


def register(world: World, number: int, leader: "subprocess.Popen[bytes]") -> str:
    return call(world, "Register", {"name": f"m{number}", "class": "container", "leader": leader.pid})


def listed(world: World) -> set[str]:
    return set(world.ctl("list").split()) & {f"m{number}" for number in range(LEADERS)}


def processor_time(daemon: Daemon) -> float:
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("limit", ["machines", "descriptors"])
def test_eight_clients_at_a_limit(world: World, leaders: "list[subprocess.Popen[bytes]]", limit: str,
                                  configuration: Path) -> None:
    """Who does not get in is told, and all others are served."""
    if limit == "machines":
        configuration.write_text(f"machines.maximum = {ROOM}\n")
        world.daemon.reload()
        world.daemon.expect_log("The configuration is applied")
    else:
        allow(world.daemon, (first_free(world.daemon) + 2 * ROOM) * KEPT_SHARE // (KEPT_SHARE - 1))
    with ThreadPoolExecutor(CLIENTS) as clients:
        outcomes = list(clients.map(lambda number: register(world, number, leaders[number]), range(LEADERS)))
    acknowledged = {f"m{number}" for number, error in enumerate(outcomes) if not error}
    assert len(acknowledged) == ROOM or (limit == "descriptors" and abs(len(acknowledged) - ROOM) <= CLIENTS)
    assert set(outcomes) == {"", NOT_AVAILABLE}
    assert listed(world) == acknowledged
    number = next(number for number, error in enumerate(outcomes) if not error)
    assert world.ctl("show", f"m{number}").strip()
    assert world.ctl("explain", f"m{number}").strip()
    # One goes, one comes.
    end(leaders[number])
    wait_for(lambda: f"m{number}" not in listed(world), PATIENCE)
    refused = outcomes.index(NOT_AVAILABLE)
    assert register(world, refused, leaders[refused]) == ""
    assert "failed" not in world.daemon.log
    # Over a crash too.
    now = listed(world)
    world.daemon.kill9()
    world.restart()  # with room for all
    assert listed(world) == now


@pytest.mark.parametrize("spare", range(10))
def test_with_a_few_descriptors_it_is_taken_in_whole_or_not_at_all(
        world: World, leaders: "list[subprocess.Popen[bytes]]", spare: int) -> None:
    """Where callers have taken all others. One is for this caller's connection."""
    allow(world.daemon, first_free(world.daemon) + 1 + spare)
    outcome = register(world, 0, leaders[0])
    assert outcome in ("", NOT_AVAILABLE)
    assert spare > 2 or outcome
    allow(world.daemon, MANY)
    assert listed(world) == (set() if outcome else {"m0"})
    assert register(world, 1, leaders[1]) == ""
    assert "failed" not in world.daemon.log


def test_without_a_descriptor_to_accept_with_it_waits(world: World, leaders: "list[subprocess.Popen[bytes]]") -> None:
    idle = first_free(world.daemon)
    assert register(world, 0, leaders[0]) == ""
    wait_for(lambda: first_free(world.daemon) == idle, PATIENCE, "the end of the connection")
    allow(world.daemon, idle)
    path = f"/proc/{world.host.pid}/root{MACHINE_SOCKET}"
    with socket.socket(socket.AF_UNIX) as waiting, ThreadPoolExecutor(1) as clients:
        waiting.connect(path)
        world.daemon.expect_log("cannot accept a connection")
        late = clients.submit(register, world, 1, leaders[1])
        spent = processor_time(world.daemon)
        waiting.settimeout(IDLE_SECONDS)
        with pytest.raises(TimeoutError):
            waiting.recv(1)
        assert processor_time(world.daemon) - spent < IDLE_SHARE * IDLE_SECONDS
        assert not late.done()
        assert world.getent("hosts", "m0") == []  # by the table, at once: it has no address
        allow(world.daemon, MANY)
        assert late.result(PATIENCE) == ""
    assert listed(world) == {"m0", "m1"}


def test_a_start_with_too_few_descriptors_loses_nothing(world: World, leaders: "list[subprocess.Popen[bytes]]") -> None:
    for number in range(ROOM):
        assert register(world, number, leaders[number]) == ""
    world.daemon.kill9()
    with pytest.raises(AssertionError, match=r"ended with 1 [\s\S]*Cannot serve: .*Too many open files"):
        world.host.start_daemon(["prlimit", f"--nofile={ROOM}", "--", *command("mymachinesd")])
    world.restart()
    assert listed(world) == {f"m{number}" for number in range(ROOM)}
