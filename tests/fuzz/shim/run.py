# SPDX-License-Identifier: MIT
"""Run fuzzers, and say what came of it."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.shim import seeds

ENVIRONMENT = {
    "ASAN_OPTIONS": "abort_on_error=0:detect_leaks=0:detect_stack_use_after_return=1:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
HANGS_AFTER = 20
"""Seconds for one input. An endless look-up is seen by its loads, long before."""

LENGTH_MAX = {"table": 228 + 4096, "reply": 148 + 8192}
"""Bytes of an input: what comes before it (scene.h), and the largest slot or packet."""


@dataclass(frozen=True)
class Outcome:
    found: bool
    runs: int
    seconds: float
    coverage: tuple[int, int] | None
    """Edges of the shim's code that were reached, and all."""
    log: str

    @property
    def speed(self) -> float:
        return self.runs / max(self.seconds, 0.001)

    @property
    def what(self) -> str:
        """The line that says what was found."""
        lines = [line for line in self.log.splitlines() if re.search(r"^wrong: |: runtime error: |ERROR: ", line)]
        return re.sub(r"^==\d+==\s*|^/\S*/|0x[0-9a-f]+ ?", "", lines[0]) if lines else self.log[-200:]


def fuzz(program: Path, target: str, folder: Path, *, seed: int, runs: int = 0, seconds: int = 0) -> Outcome:
    """Fuzz until something is found, or so many runs or seconds are over. The folder is made."""
    folder.mkdir()
    corpus = seeds.write(target, folder / "corpus")
    command = [
        program, corpus, f"-seed={seed}", f"-timeout={HANGS_AFTER}", f"-max_len={LENGTH_MAX[target]}", "-len_control=0",
        "-use_value_profile=1", "-print_final_stats=1", "-print_coverage=0", f"-artifact_prefix={folder}/",
        *([f"-runs={runs}"] if runs else []), *([f"-max_total_time={seconds}"] if seconds else []),
    ]  # fmt: skip
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env={**os.environ, **ENVIRONMENT}, cwd=folder, check=False,
    )  # fmt: skip
    return _outcome(done.returncode, done.stdout)


def _outcome(status: int, log: str) -> Outcome:
    runs = re.search(r"stat::number_of_executed_units:\s+(\d+)", log)
    return Outcome(status != 0, int(runs[1]) if runs else 0, 0.0, None, log)
