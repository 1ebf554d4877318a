# SPDX-License-Identifier: MIT
"""The reader of netlink messages, fuzzed for some seconds; `make soak` has ten million runs."""

import random
import shutil
from pathlib import Path

import pytest

from build_nss import C_FOLDER, ROOT
from tests.fuzz.netlink.run import CONTROLS, fuzz_controls, fuzz_one
from tests.fuzz.shim.controls import Control

SECONDS = 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if shutil.which("clang") is None:
        pytest.skip("needs clang and libclang-rt-dev")
    return tmp_path / "fuzz"


@pytest.mark.slow
def test_nothing_is_found(folder: Path) -> None:
    seed = random.randrange(1, 1 << 31)
    outcome = fuzz_one(folder, seed=seed, seconds=SECONDS)
    assert not outcome.found, f"seed {seed}: {outcome.log}"
    assert outcome.runs > 1000
    assert outcome.edges[0] > 100, "most was refused at the door"


@pytest.mark.slow
def test_each_lost_check_is_found(folder: Path) -> None:
    outcomes = fuzz_controls(folder, seed=1)
    assert len(outcomes) == len(CONTROLS) > 15
    assert [name for name, outcome in outcomes.items() if not outcome.found] == []


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_a_control_takes_out_what_it_says(control: Control) -> None:
    text = (ROOT / C_FOLDER / control.file).read_text()
    assert control.apply(text) != text
