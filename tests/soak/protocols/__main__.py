# SPDX-License-Identifier: MIT
"""python -m tests.soak.protocols [SECONDS]: hostile input for each parser and, as root, for the real servers.

SECONDS of each, and for each control at the most. Ends with 1 where something was found, or a control was not.
"""

import argparse
import os
import sys
from collections.abc import Callable

from tests.soak.mutant import mutant
from tests.soak.protocols import run, wire
from tests.soak.protocols.controls import CONTROLS

SECONDS = 30.0


def parsers(seconds: float) -> int:
    reason = run.guidance()
    print(f"Parsers, {reason or 'guided by coverage (atheris)'}:")
    failures = 0
    for name, bug in CONTROLS.items():
        try:
            outcome = run.run(name, seconds, guided=not reason)
            print(f"  {name:16} {outcome.runs:9} runs in {outcome.seconds:.0f} s"
                  + (f", {outcome.covered} edges" if outcome.covered else ""), flush=True)
        except run.Found as found:
            failures += 1
            print(f"  {name:16} FOUND: {found}", flush=True)
        with mutant(bug) as folder:
            try:
                run.run(name, seconds, guided=not reason, folder=folder)
            except run.Found:
                continue
            failures += 1
            print(f"  {name:16} NOT FOUND: {bug}", flush=True)
    print(f"  {len(CONTROLS)} copies with a check left out were tried too")
    return failures


def servers(seconds: float) -> int:
    print("The real servers, calls of an unprivileged user:")
    failures = 0
    for kind in wire.CONTROLS:
        try:
            figures = wire.attack(kind, seconds)
            memory = ", ".join(f"{door} {before / 2**20:.1f} to {after / 2**20:.1f} MB"
                               for door, (before, after) in figures["memory"].items())
            print(f"  {kind:8} {figures['calls']} calls of {figures['methods']} methods in {seconds:.0f} s, "
                  f"{len(figures['errors'])} kinds of answer; PSS {memory}", flush=True)
        except wire.Found as found:
            failures += 1
            print(f"  {kind:8} FOUND: {found}", flush=True)
        if not wire.control(kind, seconds):
            failures += 1
            print(f"  {kind:8} NOT FOUND: {wire.CONTROLS[kind]}", flush=True)
    print(f"  {len(wire.CONTROLS)} servers with a check left out were tried too")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.soak.protocols", description=__doc__)
    parser.add_argument("seconds", type=float, nargs="?", default=SECONDS, help="of each (default: %(default)s)")
    seconds = parser.parse_args().seconds
    parts: list[Callable[[float], int]] = [parsers]
    if os.geteuid() == 0:
        parts.append(servers)
    else:
        print("Not as root: without the real servers")
    return 1 if sum(part(seconds) for part in parts) else 0


if __name__ == "__main__":
    sys.exit(main())
