# SPDX-License-Identifier: MIT
"""Briefly what `python -m tests.soak.protocols` does at length."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.soak.mutant import mutant
from tests.soak.protocols.controls import CONTROLS
from tests.soak.protocols.inputs import INPUTS
from tests.soak.protocols.run import Found, run

CONTROL_SECONDS = 20.0
"""For a bug to be found. It takes a fraction of one second; what is not found takes all of it, once."""

PIECES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.2), st.binary(max_size=12)), min_size=1, max_size=5)
"""Changes: where, how much of what is there is left out, what is put in; both by parts of the whole."""


@pytest.mark.parametrize("name", INPUTS)
def test_hostile_bytes_are_an_answer_or_the_parsers_own_error(name: str) -> None:
    read, samples, change = INPUTS[name]
    for sample in samples:
        read(sample)

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(st.sampled_from(samples), st.none() | st.randoms(use_true_random=False), PIECES)
    def try_it(sample: bytes, dice: random.Random | None, pieces: list[tuple[float, float, bytes]]) -> None:
        if dice is not None:
            read(change(dice, sample))
            return
        data = bytearray(sample)
        for start, part, put in pieces:
            at = int(start * len(data))
            data[at:at + int(part * len(data))] = put
        read(bytes(data))

    try_it()


@pytest.mark.parametrize("name", CONTROLS)
def test_a_check_that_is_left_out_is_found(name: str) -> None:
    with mutant(CONTROLS[name]) as folder, pytest.raises(Found):
        run(name, CONTROL_SECONDS, guided=False, folder=folder)


def test_every_input_has_a_control() -> None:
    assert CONTROLS.keys() == INPUTS.keys()
