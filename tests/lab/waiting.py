# SPDX-License-Identifier: MIT
"""Waiting with a deadline."""

import select
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

FIRST_PAUSE = 0.001     # seconds; most events are there at the second look
LAST_PAUSE = 0.05       # a wait of seconds costs twenty looks each, and is noticed at most so late


at_each_look: Callable[[], None] = lambda: None  # noqa: E731 - processes.py puts its reaper here


class Unavailable(Exception):
    """This machine, or this user, cannot do what was asked of the lab. The argument says why."""


def wait_for(predicate: Callable[[], T], timeout: float = 10, what: str = "") -> T:
    """The first true value of `predicate`; AssertionError where none came within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = FIRST_PAUSE
    while not (value := predicate()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout} s for {what or predicate.__name__}; last seen: {value!r}")
        at_each_look()
        time.sleep(pause)
        pause = min(pause * 1.5, LAST_PAUSE)
    return value


class Lines:
    """The lines that a process writes to its standard output, each with a deadline."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._fd = process.stdout.fileno()
        self._process = process
        self._buffer = b""

    def next(self, timeout: float) -> str:
        """Raises EOFError where the process has closed its output, AssertionError at the deadline."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            if not select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"{self._process.args!r} said nothing for {timeout} s")
            chunk = self._process.stdout.read1(65536)  # type: ignore[union-attr]
            if not chunk:
                raise EOFError
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()
