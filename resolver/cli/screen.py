# SPDX-License-Identifier: MIT
"""A terminal taken over for a live view, and given back whatever happens. Control sequences: ECMA-48, xterm's."""

import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from resolver.cli.output import colours_wanted
from resolver.cli.top_view import Line

ENTER = "\x1b[?1049h\x1b[?25l"    # the other screen, where nothing scrolls away; no cursor
LEAVE = "\x1b[?25h\x1b[?1049l"
HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"

STYLES: Mapping[str, str] = {"head": "1", "title": "7", "away": "31;1"}
"""SGR parameters."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
ENDINGS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


class Ended(Exception):
    """A signal says to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Screen:
    """A context manager. Signals are told by wait(), in the caller's own time, so that none leaves half a screen."""

    def __enter__(self) -> Self:
        self._input = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before = None if self._input is None else termios.tcgetattr(self._input)
        self._wake, wakes = socket.socketpair()
        self._wakes = wakes
        for end in (self._wake, wakes):
            end.setblocking(False)
        self._handlers: dict[int, Any] = {number: signal.signal(number, _noted) for number in SIGNALS}
        self._wakeup = signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        try:
            self._take()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._give_back()
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._wake.close()
        self._wakes.close()

    def draw(self, lines: Iterable[Line]) -> None:
        """These and nothing else. They fit size()."""
        self._write(HOME + "\r\n".join(_styled(line) + CLEAR_LINE for line in lines) + CLEAR_BELOW)

    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
        return columns or 80, rows or 24    # 0: nobody has said; what terminals had when they were of glass

    def wait(self, descriptor: int | None, seconds: float) -> str:
        """Until the descriptor is readable, a key is pressed, the size has changed, or for that long.

        Gives the keys. Ended where a signal says so; stopped (^Z), it returns when it goes on.
        """
        poll = select.poll()
        for each in (self._wake.fileno(), descriptor, self._input):
            if each is not None:
                poll.register(each, select.POLLIN)
        ready = {number for number, _ in poll.poll(max(0.0, seconds) * 1000 + 1)}
        if self._wake.fileno() in ready:
            self._on_signals(self._wake.recv(4096))
        if self._input in ready and self._input is not None:
            keys = os.read(self._input, 64)
            if not keys:
                raise Ended(signal.SIGHUP)
            return keys.decode(errors="replace")
        return ""

    def _on_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number in ENDINGS:
                raise Ended(number)
            if number == signal.SIGTSTP:
                self._give_back()
                os.kill(os.getpid(), signal.SIGSTOP)
                self._take()

    def _take(self) -> None:
        if self._input is not None:
            tty.setcbreak(self._input)
        self._write(ENTER)

    def _give_back(self) -> None:
        try:
            self._write(LEAVE)
        except OSError:     # the terminal is gone
            return
        if self._input is not None and self._before is not None:
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _styled(line: Line) -> str:
    parameters = STYLES.get(line.style)
    return f"\x1b[{parameters}m{line.text}\x1b[0m" if parameters and colours_wanted() else line.text


def _noted(_number: int, _frame: object) -> None:
    """The wakeup descriptor tells wait()."""
