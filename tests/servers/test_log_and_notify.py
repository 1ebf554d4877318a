# SPDX-License-Identifier: MIT
"""What the service manager is told, and the journal."""

import importlib
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from resolver.log import EACH, INTERVAL_SECONDS, KINDS_MAX, LINES_MAX, Limit
from resolver.notify import notify
from tests.servers.dialogue import PATIENCE

LOG = """
import logging
from resolver import log
log.setup("program")
logging.getLogger("x").debug("never")
logging.getLogger("x").info("two\\nlines")
logging.getLogger("x").warning("careful")
try:
    1 / 0
except ZeroDivisionError:
    logging.exception("failed")
"""


FLOOD = """
import logging
from resolver import log
log.setup("program")
for number in range(10_000):
    logging.getLogger("x").info("uid %d again", number)
logging.getLogger("x").warning("careful")
"""


def logged(journal_stream: str | None, program: str = LOG) -> list[str]:
    reading, writing = os.pipe()
    status = os.fstat(writing)
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    if journal_stream is not None:
        environment["JOURNAL_STREAM"] = journal_stream.format(status.st_dev, status.st_ino)
    with os.fdopen(reading) as lines:
        try:
            subprocess.run([sys.executable, "-c", program], stderr=writing, env=environment, check=True, timeout=60)
        finally:
            os.close(writing)
        return lines.read().splitlines()


def test_each_line_to_the_journal_has_its_priority() -> None:
    lines = logged("{}:{}")
    assert lines[:3] == ["<6>two", "<6>lines", "<4>careful"]
    assert lines[3] == "<3>failed"
    assert all(line.startswith("<3>") for line in lines[3:])


@pytest.mark.parametrize("journal_stream", [None, "1:1", "nonsense"])
def test_elsewhere_the_program_has_its_name(journal_stream: str | None) -> None:
    assert logged(journal_stream)[0] == "program: INFO: two"


def test_a_flood_of_one_kind_leaves_others_their_room() -> None:
    lines = logged("{}:{}", FLOOD)
    assert lines[:LINES_MAX] == [f"<6>uid {number} again" for number in range(LINES_MAX)]
    assert lines[LINES_MAX].startswith("<4>More like this are left out for ")
    assert lines[LINES_MAX + 1:] == ["<4>careful", f"<4>{10_000 - LINES_MAX} like this were left out: uid %d again"]


def said(limit: Limit, now: float, text: str, *values: object, name: str = "x") -> list[str]:
    record = logging.LogRecord(name, logging.INFO, "", 0, text, values, None)
    return [each.getMessage() for each in limit.admit(record, now)]


def test_what_was_left_out_is_told_with_the_next_line_after_the_interval() -> None:
    limit = Limit()
    lines = [said(limit, 100.0, "%d", number) for number in range(LINES_MAX + 5)]
    assert lines[:LINES_MAX] == [[str(number)] for number in range(LINES_MAX)]
    assert len(lines[LINES_MAX]) == 1
    assert lines[LINES_MAX + 1:] == [[]] * 4
    assert said(limit, 100.0, "another kind") == ["another kind"]
    assert said(limit, 100.0, "%d", 7, name="y") == ["7"]
    assert said(limit, 100.0 + INTERVAL_SECONDS, "new", name=min(EACH)) == ["5 like this were left out: %d", "new"]
    assert said(limit, 100.0 + INTERVAL_SECONDS, "%d", 1) == ["1"]


def test_what_those_do_who_may_is_always_told() -> None:
    limit = Limit()
    for name in EACH:
        assert importlib.import_module(name)._log.name == name
        lines = [said(limit, 1.0, "%d", number, name=name) for number in range(10 * LINES_MAX)]
        assert lines == [[str(number)] for number in range(10 * LINES_MAX)]


def test_kinds_without_end_are_one_kind() -> None:
    limit = Limit()
    lines = [said(limit, 1.0, f"kind {number}") for number in range(10 * KINDS_MAX)]
    assert sum(map(len, lines)) == KINDS_MAX + LINES_MAX + 1
    assert len(limit._counts) == KINDS_MAX + 1


@pytest.mark.parametrize("abstract", [False, True])
def test_notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name if abstract else name)
        manager.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name if abstract else name)
        assert notify("READY=1\nSTATUS=ready")
        assert manager.recv(100) == b"READY=1\nSTATUS=ready"


@pytest.mark.parametrize("address", [None, "", "vsock:2:1", "relative"])
def test_notify_nobody(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")


def test_notify_fails_in_the_log_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                       caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify("READY=1")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
