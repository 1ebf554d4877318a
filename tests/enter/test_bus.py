# SPDX-License-Identifier: MIT
"""The system bus of a machine, when who answers there is not to be trusted. With a real one: tests/host."""

import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from resolver.core.errors import NoIPC, NotAvailable
from tests.enter.worlds import OWN_RUN, OWN_TERMINALS, at_most, enter, fake_bus, guest, shell
from tests.lab import Container, TestHost

LATE = "does not answer|no answer within"
"""The second where the machine that runs the test is busy."""

SOCKET = "/run/dbus/system_bus_socket"


@pytest.fixture
def container(host: TestHost) -> Container:
    return guest(host, OWN_TERMINALS, OWN_RUN)


@pytest.mark.parametrize(("kind", "why"), [
    ("silent", LATE),
    ("slow", LATE),
    ("hangup", "hung up|no process of the machine"),
    ("endless line", "does not speak D-Bus"),
    ("refuses", "does not let its root in"),
    ("nonsense", "does not speak D-Bus"),
    ("huge message", "too long"),
    ("flood of signals", f"says too much|{LATE}"),
    ("full", "takes no connections"),
])
@pytest.mark.parametrize("do", ["shell", "login"])
def test_one_that_is_no_bus(container: Container, kind: str, why: str, do: str) -> None:
    with fake_bus(container, kind), at_most(5), pytest.raises(NotAvailable, match=why):
        shell(container) if do == "shell" else enter(container, "login")


@pytest.fixture
def listening() -> Iterator[tuple[Path, socket.socket]]:
    """A socket of the host's that nobody of a machine is to reach."""
    with tempfile.TemporaryDirectory(prefix="mymachines-test-") as folder, socket.socket(socket.AF_UNIX) as listener:
        Path(folder).chmod(0o755)
        path = Path(folder, "socket")
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()
        listener.setblocking(False)
        yield path, listener


def accepted(listener: socket.socket) -> bytes | None:
    """What somebody who connected has said; None where nobody has."""
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        return None
    with connection:
        connection.settimeout(1)
        return connection.recv(100)


def test_a_socket_of_the_host_s_in_its_place_is_told_nothing(host: TestHost, container: Container,
                                                             listening: tuple[Path, socket.socket]) -> None:
    path, listener = listening
    container.exec(["sh", "-ec", f"touch {SOCKET}; mount --bind {path} {SOCKET}"], check=True)
    with at_most(5), pytest.raises(NotAvailable, match="no process of the machine"):
        shell(container)
    assert accepted(listener) in (None, b"")


def test_a_link_does_not_lead_out(container: Container, listening: tuple[Path, socket.socket]) -> None:
    path, listener = listening
    # In a file system of its own that path leads nowhere, and /proc's links, which jump, are refused.
    container.exec(["sh", "-ec", f"mount -t tmpfs tmpfs {path.parent}; ln -s /proc/1/root{path} {SOCKET}"], check=True)
    with at_most(5), pytest.raises(NotAvailable):
        shell(container)
    assert accepted(listener) is None


@pytest.mark.parametrize("layout", ["true", f"mkfifo {SOCKET}", f"mkdir {SOCKET}", f"touch {SOCKET}",
                                    f"ln -s {SOCKET} {SOCKET}"])
def test_no_socket_at_all(container: Container, layout: str) -> None:
    container.exec(["sh", "-ec", layout], check=True)
    with at_most(5), pytest.raises((NotAvailable, NoIPC)):
        enter(container, "login")


def test_a_machine_with_the_host_s_processes(host: TestHost, listening: tuple[Path, socket.socket]) -> None:
    """Such a /proc has links to the host's root, and they are refused."""
    path, listener = listening
    container = guest(host, OWN_TERMINALS, OWN_RUN)
    container.exec(["sh", "-ec", f"ln -s /proc/self/root{path} {SOCKET}"], check=True)
    with pytest.raises((NotAvailable, NoIPC)):
        shell(container)
    assert accepted(listener) is None


WATCH = """
# Looks into every process that comes, as root of a machine may.
import os, sys
mark = sys.argv[1]
print("looking", flush=True)
while True:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                print(open(f"/proc/{name}/root{mark}").read(), flush=True)
                sys.exit()
            except OSError:
                pass
"""


def test_nothing_of_the_host_s_can_be_seen_from_inside(host: TestHost, listening: tuple[Path, socket.socket]) -> None:
    """With the host's users, and so with rights over whatever process it sees."""
    mark = listening[0].with_name("mark")
    mark.write_text("of the host")
    container = guest(host, OWN_TERMINALS, OWN_RUN, "mount -t tmpfs tmpfs /tmp", user_namespace=False)
    assert container.exec(["cat", str(mark)]).returncode != 0
    watcher = container.popen(["/usr/bin/python3", "-c", WATCH, str(mark)], stdout=subprocess.PIPE)
    assert watcher.stdout is not None
    try:
        assert watcher.stdout.readline() == b"looking\n"
        with fake_bus(container, "silent"), pytest.raises(NotAvailable):
            shell(container)  # as long as it lasts, the worker's children are there to be seen
        assert watcher.poll() is None, watcher.stdout.read()
    finally:
        watcher.kill()
        watcher.wait()
        watcher.stdout.close()


def test_what_a_bus_says_is_made_fit_for_a_terminal(container: Container) -> None:
    with fake_bus(container, "rude"), pytest.raises(NotAvailable) as failed:
        enter(container, "login")
    assert str(failed.value).isprintable()
    assert len(str(failed.value)) < 1000
