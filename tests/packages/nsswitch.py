# SPDX-License-Identifier: MIT
"""The program of the packages that edits nsswitch.conf, run as their scripts run it."""

import subprocess
from pathlib import Path

from tests.lab import PROJECT

PROGRAM = PROJECT / "debian" / "nsswitch"
SECONDS = 20.0      # takes a few milliseconds


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *words], capture_output=True, text=True, timeout=SECONDS)


def edit(verb: str, path: Path) -> bytes:
    """Edits a file; what is in it then. AssertionError where the program complains."""
    done = run(verb, path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return path.read_bytes()
