# SPDX-License-Identifier: MIT
"""What the service manager is told, and the journal."""

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

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


def logged(journal_stream: str | None) -> list[str]:
    reading, writing = os.pipe()
    status = os.fstat(writing)
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    if journal_stream is not None:
        environment["JOURNAL_STREAM"] = journal_stream.format(status.st_dev, status.st_ino)
    with os.fdopen(reading) as lines:
        try:
            subprocess.run([sys.executable, "-c", LOG], stderr=writing, env=environment, check=True, timeout=60)
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
