# SPDX-License-Identifier: MIT
"""The small loop: what is ready, in which order; timers; signals."""

import os
import signal
import socket
from collections.abc import Iterator
from functools import partial

import pytest

from resolver.varlink.loop import EpollLoop


@pytest.fixture
def loop() -> Iterator[EpollLoop]:
    loop = EpollLoop()
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
