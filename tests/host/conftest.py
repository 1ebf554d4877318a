# SPDX-License-Identifier: MIT
"""One booted host for all tests here. Each ends what it starts; `web`, which boots systemd, is shared by a module's."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.lab import wait_for

from .booted import AGAINST_MACHINED, BootedHost
from .guests import Guest, start_booting, start_shell

Shell = Callable[..., Guest]
Introspections = Mapping[str, str]

TAKE_OVER_SECONDS = 30.0


@pytest.fixture(scope="session")
def plain_host() -> Iterator[BootedHost]:
    """Booted, the project installed, systemd-machined in its place."""
    with BootedHost() as host:
        yield host


@pytest.fixture(scope="session")
def introspections(plain_host: BootedHost) -> Introspections:
    """What systemd-machined says of itself, by object path or Varlink interface: recorded before its place is taken.
    Debian 12's speaks no Varlink."""
    db = start_shell(plain_host, "db")
    try:
        found = {path: plain_host.out(["busctl", "introspect", "org.freedesktop.machine1", path]) for path in (
            "/org/freedesktop/machine1", "/org/freedesktop/machine1/machine/db", "/org/freedesktop/LogControl1")}
        with_varlink = plain_host.run("command -v varlinkctl", check=False).returncode == 0
        for socket in ("io.systemd.Machine", "io.systemd.MachineImage") if with_varlink else ():
            found[socket] = plain_host.out(["varlinkctl", "introspect", f"/run/systemd/machine/{socket}", socket])
        return found
    finally:
        db.remove()


@pytest.fixture(scope="session")
def booted(plain_host: BootedHost, introspections: Introspections) -> BootedHost:
    """mymachinesd is in systemd-machined's place, taken while that ran."""
    plain_host.run(["systemctl", "start", "systemd-machined.service"])
    if not AGAINST_MACHINED:
        take_place(plain_host)
    return plain_host


def take_place(host: BootedHost) -> None:
    host.run(["systemctl", "enable", "--now", "mymachinesd.service"])
    wait_for(lambda: serves(host), TAKE_OVER_SECONDS, "mymachinesd to serve the bus and userdb")


def serves(host: BootedHost) -> bool:
    """Whether the bus name is mymachinesd's, and users are answered."""
    owner = host.run(["busctl", "--json=short", "call", "org.freedesktop.DBus", "/org/freedesktop/DBus",
                      "org.freedesktop.DBus", "GetConnectionUnixProcessID", "s", "org.freedesktop.machine1"],
                     check=False).stdout
    pid = host.main_pid()
    ours = "mymachinesd" in host.run(["cat", f"/proc/{pid}/comm"], check=False).stdout
    return ours and f"[{pid}]" in owner and host.run(
        ["test", "-S", "/run/systemd/userdb/io.systemd.Machine"], check=False).returncode == 0


@pytest.fixture(scope="module")
def web(booted: BootedHost) -> Iterator[Guest]:
    """Boots systemd; for tests that leave it running."""
    guest = start_booting(booted)
    yield guest
    guest.stop()


@pytest.fixture
def shell(booted: BootedHost) -> Iterator[Shell]:
    """shell("db") starts a container that runs a shell; it ends with the test."""
    guests: list[Guest] = []

    def start(name: str, *options: str, **more: Any) -> Guest:
        guests.append(start_shell(booted, name, *options, **more))
        return guests[-1]

    yield start
    for guest in guests:
        guest.remove()
