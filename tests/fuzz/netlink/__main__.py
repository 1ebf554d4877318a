# SPDX-License-Identifier: MIT
"""python -m tests.fuzz.netlink [--runs N] [--seed N]: fuzz the reader of netlink messages, and those that lack a
check.

Needs clang and libclang-rt-dev. An input that finds something is left in build/.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.fuzz.libfuzzer import keep, summary
from tests.fuzz.netlink.run import fuzz_controls, fuzz_one

RUNS = 10_000_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.netlink", description="Fuzz the reader of netlink "
                                     "messages.")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1 << 31))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        outcome = fuzz_one(folder / "whole", seed=options.seed, runs=options.runs)
        print(f"netlink: {outcome}", flush=True)
        keep(folder / "whole")
        controls = fuzz_controls(folder, seed=options.seed)
    print(summary(controls), f"(seed {options.seed})")
    return 1 if outcome.found or not all(control.found for control in controls.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
