# SPDX-License-Identifier: MIT
"""What a server needs of an event loop, and a small loop that gives just this.

asyncio's loop gives it too, and the daemon runs on that. A process without coroutines runs on EpollLoop: it starts
35 ms sooner and is 10 MB smaller.
"""

import heapq
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

Callback = Callable[[], object]

AWAY_SECONDS = 10e-6
"""A yield that takes longer gave the processor to somebody else: one for nothing takes 1 us."""

_FOR_READERS, _FOR_WRITERS = ~select.EPOLLOUT, ~select.EPOLLIN
"""EPOLLHUP and EPOLLERR are for whoever listens: read or write will tell them."""


class Timer(Protocol):
    def cancel(self) -> None: ...


class EventLoop(Protocol):
    """The part of asyncio.AbstractEventLoop that servers here use."""

    def add_reader(self, fd: int, callback: Callback, /) -> Any: ...
    def remove_reader(self, fd: int, /) -> bool: ...
    def add_writer(self, fd: int, callback: Callback, /) -> Any: ...
    def remove_writer(self, fd: int, /) -> bool: ...
    def call_soon(self, callback: Callback, /) -> Any: ...
    def call_later(self, delay: float, callback: Callback, /) -> Timer: ...
    def time(self) -> float: ...


class _Timer:
    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callback) -> None:
        self.when = when
        self.callback: Callback | None = callback

    def __lt__(self, other: "_Timer") -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        self.callback = None


class EpollLoop:
    """Callbacks for file descriptors, timers and signals, in one thread. An exception in one ends run().

    To fall asleep and be woken takes longer than a short answer. With `linger_seconds`, a loop whose last wait was no
    longer looks so long again before it sleeps; between looks whoever else wants the processor has it. So a client that
    asks one thing after the other finds it awake, and one who asks a single thing costs that time once. Where others do
    want the processor, it sleeps: the scheduler does not give it to them at each yield, and the client may be of them.
    """

    def __init__(self, linger_seconds: float = 0) -> None:
        self._linger_seconds = linger_seconds
        self._lingers = False  # whether the last wait was that short
        self._epoll = select.epoll()
        self._readers: dict[int, Callback] = {}
        self._writers: dict[int, Callback] = {}
        self._ready: deque[Callback] = deque()
        self._timers: list[_Timer] = []
        self._signals: dict[int, Callback] = {}
        self._wakeup: tuple[int, int] | None = None
        self._running = False

    def add_reader(self, fd: int, callback: Callback, /) -> None:
        self._change(fd, self._readers, callback)

    def remove_reader(self, fd: int, /) -> bool:
        return self._change(fd, self._readers, None)

    def add_writer(self, fd: int, callback: Callback, /) -> None:
        self._change(fd, self._writers, callback)

    def remove_writer(self, fd: int, /) -> bool:
        return self._change(fd, self._writers, None)

    def call_soon(self, callback: Callback, /) -> None:
        """In the next round, behind what is ready by then."""
        self._ready.append(callback)

    def call_later(self, delay: float, callback: Callback, /) -> Timer:
        timer = _Timer(self.time() + delay, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def time(self) -> float:
        return time.monotonic()

    def add_signal_handler(self, number: int, callback: Callback) -> None:
        """Run `callback` in the loop when the signal has come."""
        if self._wakeup is None:
            self._wakeup = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            signal.set_wakeup_fd(self._wakeup[1])
            self.add_reader(self._wakeup[0], self._on_signal)
        self._signals[number] = callback
        # Python writes the number to the pipe only for signals that it handles; what it then calls has nothing to do.
        signal.signal(number, lambda _number, _frame: None)

    def run(self) -> None:
        """Until stop()."""
        self._running = True
        reader, writer = self._readers.get, self._writers.get
        while self._running:
            for fd, event in self._wait():
                # Looked up now: an earlier callback of this round may have removed it.
                if event & _FOR_READERS and (callback := reader(fd)):
                    callback()
                if event & _FOR_WRITERS and (callback := writer(fd)):
                    callback()
            for _ in range(len(self._ready)):
                self._ready.popleft()()
            while self._timers and self._timers[0].when <= self.time():
                timer = heapq.heappop(self._timers)
                if timer.callback is not None:
                    timer.callback()

    def stop(self) -> None:
        self._running = False

    def close(self) -> None:
        """Give back the file descriptors and the signals."""
        for number in self._signals:
            signal.signal(number, signal.SIG_DFL)
        self._signals.clear()
        if self._wakeup is not None:
            signal.set_wakeup_fd(-1)
            for fd in self._wakeup:
                os.close(fd)
            self._wakeup = None
        self._epoll.close()

    def _wait(self) -> list[tuple[int, int]]:
        if (events := self._epoll.poll(0)) or self._ready:
            # No wait, so it says nothing of how soon the next comes. Who shares our processor finds us so: if we
            # lingered for that, he would wait until the scheduler takes it from us, some 20 yields later.
            return events
        began, lingered = time.monotonic(), self._lingers
        if lingered and (events := self._linger(began)):
            return events
        events = self._epoll.poll(self._timeout())
        # Being woken takes as long again.
        self._lingers = not lingered and time.monotonic() - began < 2 * self._linger_seconds
        return events

    def _linger(self, began: float) -> list[tuple[int, int]]:
        """What comes before the time is over, and before somebody else has had the processor."""
        look, yield_, now = self._epoll.poll, os.sched_yield, time.monotonic  # a shorter way to see what has come
        before, until = began, began + self._linger_seconds
        yield_()
        while (at := now()) < until and at - before < AWAY_SECONDS:
            if events := look(0):
                return events
            before = at
            yield_()
        return []

    def _timeout(self) -> float | None:
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        return max(0, self._timers[0].when - self.time()) if self._timers else None

    def _change(self, fd: int, callbacks: dict[int, Callback], callback: Callback | None) -> bool:
        was_there = fd in callbacks
        registered = fd in self._readers or fd in self._writers
        if callback is not None:
            callbacks[fd] = callback
        elif was_there:
            del callbacks[fd]
        events = (select.EPOLLIN if fd in self._readers else 0) | (select.EPOLLOUT if fd in self._writers else 0)
        if events and registered:
            self._epoll.modify(fd, events)
        elif events:
            self._epoll.register(fd, events)
        elif registered:
            self._epoll.unregister(fd)
        return was_there

    def _on_signal(self) -> None:
        assert self._wakeup is not None
        for number in os.read(self._wakeup[0], 64):
            if callback := self._signals.get(number):
                callback()
