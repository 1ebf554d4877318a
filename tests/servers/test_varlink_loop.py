# SPDX-License-Identifier: MIT
"""The small loop: what is ready, in which order; timers; signals; when it sleeps."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial

import pytest

from resolver.varlink import loop as loop_module
from resolver.varlink.loop import AWAY_SECONDS, EpollLoop


@pytest.fixture(params=[0, 50e-6])
def loop(request: pytest.FixtureRequest) -> Iterator[EpollLoop]:
    loop = EpollLoop(request.param)
    yield loop
    loop.close()


def test_timers_run_in_order_and_cancelled_ones_do_not(loop: EpollLoop) -> None:
    ran: list[str] = []
    loop.call_later(0.02, lambda: ran.append("second"))
    loop.call_later(0.01, lambda: ran.append("first"))
    loop.call_later(0.0, lambda: ran.append("never")).cancel()
    loop.call_later(0.03, loop.stop)
    loop.call_soon(lambda: ran.append("at once"))
    loop.run()
    assert ran == ["at once", "first", "second"]


def test_what_is_called_soon_by_a_callback_waits_for_the_next_round(loop: EpollLoop) -> None:
    near, far = socket.socketpair()
    rounds: list[str] = []

    def again() -> None:
        rounds.append("soon")
        if len(rounds) < 6:
            loop.call_soon(again)
        else:
            loop.stop()

    with near, far:
        far.send(b"x")
        loop.add_reader(near.fileno(), lambda: rounds.append("ready"))
        loop.call_soon(again)
        loop.run()
        assert rounds == ["ready", "soon"] * 3
        assert loop.remove_reader(near.fileno())
        assert not loop.remove_reader(near.fileno())


def test_a_reader_removed_in_the_same_round_is_not_called(loop: EpollLoop) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    called: list[int] = []

    def first_come(index: int) -> None:
        called.append(index)
        for near, _ in pairs:
            loop.remove_reader(near.fileno())
        loop.stop()

    try:
        for index, (near, far) in enumerate(pairs):
            far.send(b"x")
            loop.add_reader(near.fileno(), partial(first_come, index))
        loop.run()
        assert len(called) == 1
    finally:
        for pair in pairs:
            for sock in pair:
                sock.close()


def test_reader_and_writer_of_one_descriptor(loop: EpollLoop) -> None:
    near, far = socket.socketpair()
    called: list[str] = []

    def on_readable() -> None:
        called.append("read")
        loop.stop()

    def on_writable() -> None:
        called.append("write")
        loop.remove_writer(near.fileno())
        far.close()

    with near, far:
        loop.add_reader(near.fileno(), on_readable)
        loop.add_writer(near.fileno(), on_writable)
        loop.run()
    assert called == ["write", "read"]


def test_signals_wake_it(loop: EpollLoop) -> None:
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    loop.call_soon(lambda: os.kill(os.getpid(), signal.SIGUSR1))
    loop.run()
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_what_comes_while_it_lingers_is_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others run when it yields: the second byte comes then, and else not at all."""
    loop, (near, far) = EpollLoop(linger_seconds=60), socket.socketpair()
    received: list[int] = []
    yielded: list[int] = []

    def others_run() -> None:
        yielded.append(len(received))
        if len(yielded) == 3:
            far.send(b"2")

    def on_readable() -> None:
        received.append(int(near.recv(1)))
        if received[-1] == 2:
            loop.stop()

    monkeypatch.setattr(os, "sched_yield", others_run)
    monkeypatch.setattr(loop_module, "AWAY_SECONDS", 60)
    with near, far:
        loop.call_later(0.001, lambda: far.send(b"1"))
        loop.add_reader(near.fileno(), on_readable)
        loop.call_later(30, loop.stop)
        loop.run()
    loop.close()
    assert received == [1, 2]
    assert yielded == [1, 1, 1]


def test_what_was_there_already_says_nothing_of_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It did not wait for it: who shares a processor with the caller finds it so, and is to give way at once."""
    loop, (near, far) = EpollLoop(linger_seconds=0.01), socket.socketpair()
    yielded: list[int] = []
    monkeypatch.setattr(os, "sched_yield", lambda: yielded.append(1))
    with near, far:
        far.send(b"1")
        loop.add_reader(near.fileno(), lambda: near.recv(1))
        loop.call_later(0.03, loop.stop)
        loop.run()
    loop.close()
    assert yielded == []


def test_it_sleeps_where_others_want_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = EpollLoop(linger_seconds=1)
    yielded: list[int] = []

    def others_run() -> None:
        yielded.append(1)
        time.sleep(2 * AWAY_SECONDS)

    monkeypatch.setattr(os, "sched_yield", others_run)
    loop.call_later(0.001, lambda: loop.call_later(0.001, loop.stop))
    loop.run()
    loop.close()
    assert yielded == [1]


def test_it_sleeps_where_nothing_came_while_it_lingered(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = EpollLoop(linger_seconds=0.01)
    looks = 0
    looks_by_then: list[int] = []

    def others_run() -> None:
        nonlocal looks
        looks += 1

    def once_more() -> None:
        looks_by_then.append(looks)
        if len(looks_by_then) < 4:
            loop.call_later(0.02, once_more)
        else:
            loop.stop()

    monkeypatch.setattr(os, "sched_yield", others_run)
    monkeypatch.setattr(loop_module, "AWAY_SECONDS", 60)
    loop.call_later(0, once_more)
    loop.run()
    loop.close()
    assert looks_by_then[1:] == looks_by_then[1:2] * 3
