# SPDX-License-Identifier: MIT
"""The shim's fuzzers, for a minute; `make soak` has ten million runs of each."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from build_nss import C_FOLDER, ROOT
from tests.fuzz.shim.build import Builder
from tests.fuzz.shim.controls import CONTROLS, Control
from tests.fuzz.shim.run import fuzz_all, fuzz_controls

SECONDS = 30
"""Of each of the two, which run side by side: a minute together."""


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    if shutil.which("clang") is None:
        pytest.skip("needs clang and libclang-rt-dev")
    folder = tmp_path_factory.mktemp("fuzz")
    yield Builder(folder)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_nothing_is_found(builder: Builder, tmp_path: Path) -> None:
    seed = random.randrange(1, 1 << 31)
    for target, outcome in fuzz_all(builder, tmp_path, seed=seed, seconds=SECONDS).items():
        assert not outcome.found, f"{target}, seed {seed}: {outcome.log}"
        assert outcome.runs > 1000
        assert outcome.edges[0] > 150, "most was refused at the door"


@pytest.mark.slow
def test_each_lost_check_is_found(builder: Builder, tmp_path: Path) -> None:
    outcomes = fuzz_controls(builder, tmp_path, seed=1)
    assert len(outcomes) == len(CONTROLS) > 80
    assert [name for name, outcome in outcomes.items() if not outcome.found] == []


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_a_control_takes_out_what_it_says(control: Control) -> None:
    text = (ROOT / C_FOLDER / control.file).read_text()
    assert control.apply(text) != text


@pytest.mark.parametrize("text", ["", "if (a)\nif (a)\n"])
def test_a_check_that_is_not_there_once_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="not once"):
        Control("some", "table", "slot.c", "if (a)\n").apply(text)
