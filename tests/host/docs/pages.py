# SPDX-License-Identifier: MIT
"""What a page has its reader type, and what it shows as the answer.

A command is an indented line that begins with `$ `; lines below it, up to the next command or a blank line, are its
output. A block behind `<!-- not run: REASON -->` is not run.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
INDENT = "    "


@dataclass
class Step:
    """`line` counts from 1. `output` is empty where the page shows none."""

    line: int
    command: str
    output: list[str] = field(default_factory=list)

    def pattern(self) -> str:
        """What the output must be like: numbers are any numbers, times and addresses too; blanks are any blanks."""
        return r"\s*".join(like(line) for line in self.output) + r"\s*\Z"


def steps(page: Path) -> list[Step]:
    """The commands of a page that are run."""
    found: list[Step] = []
    skipping = in_output = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if NOT_RUN.fullmatch(line.strip()):
            skipping = True
        elif line.strip() and not line.startswith(INDENT):
            skipping = in_output = False
        elif line.startswith(f"{INDENT}$ ") and not skipping:
            found.append(Step(number, line.removeprefix(f"{INDENT}$ ")))
            in_output = True
        elif line.startswith(INDENT) and in_output:
            found[-1].output.append(line.removeprefix(INDENT))
    return found


def like(line: str) -> str:
    """A regular expression for lines that differ in numbers and blanks alone."""
    parts = re.split(r"(\d+(?:\.\d+)*|\s+)", line.strip())
    return "".join(r"[\d.]+" if part[:1].isdigit() else r"\s+" if part.isspace() else re.escape(part) for part in parts)
