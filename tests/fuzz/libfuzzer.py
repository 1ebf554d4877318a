# SPDX-License-Identifier: MIT
"""Run a fuzzer that was linked with libFuzzer, and say what came of it."""

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from build_nss import ROOT

ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
HANGS_AFTER = 20
"""Seconds for one input. An endless look-up is seen by its loads, long before."""

CONTROL_RUNS = 2_000_000
"""A lost check is found by then. The slowest takes a seventh of it."""


@dataclass(frozen=True)
class Outcome:
    found: bool
    runs: int
    seconds: float
    edges: tuple[int, int]
    """Of the code that is fuzzed: those that were reached, and all."""
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


def fuzz(program: Path, corpus: Path, *, length_max: int, seed: int, runs: int = 0, seconds: int = 0) -> Outcome:
    """Fuzz until something is found, or so many runs or seconds are over; 0: no limit. `corpus` has the seeds; what
    finds something is left beside it.

    RuntimeError: the fuzzer ended without having said why.
    """
    folder = corpus.parent
    command = [
        str(program), str(corpus), f"-seed={seed}", f"-timeout={HANGS_AFTER}", f"-max_len={length_max}",
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


def keep(folder: Path) -> None:
    """Leave in build/ the inputs that found something."""
    for artifact in [*folder.glob("crash-*"), *folder.glob("timeout-*"), *folder.glob("oom-*")]:
        print(f"its input: {shutil.copy(artifact, ROOT / 'build')}")


def summary(controls: dict[str, Outcome]) -> str:
    """A line for each of those that lack a check, and one for all."""
    lines = [f"{'found' if outcome.found else 'MISSED'} without {name}: {outcome}"
             for name, outcome in controls.items()]
    runs = sorted(outcome.runs for outcome in controls.values())
    found = sum(outcome.found for outcome in controls.values())
    lines.append(f"{found} of {len(runs)} lost checks found, after {runs[len(runs) // 2]} runs in the middle and "
                 f"{runs[-1]} at most")
    return "\n".join(lines)
