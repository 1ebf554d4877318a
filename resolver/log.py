# SPDX-License-Identifier: MIT
"""Log to stderr, the way the journal reads it (sd-daemon(3))."""

import logging
import os
import sys

_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""syslog(3)'s, by the levels of logging."""


class _JournalFormatter(logging.Formatter):
    """`<priority>` before each line: each is an entry of its own to the journal, and a traceback has many."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def setup(program: str, level: int = logging.INFO) -> None:
    """Send the log to stderr from now on, from `level` up; with the program's name where it is not the journal."""
    handler = logging.StreamHandler(sys.stderr)
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
