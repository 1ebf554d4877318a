# SPDX-License-Identifier: MIT
"""The client: replies, errors, and an end to all waiting."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from resolver.varlink.client import Client
from resolver.varlink.errors import VarlinkError
from tests.lab.waiting import wait_for
from tests.servers.conftest import Serve
from tests.servers.dialogue import PATIENCE


@pytest.fixture
def loop_kind() -> str:
    return "epoll"


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen(1)
        yield sock


def test_calls(serve: Serve) -> None:
    server = serve()
    with Client(server.path, PATIENCE) as client:
        assert client.call("org.example.test.Echo", {"text": "x"}) == {"text": "x"}
        assert [reply["number"] for reply in client.call_more("org.example.test.Count", {"to": 3})] == [0, 1, 2]
        with pytest.raises(VarlinkError) as raised:
            client.call("org.example.test.Refuse", {"field": "class"})
        assert raised.value.name == "org.varlink.service.InvalidParameter"
        assert raised.value.parameters == {"parameter": "class"}
        client.call_oneway("org.example.test.Note", {"text": "noted"})
        assert client.call("org.example.test.Big", {"size": 2**20}) == {"pad": "x" * 2**20}
    wait_for(lambda: server.handlers.notes == ["noted"])


def test_a_mute_service_times_out(listener: socket.socket) -> None:
    begin = time.monotonic()
    with Client(listener.getsockname(), 0.2) as client:
        with pytest.raises(TimeoutError):
            client.call("a.b.C")
        with pytest.raises(OSError, match="descriptor"):
            client.call("a.b.C")
    assert 0.15 < time.monotonic() - begin < 2


def test_a_service_that_drips_times_out(listener: socket.socket) -> None:
    def drip() -> None:
        sock, _ = listener.accept()
        with sock:
            try:
                while True:
                    sock.send(b" ")
                    stop.wait(0.01)
            except OSError:
                pass

    stop = threading.Event()
    thread = threading.Thread(target=drip)
    thread.start()
    begin = time.monotonic()
    with Client(listener.getsockname(), 0.3) as client, pytest.raises(TimeoutError):
        client.call("a.b.C")
    assert time.monotonic() - begin < 3
    thread.join(PATIENCE)


def test_a_full_backlog_times_out(listener: socket.socket) -> None:
    held: list[Client] = []
    begin = time.monotonic()
    try:
        with pytest.raises(TimeoutError):  # noqa: PT012 - how many fit is the kernel's to say
            while len(held) < 10:
                held.append(Client(listener.getsockname(), 0.2))
    finally:
        for client in held:
            client.close()
    assert held
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400\0", b'{"parameters":5}\0', b'{"continues":true}\0', b"{}"])
def test_services_that_do_not_speak_varlink(listener: socket.socket, said: bytes) -> None:
    def speak() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(100)
            sock.send(said)

    thread = threading.Thread(target=speak)
    thread.start()
    with Client(listener.getsockname(), PATIENCE) as client, pytest.raises((ConnectionError, VarlinkError)):
        client.call("a.b.C")
    thread.join(PATIENCE)


def test_no_service(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Client(str(tmp_path / "none"))
    path = tmp_path / "dead"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    with pytest.raises(ConnectionRefusedError):
        Client(str(path))


def test_no_asyncio() -> None:
    code = "import sys, resolver.varlink.client; print('asyncio' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("False\n", "")
