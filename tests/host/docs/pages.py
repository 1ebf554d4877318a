# SPDX-License-Identifier: MIT
"""What a page has its reader type and write, and what it shows as the answer.

A block is indented lines, blank ones between them included. A line of it that begins with `$ ` is a command; lines
below, up to the next command, are its output. A mark before a block says what else it is:

    <!-- not run: REASON -->            nobody types it here
    <!-- file: PATH, mode MODE -->      a whole file, which the reader is to make
    <!-- lines of: PATH -->             what he is to put at the end of a file
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

NOT_RUN = re.compile(r"<!-- not run: (?P<reason>.+) -->")
FILE = re.compile(r"<!-- (?P<kind>file|lines of): (?P<path>/[^ ,]+)(, mode (?P<mode>[0-7]{3}))? -->")
INDENT = "    "
PROMPT = "$ "

COMMANDS = frozenset([
    ".venv/bin/python", "apt", "apt-get", "chmod", "cp", "curl", "debootstrap", "dig", "echo", "getent", "grep",
    "id", "journalctl", "kill", "ldconfig", "lxc-create", "lxc-start", "lxc-stop", "machinectl", "make", "mkdir",
    "mymachines-dns", "mymachines-dns-publish", "mymachines-metrics", "mymachines-resolve-hook",
    "mymachines-userdb", "mymachinesctl", "mymachinesd", "ping", "pip", "ps", "pytest", "python", "python3",
    "resolvectl", "rm", "sed", "ssh", "sudo", "systemctl", "tee", "unshare", "userdbctl", "virsh",
])
"""First words of lines that a reader would take for something to type."""


@dataclass
class Step:
    """`line` counts from 1. `output` is empty where the page shows none."""

    line: int
    command: str
    output: list[str] = field(default_factory=list)

    def pattern(self) -> str:
        """What the output must be like: numbers are any numbers, times and addresses too; blanks are any blanks."""
        return r"\s*".join(like(line) for line in self.output) + r"\s*\Z"


@dataclass
class Written:
    """A file, or its last lines."""

    line: int
    path: str
    text: str
    mode: str
    whole: bool


@dataclass
class Block:
    """`lines` without the indentation. `mark` is the comment before it, empty where there is none."""

    line: int
    mark: str
    lines: list[str] = field(default_factory=list)

    def is_typed(self) -> bool:
        return any(line.startswith(PROMPT) for line in self.lines) and not NOT_RUN.fullmatch(self.mark)

    def is_unclear(self) -> bool:
        """Whether it has a command without a prompt, and no mark that says why."""
        return not self.mark and any(line.split()[:1] and line.split()[0] in COMMANDS for line in self.lines)

    def actions(self) -> Iterator[Step | Written]:
        if file := FILE.fullmatch(self.mark):
            yield Written(self.line, file["path"], "\n".join(self.lines) + "\n", file["mode"] or "644",
                          file["kind"] == "file")
        elif self.is_typed():
            yield from self._steps()

    def _steps(self) -> Iterator[Step]:
        step: Step | None = None
        for number, line in enumerate(self.lines, self.line):
            if line.startswith(PROMPT):
                if step is not None:
                    yield step
                step = Step(number, line.removeprefix(PROMPT))
            elif step is not None:
                step.output.append(line)
        if step is not None:
            yield step


def blocks(page: Path) -> Iterator[Block]:
    mark, block = "", None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith(INDENT):
            if block is None:
                block = Block(number, mark)
            # A blank line between: those behind the last line of a block are never appended.
            block.lines += [""] * (number - block.line - len(block.lines))
            block.lines.append(line.removeprefix(INDENT))
        elif line.strip():
            if block is not None:
                yield block
            block = None
            mark = line.strip() if NOT_RUN.fullmatch(line.strip()) or FILE.fullmatch(line.strip()) else ""
    if block is not None:
        yield block


def actions(page: Path) -> Iterator[Step | Written]:
    """All that the page has its reader do, one after the other."""
    for block in blocks(page):
        yield from block.actions()


def like(line: str) -> str:
    """A regular expression for lines that differ in numbers and blanks alone."""
    parts = re.split(r"(\d+(?:\.\d+)*|\s+)", line.strip())
    return "".join(r"[\d.]+" if part[:1].isdigit() else r"\s+" if part.isspace() else re.escape(part) for part in parts)
