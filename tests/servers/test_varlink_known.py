# SPDX-License-Identifier: MIT
"""Replies that are kept for who asks the same: for as long as nothing changes, and none that may not be."""

import fcntl
import select
import socket
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resolver.core.errors import NoSuchMachine
from resolver.varlink.call import Call, Reply
from resolver.varlink.errors import VarlinkError
from resolver.varlink.known import KNOWN_MAX, SIZE_MAX, KnownReplies
from resolver.varlink.loop import EpollLoop
from resolver.varlink.server import Server
from resolver.varlink.service import Service
from tests.servers.dialogue import INTERFACE, PATIENCE, Dialogue, message

ECHO = f"{INTERFACE.name}.Echo"


class Counting:
    """Tells how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None

    def do_echo(self, call: Call) -> Reply:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return Reply({"text": f"{call.parameters['text']} {self.asked}"})

    def do_note(self, _call: Call) -> None:
        self.asked += 1


class World:
    """A server in the test's own thread, which it runs for as long as a reply takes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.changed = False
        self.handlers = Counting()
        self.loop = EpollLoop()
        self.server = Server.at_path(self.loop, Service("", "", "", "", [INTERFACE], {INTERFACE.name: self.handlers},
                                                        KnownReplies(self.has_changed)), path)

    def has_changed(self) -> bool:
        changed, self.changed = self.changed, False
        return changed

    def ask(self, data: bytes, replies: int = 1) -> list[dict[str, Any]]:
        with Dialogue(self.path) as client:
            client.send(data)
            self.run_until(lambda: count_replies(client) == replies)
            return [client.receive() for _ in range(replies)]

    def run_until(self, done: Callable[[], bool]) -> None:
        deadline = self.loop.time() + PATIENCE

        def look() -> None:
            if done() or self.loop.time() > deadline:
                self.loop.stop()
            else:
                self.loop.call_later(0.001, look)

        self.loop.call_soon(look)
        self.loop.run()

    def echo(self, **flags: bool) -> str:
        reply, = self.ask(message(ECHO, {"text": "x"}, **flags))
        return str(reply["parameters"]["text"])

    def close(self) -> None:
        self.server.close()
        self.loop.close()


def count_replies(client: Dialogue) -> int:
    there, _, _ = select.select([client.sock], [], [], 0)
    return client.sock.recv(65536, socket.MSG_PEEK).count(b"\0") if there else 0


def unread(client: Dialogue) -> int:
    """What the server has not read of what was sent, with what it takes in the kernel (unix(7), SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(client.sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(str(tmp_path / "socket"))
    yield world
    world.close()


def test_the_same_call_gets_the_same_reply_until_something_changes(world: World) -> None:
    assert [world.echo(), world.echo()] == ["x 1", "x 1"]
    world.changed = True
    assert [world.echo(), world.echo()] == ["x 2", "x 2"]


def test_an_error_is_kept_too_if_it_was_meant(world: World) -> None:
    call = message(ECHO, {"text": "x"})
    world.handlers.error = VarlinkError("org.example.test.No")
    assert {world.ask(call)[0]["error"] for _ in range(2)} == {"org.example.test.No"}
    assert world.handlers.asked == 1
    world.changed = True
    world.handlers.error = ZeroDivisionError("a bug")
    assert {world.ask(call)[0]["error"] for _ in range(2)} == {"io.systemd.System"}
    assert world.handlers.asked == 3


def test_a_known_reply_that_the_socket_does_not_take_leaves_later(world: World) -> None:
    call = message(ECHO, {"text": "x"})
    world.ask(call)
    with Dialogue(world.path) as client:
        world.run_until(lambda: world.server.connection_count == 1)
        connection, = world.server._connections()
        sent = 0
        while not connection.busy:
            client.send(call)
            sent += 1
            assert sent < 10_000, "a socket's buffer holds some hundreds"
            world.run_until(lambda: connection.busy or unread(client) == 0)
        for _ in range(sent):
            world.run_until(lambda: count_replies(client) > 0)
            assert client.receive()["parameters"]["text"] == "x 1"
        client.send(call)
        world.run_until(lambda: count_replies(client) > 0)
        assert client.receive()["parameters"]["text"] == "x 1"


def test_who_went_before_his_known_reply_is_forgotten(world: World) -> None:
    call = message(ECHO, {"text": "x"})
    world.ask(call)
    with Dialogue(world.path) as client:
        client.send(call)
    world.run_until(lambda: world.server.connection_count == 1)
    world.run_until(lambda: world.server.connection_count == 0)
    assert world.server.connection_count == 0
    assert world.echo() == "x 1"


def test_calls_in_one_piece_or_in_two_are_asked_anew(world: World) -> None:
    call = message(ECHO, {"text": "x"})
    assert [reply["parameters"]["text"] for reply in world.ask(2 * call, 2)] == ["x 1", "x 2"]
    with Dialogue(world.path) as client:
        client.send(call[:10])
        world.run_until(lambda: unread(client) == 0)
        client.send(call[10:])
        world.run_until(lambda: count_replies(client) == 1)
        assert client.receive()["parameters"]["text"] == "x 3"
    assert world.echo() == "x 4"


def test_what_wants_no_reply_or_several_is_done_each_time(world: World) -> None:
    for times in (1, 2):
        with Dialogue(world.path) as client:
            client.send(message(f"{INTERFACE.name}.Note", {"text": "x"}, oneway=True))
            world.run_until(lambda times=times: world.handlers.asked == times)      # type: ignore[misc]
    assert [world.echo(more=True), world.echo(more=True)] == ["x 3", "x 4"]


def test_memory_is_bounded() -> None:
    known = KnownReplies(lambda: False)
    for number in range(KNOWN_MAX + 1):
        assert known.get(b"%d" % number) is None
        known.keep(b"%d" % number, b"x")
    assert sum(known.get(b"%d" % number) is not None for number in range(KNOWN_MAX + 1)) == 1
    known.keep(b"long", b"x" * SIZE_MAX)
    assert known.get(b"long") is None


def test_core_errors_are_answered_each_time(world: World) -> None:
    world.handlers.error = NoSuchMachine("none")
    for _ in range(2):
        world.ask(message(ECHO, {"text": "x"}))
    assert world.handlers.asked == 2
