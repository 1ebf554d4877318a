# SPDX-License-Identifier: MIT
"""python -m tests.fuzz.shim [--runs N] [--seconds S] [--seed N]: fuzz the shim, then the shims that lack a check.

Needs clang and libclang-rt-dev. An input that finds something is left in build/.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.fuzz.libfuzzer import keep, summary
from tests.fuzz.shim.build import Builder
from tests.fuzz.shim.run import fuzz_all, fuzz_controls


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
    print(summary(controls), f"(seed {arguments.seed})")
    return 1 if failed or not all(control.found for control in controls.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
