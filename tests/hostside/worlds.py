# SPDX-License-Identifier: MIT
"""Processes in namespaces of their own, and programs that run in one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.waiting import wait_for

PROJECT = Path(__file__).parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@contextmanager
def sleeper(*unshare: str) -> Iterator[int]:
    """The pid of a process in the new namespaces that unshare(1)'s options name."""
    with subprocess.Popen(["unshare", *unshare, "sleep", "1000"]) as process:
        try:
            # unshare becomes sleep when it has done all that was asked
            wait_for(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", what="unshare")
            yield process.pid
        finally:
            process.kill()


def in_net(pid: int, *command: str) -> str:
    """Run a command in the network namespace of a process."""
    return subprocess.run(["nsenter", "-t", str(pid), "-n", *command], check=True, capture_output=True, text=True,
                          timeout=30).stdout


def run_inside(unshare: list[str], *arguments: str) -> str:
    """Run inside.py in new namespaces, and return what it prints."""
    done = subprocess.run(["unshare", *unshare, sys.executable, str(Path(__file__).with_name("inside.py")), *arguments],
                          capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(PROJECT)})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
