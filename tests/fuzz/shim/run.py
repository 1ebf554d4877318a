# SPDX-License-Identifier: MIT
"""Run fuzzers, and say what came of it."""

import os
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.shim import seeds
from tests.fuzz.shim.build import TARGETS, Builder
from tests.fuzz.shim.controls import CONTROLS, Control

ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
HANGS_AFTER = 20
"""Seconds for one input. An endless look-up is seen by its loads, long before."""

PROCESSES = 2
CONTROL_RUNS = 2_000_000
"""A lost check is found by then. The slowest takes a seventh of it."""

LENGTH_MAX = {"table": 228 + 4096, "reply": 148 + 8192}
"""Bytes of an input: what comes before it (scene.h), and the largest slot or packet."""


@dataclass(frozen=True)
class Outcome:
    found: bool
    runs: int
    seconds: float
    edges: tuple[int, int]
    """Of the shim's code: those that were reached, and all."""
    log: str

    @property
    def what(self) -> str:
        """The line that says what was found."""
        lines = [line for line in self.log.splitlines() if re.search(r"^wrong: |: runtime error: |ERROR: ", line)]
        return re.sub(r"^==\d+==\s*|^/\S*/| ?0x[0-9a-f]+", "", lines[0]) if lines else self.log[-500:]

    def __str__(self) -> str:
        speed = self.runs / max(self.seconds, 0.01)
        reached, edges = self.edges
        figures = f"{self.runs} runs in {self.seconds:.1f} s ({speed:.0f} a second), {reached} of {edges} edges"
        return f"{figures}: {self.what}" if self.found else figures


def fuzz(program: Path, target: str, folder: Path, *, seed: int, runs: int = 0, seconds: int = 0) -> Outcome:
    """Fuzz until something is found, or so many runs or seconds are over; 0: no limit. The folder is made.

    RuntimeError: the fuzzer ended without having said why.
    """
    folder.mkdir()
    corpus = seeds.write(target, folder / "corpus")
    command = [
        str(program), str(corpus), f"-seed={seed}", f"-timeout={HANGS_AFTER}", f"-max_len={LENGTH_MAX[target]}",
        "-len_control=0", "-print_final_stats=1", f"-artifact_prefix={folder}/",
        *([f"-runs={runs}"] if runs else []), *([f"-max_total_time={seconds}"] if seconds else []),
    ]  # fmt: skip
    began = time.monotonic()
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", env={**os.environ, **ENVIRONMENT}, cwd=folder, check=False,
    )  # fmt: skip
    counted = re.search(r"stat::number_of_executed_units:\s+(\d+)", done.stdout)
    if counted is None:
        raise RuntimeError(f"{program} ended with {done.returncode}: {done.stdout[-2000:]}")
    reached = re.findall(r" cov: (\d+) ", done.stdout) or [0]
    edges = re.search(r"\((\d+) PCs\)", done.stdout)
    covered = int(reached[-1]), int(edges[1]) if edges else 0
    return Outcome(done.returncode != 0, int(counted[1]), time.monotonic() - began, covered, done.stdout)


def fuzz_all(builder: Builder, folder: Path, *, seed: int, runs: int = 0, seconds: int = 0) -> dict[str, Outcome]:
    """Every target, two at a time."""

    def one(target: str) -> Outcome:
        return fuzz(builder.link(target), target, folder / target, seed=seed, runs=runs, seconds=seconds)

    with ThreadPoolExecutor(PROCESSES) as pool:
        return dict(zip(TARGETS, pool.map(one, TARGETS), strict=True))


def fuzz_controls(builder: Builder, folder: Path, *, seed: int) -> dict[str, Outcome]:
    """What the fuzzers say of each shim that lacks a check."""

    def one(control: Control) -> Outcome:
        program = builder.link(control.target, control)
        outcome = fuzz(program, control.target, folder / control.name, seed=seed, runs=CONTROL_RUNS)
        program.unlink()
        return outcome

    with ThreadPoolExecutor(PROCESSES) as pool:
        return dict(zip((control.name for control in CONTROLS), pool.map(one, CONTROLS), strict=True))
