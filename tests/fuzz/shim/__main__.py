# SPDX-License-Identifier: MIT
"""python -m tests.fuzz.shim [--runs N] [--seconds S] [--seed N]: fuzz the shim, then the shims that lack a check.

Needs clang and libclang-rt-dev. An input that finds something is left in build/.
"""

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from build_nss import ROOT
from tests.fuzz.shim.build import Builder
from tests.fuzz.shim.run import Outcome, fuzz_all, fuzz_controls


def keep(folder: Path) -> None:
    for artifact in [*folder.glob("crash-*"), *folder.glob("timeout-*"), *folder.glob("oom-*")]:
        print(f"its input: {shutil.copy(artifact, ROOT / 'build')}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the shim: the table's reader and the client of nss.sock.")
    parser.add_argument("--runs", type=int, default=0, help="of each of the two")
    parser.add_argument("--seconds", type=int, default=0, help="for each of the two")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1 << 31))
    arguments = parser.parse_args()
    runs = arguments.runs or (0 if arguments.seconds else 10_000_000)
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        builder = Builder(folder)
        outcomes = fuzz_all(builder, folder, seed=arguments.seed, runs=runs, seconds=arguments.seconds)
        for target, outcome in outcomes.items():
            print(f"{target}: {outcome}", flush=True)
            if outcome.found:
                failed = True
                keep(folder / target)
        controls = fuzz_controls(builder, folder, seed=arguments.seed)
        for name, outcome in controls.items():
            print(f"{'found' if outcome.found else 'MISSED'} without {name}: {outcome}", flush=True)
        missed = [name for name, outcome in controls.items() if not outcome.found]
    print(summary(list(controls.values()), missed), f"(seed {arguments.seed})")
    return 1 if failed or missed else 0


def summary(outcomes: list[Outcome], missed: list[str]) -> str:
    runs = sorted(outcome.runs for outcome in outcomes)
    return (
        f"{len(outcomes) - len(missed)} of {len(outcomes)} lost checks found, after {runs[len(runs) // 2]} runs"
        f" in the middle and {runs[-1]} at most"
    )


if __name__ == "__main__":
    sys.exit(main())
