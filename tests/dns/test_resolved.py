# SPDX-License-Identifier: MIT
"""The hook, asked by a real systemd-resolved: where MYMACHINES_TEST_RESOLVED names a tree with 259 or later."""

import os
import subprocess
import sys

import pytest

TREE = os.environ.get("MYMACHINES_TEST_RESOLVED")

SECONDS = 240
"""Twenty questions, of which those take long whose answer is awaited."""


@pytest.mark.skipif(TREE is None, reason="MYMACHINES_TEST_RESOLVED names no tree (tests/dns/resolved.py)")
def test_a_real_resolved_asks_the_hook() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.dns.resolved", str(TREE)], capture_output=True, text=True,
                          timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
