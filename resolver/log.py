# SPDX-License-Identifier: MIT
"""Log to stderr, the way the journal reads it (sd-daemon(3)), and so that nobody who calls us can fill it.

journald takes 10,000 lines of a service in 30 s (journald.conf(5), RateLimitBurst=) and then none of any kind. So who
could have us write a line for each of his calls would silence all else. Of lines of one kind, which are those that one
place of the source writes, a few are written and the others counted.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import TextIO

_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""syslog(3)'s, by the levels of logging."""

LINES_MAX = 20
"""Of one kind in an interval: enough to see who does what. The daemon has some eighty kinds."""

INTERVAL_SECONDS = 30.0
"""journald's."""

KINDS_MAX = 512
"""Counted apart in an interval, so that memory stays bounded whatever libraries log; what comes then is one kind."""

EACH = frozenset({"resolver.manager", "resolver.entering", "resolver.guest.copying", "machine_images.images"})
"""Loggers whose lines are all written: they tell what those have done who may, and nobody is to hide that behind
other things of the kind."""


class Limit:
    """Which records are written. A value of the caller's clock goes with each."""

    def __init__(self) -> None:
        self._ends = 0.0
        self._counts: dict[tuple[str, str], int] = {}

    def admit(self, record: logging.LogRecord, now: float) -> Iterator[logging.LogRecord]:
        """What is to be written now that this record came: how many were left out, when an interval is over; itself or
        not. Nothing wakes up for it: where nothing more is said, the number is told when the process ends."""
        if now >= self._ends:
            yield from self.left_out()
            self._ends = now + INTERVAL_SECONDS
        if record.name in EACH:
            yield record
            return
        kind = record.name, str(record.msg).partition("\n")[0]
        if kind not in self._counts and len(self._counts) >= KINDS_MAX:
            kind = "", "of many kinds"
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        if count <= LINES_MAX:
            yield record
        elif count == LINES_MAX + 1:
            yield _record(kind, "More like this are left out for %.0f s: %s", self._ends - now, kind[1])

    def left_out(self) -> Iterator[logging.LogRecord]:
        """How many, once for each kind; counting begins anew."""
        counts, self._counts = self._counts, {}
        for kind, count in counts.items():
            if count > LINES_MAX:
                yield _record(kind, "%d like this were left out: %s", count - LINES_MAX, kind[1])


def _record(kind: tuple[str, str], text: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord(kind[0], logging.WARNING, "", 0, text, values, None)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes what its Limit admits; the last counts when the process ends (logging.shutdown())."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._limit = Limit()

    def emit(self, record: logging.LogRecord) -> None:
        for each in self._limit.admit(record, time.monotonic()):
            super().emit(each)

    def close(self) -> None:
        for each in self._limit.left_out():
            super().emit(each)
        super().close()


class _JournalFormatter(logging.Formatter):
    """`<priority>` before each line: each is an entry of its own to the journal, and a traceback has many."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def setup(program: str, level: int = logging.INFO) -> None:
    """Send the log to stderr from now on, from `level` up; with the program's name where it is not the journal."""
    handler = _Handler()
    if stderr_is_journal():
        handler.setFormatter(_JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter(f"{program}: %(levelname)s: %(message)s"))
    # What no line of ours says is not found out for each: where it was logged from, by whom (logging, "Optimization").
    logging._srcfile = None  # noqa: SLF001 - as its manual has it
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)


def stderr_is_journal() -> bool:
    """Whether stderr is the stream that JOURNAL_STREAM names (systemd.exec(5)): children inherit the variable alone."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
