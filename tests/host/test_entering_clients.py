# SPDX-License-Identifier: MIT
"""Systemd's other clients that go into a container, as far as they need us: they find it by its name."""

import pytest

from .booted import BootedHost
from .conftest import Shell
from .guests import Guest
from .terminal import COLUMNS, ROWS, Terminal

SCRIPT = "cat /etc/hostname; tty; stty size; exit 3"


@pytest.mark.parametrize("client", [["run0", "--machine=web"],
                                    ["systemd-run", "--quiet", "--machine=web", "--pty", "--wait", "--collect"]])
def test_on_a_terminal(booted: BootedHost, web: Guest, client: list[str]) -> None:
    with Terminal(booted, [*client, "/bin/sh", "-c", SCRIPT]) as terminal:
        assert terminal.wait() == 3, terminal.text
        name, path, size = terminal.text.split("\n")[-4:-1]
    assert (name, size) == ("web", f"{ROWS} {COLUMNS}")
    assert path.startswith("/dev/pts/")


def test_without_a_terminal(booted: BootedHost, web: Guest) -> None:
    for client in (["run0", "--machine=web"], ["run0", "--machine=web", "--pipe"],
                   ["systemd-run", "--quiet", "--machine=web", "--pipe", "--wait", "--collect"]):
        done = booted.run([*client, "/bin/sh", "-c", "cat /etc/hostname; exit 4"], check=False)
        assert done.returncode == 4, done
        assert "web" in done.stdout.split(), done


def test_buses_and_journals(booted: BootedHost, shell: Shell, web: Guest) -> None:
    listed = booted.out(["busctl", "--machine=web", "list", "--no-legend"])
    assert "org.freedesktop.systemd1" in listed
    assert "org.freedesktop.machine1 " not in listed    # the container's bus, not ours
    assert booted.out(["busctl", "--machine=web", "get-property", "org.freedesktop.hostname1",
                       "/org/freedesktop/hostname1", "org.freedesktop.hostname1", "Hostname"]) == 's "web"'
    assert booted.out(["systemctl", "--machine=web", "show", "--property=Id", "--value", "dbus.service"]) \
        == "dbus.service"
    assert " web " in booted.out(["journalctl", "--machine=web", "--lines=1"])
    shell("db")
    for client in (["busctl", "--machine=db", "list"], ["systemctl", "--machine=db", "list-units"],
                   ["run0", "--machine=db", "true"]):
        assert booted.run(client, check=False).returncode != 0, client
