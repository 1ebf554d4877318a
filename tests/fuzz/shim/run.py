# SPDX-License-Identifier: MIT
"""Fuzz the shim, whole and without each of its checks."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.libfuzzer import CONTROL_RUNS, Outcome, fuzz
from tests.fuzz.shim import seeds
from tests.fuzz.shim.build import TARGETS, Builder
from tests.fuzz.shim.controls import CONTROLS, Control

PROCESSES = 2

LENGTH_MAX = {"table": 228 + 4096, "reply": 148 + 8192}
"""Bytes of an input: what comes before it (scene.h), and the largest slot or packet."""


def fuzz_all(builder: Builder, folder: Path, *, seed: int, runs: int = 0, seconds: int = 0) -> dict[str, Outcome]:
    """Every target, two at a time."""

    def one(target: str) -> Outcome:
        return fuzz(builder.link(target), _seeds(target, folder / target), length_max=LENGTH_MAX[target], seed=seed,
                    runs=runs, seconds=seconds)

    with ThreadPoolExecutor(PROCESSES) as pool:
        return dict(zip(TARGETS, pool.map(one, TARGETS), strict=True))


def fuzz_controls(builder: Builder, folder: Path, *, seed: int) -> dict[str, Outcome]:
    """What the fuzzers say of each shim that lacks a check."""

    def one(control: Control) -> Outcome:
        program = builder.link(control.target, control)
        outcome = fuzz(program, _seeds(control.target, folder / control.name), length_max=LENGTH_MAX[control.target],
                       seed=seed, runs=CONTROL_RUNS)
        program.unlink()
        return outcome

    with ThreadPoolExecutor(PROCESSES) as pool:
        return dict(zip((control.name for control in CONTROLS), pool.map(one, CONTROLS), strict=True))


def _seeds(target: str, folder: Path) -> Path:
    """The folder is made."""
    folder.mkdir()
    return seeds.write(target, folder / "corpus")
