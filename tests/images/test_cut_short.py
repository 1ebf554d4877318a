# SPDX-License-Identifier: MIT
"""Operations that are ended half-way: there is the old state or the new, and what else is left is deleted."""

import json
import sys

import pytest

from tests.lab import PROJECT

from .conftest import MakePool

CASES = [("tmpfs", "clone directory"), ("tmpfs", "clone raw"), ("tmpfs", "rename directory"), ("tmpfs", "rename raw"),
         ("tmpfs", "remove directory"), ("tmpfs", "remove raw"), ("btrfs", "clone directory"),
         ("btrfs", "clone subvolume"), ("btrfs", "rename subvolume"), ("btrfs", "remove subvolume")]


@pytest.mark.parametrize("how", ["kill", "stop"])
@pytest.mark.parametrize(("file_system", "case"), CASES)
def test_at_each_step(make_pool: MakePool, file_system: str, case: str, how: str) -> None:
    pool = make_pool(file_system)
    done = pool.host.run([sys.executable, "-m", "tests.images.cut_short", case, how], cwd=PROJECT, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout)
    assert seen["old"] >= 10, seen      # it was ended at many steps
    assert seen["new"] > 0, seen        # before what comes after the rename
