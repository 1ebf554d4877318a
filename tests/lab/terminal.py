# SPDX-License-Identifier: MIT
"""A terminal with a program on it, as a person has it: types, reads, changes its size."""

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from .processes import end

SECONDS = 20.0
"""For what is expected to appear, and for a program to end; takes a tenth of one."""

ROWS, COLUMNS = 33, 101     # what no program takes for granted

NOT_TEXT = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[@-_])")
"""Control sequences (ECMA-48): colours, titles, and what systemd says of where a program runs (OSC 3008)."""


class Terminal:
    """A context manager: starts the program, ends it. The program is the leader of the terminal's session."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._words = ["setsid", "--ctty", *argv]
        self._master = -1
        self._seen = b""

    def __enter__(self) -> Self:
        self._master, slave = os.openpty()
        self.resize(ROWS, COLUMNS)
        try:
            self.process = subprocess.Popen(self._words, stdin=slave, stdout=slave, stderr=slave)
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(slave)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        end(self.process)
        os.close(self._master)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def _read(self, patience: float) -> bool:
        """False where nobody has the terminal open any more, or nothing came."""
        if not select.select([self._master], [], [], max(0.0, patience))[0]:
            return False
        try:
            chunk = os.read(self._master, 65536)
        except OSError:     # EIO: nobody has it open
            return False
        self._seen += chunk
        return bool(chunk)

    @property
    def text(self) -> str:
        """What is on it and was not yet expected, lines ended by \\n alone."""
        return NOT_TEXT.sub(b"", self._seen).replace(b"\r", b"").decode(errors="replace")

    def expect(self, pattern: str, seconds: float = SECONDS) -> re.Match[str]:
        """Reads until `pattern` is there; forgets it and what is before. AssertionError where it does not come."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text)):
            assert self._read(deadline - time.monotonic()), \
                f"no {pattern!r} on the terminal: {self.text!r}; {self.process.poll()=}"
        self._seen = self.text[found.end():].encode()
        return found

    def wait(self, seconds: float = SECONDS) -> int:
        """The program's exit status, when all it wrote has been read. AssertionError at the deadline."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"{self.process.args!r} does not end: {self.text!r}"
            self._read(0.05)
        while self._read(0):
            pass
        return self.process.returncode
