# SPDX-License-Identifier: MIT
"""`mymachinesctl doctor`: what is wrong between a program and its answer, what that means, and what mends it."""

import argparse
import textwrap
from typing import Any

from resolver.cli.exit_codes import BROKEN, FAILED, WARNED
from resolver.cli.failures import Failure
from resolver.cli.output import coloured, print_json, printable
from resolver.doctor.checks import CHECKS, NAME_CHECK, findings
from resolver.doctor.finding import Finding, Level

CODES = {Level.OK: 0, Level.NOTE: 0, Level.WARNING: WARNED, Level.BROKEN: BROKEN}

COLOURS = {Level.OK: "32", Level.NOTE: "36", Level.WARNING: "33", Level.BROKEN: "31;1"}
"""SGR parameters (ECMA-48)."""

WIDTH = max(len(level.value) for level in Level)


def do_doctor(options: argparse.Namespace) -> int:
    """The exit code is that of the worst finding."""
    unknown = [check for check in options.check if check not in (*CHECKS, NAME_CHECK)]
    if unknown or (options.check == [NAME_CHECK] and options.name is None):
        raise Failure(FAILED, f"there is no check {', '.join(unknown) or 'of the path without a machine'};"
                      f" there are {', '.join(CHECKS)}, and {NAME_CHECK} for a machine")
    found: list[tuple[str, Finding]] = []
    for check, finding in findings(options.name, options.check):
        found.append((check, finding))
        if not options.json:
            _print(check, finding)
    if options.json:
        print_json([_fields(check, finding) for check, finding in found])
    else:
        _print_sum([finding.level for _, finding in found])
    return max(CODES[finding.level] for _, finding in found)


def _print(check: str, finding: Finding) -> None:
    level = coloured(f"{finding.level.value:{WIDTH}}", COLOURS[finding.level])
    took = f" ({_duration(finding.seconds)})" if finding.seconds is not None else ""
    print(f"{level}  {check}: {printable(finding.text)}{took}", flush=True)
    for label, text in (("means", finding.meaning), ("mend", finding.mend)):
        if text:
            print(textwrap.indent(f"{label}: {printable(text)}", " " * (WIDTH + 2)), flush=True)


def _print_sum(levels: list[Level]) -> None:
    counts = [f"{levels.count(level)} {level.value}" for level in reversed(Level) if level in levels]
    print(", ".join(counts))


def _duration(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _fields(check: str, finding: Finding) -> dict[str, Any]:
    fields = {"check": check, "level": finding.level.value, "text": finding.text, "meaning": finding.meaning,
              "mend": finding.mend, "seconds": finding.seconds}
    return {name: value for name, value in fields.items() if value not in ("", None)}
