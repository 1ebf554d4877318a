# SPDX-License-Identifier: MIT
"""Handlers that await."""

import pytest

from tests.lab.waiting import wait_for
from tests.servers.conftest import Serve
from tests.servers.dialogue import PATIENCE, Dialogue, Running, SlowHandlers, message


@pytest.fixture
def loop_kind() -> str:
    return "asyncio"


def slow(server: Running) -> SlowHandlers:
    assert isinstance(server.handlers, SlowHandlers)
    return server.handlers


def test_coroutines_answer_in_order(serve: Serve) -> None:
    server = serve()
    with Dialogue(server.path) as client:
        client.send(message("SlowEcho", {"text": "1", "wait": True}) + message("Echo", {"text": "2"})
                    + message("SlowFail") + message("SlowEcho", {"text": "3", "wait": False}))
        assert slow(server).waiting.wait(PATIENCE)
        server.call("Echo", {"text": "others are served meanwhile"})
        slow(server).proceed.set()
        assert client.receive() == {"parameters": {"text": "1"}}
        assert client.receive() == {"parameters": {"text": "2"}}
        assert client.receive() == {"error": "io.systemd.Machine.NoSuchMachine", "parameters": {}}
        assert client.receive() == {"parameters": {"text": "3"}}


def test_what_is_sent_while_one_awaits_is_not_read(serve: Serve) -> None:
    server = serve()
    with Dialogue(server.path) as client:
        client.send_call("SlowEcho", {"text": "1", "wait": True})
        assert slow(server).waiting.wait(PATIENCE)
        client.sock.setblocking(False)
        sent = 0
        try:
            while sent < 2**24:
                sent += client.sock.send(message("Echo", {"text": "x" * 1000}))
        except BlockingIOError:
            pass
        assert sent < 2**20
        slow(server).proceed.set()
        client.sock.settimeout(PATIENCE)
        assert client.receive() == {"parameters": {"text": "1"}}
        assert client.receive() == {"parameters": {"text": "x" * 1000}}


def test_an_async_generator(serve: Serve) -> None:
    server = serve()
    with Dialogue(server.path) as client:
        client.send_call("SlowCount", {"to": 3}, more=True)
        assert [client.receive() for _ in range(3)] == [
            {"parameters": {"number": 0}, "continues": True}, {"parameters": {"number": 1}, "continues": True},
            {"parameters": {"number": 2}}]
    assert server.call("SlowCount", {"to": 1}) == {"parameters": {"number": 0}}
    assert server.call("SlowCount", {"to": 2})["error"] == "org.varlink.service.ExpectedMore"
    assert server.call("SlowCount", {"to": 0})["error"] == "io.systemd.System"


def test_a_subscription_sends_at_once_and_ends_with_its_caller(serve: Serve) -> None:
    server = serve()
    with Dialogue(server.path) as client:
        client.send_call("Tick", more=True)
        assert client.receive() == {"parameters": {"number": 0}, "continues": True}
        slow(server).proceed.set()
        assert client.receive() == {"parameters": {"number": 1}, "continues": True}
        assert not server.handlers.ended.is_set()
    assert server.handlers.ended.wait(PATIENCE)
    wait_for(lambda: server.server.connection_count == 0, PATIENCE)


def test_a_call_is_carried_out_though_its_caller_has_gone(serve: Serve) -> None:
    server = serve()
    with Dialogue(server.path) as client:
        client.send_call("SlowEcho", {"text": "done", "wait": True})
        assert slow(server).waiting.wait(PATIENCE)
    slow(server).proceed.set()
    wait_for(lambda: server.handlers.notes == ["done"], PATIENCE)
    wait_for(lambda: server.server.connection_count == 0, PATIENCE)


def test_close_stops_what_awaits(serve: Serve) -> None:
    server = serve()
    with Dialogue(server.path) as waiting, Dialogue(server.path) as ticking:
        waiting.send_call("SlowEcho", {"text": "never", "wait": True})
        ticking.send_call("Tick", more=True)
        assert ticking.receive()
        assert slow(server).waiting.wait(PATIENCE)
        server.stop()
        waiting.closed_after()
        ticking.closed_after()
        assert server.handlers.ended.is_set()
        assert server.handlers.notes == []
