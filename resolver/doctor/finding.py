# SPDX-License-Identifier: MIT
"""What a check has found."""

import os
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """From good to bad."""

    OK = "ok"
    NOTE = "note"
    """Good to know; nothing is to be done."""
    WARNING = "warning"
    """Look-ups work, but later, slower or less than they should."""
    BROKEN = "broken"
    """Somebody does not get an answer that he should get, or waits for it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`text` is what was seen, `meaning` what it does to who looks something up, `mend` a command or a line to put.

    `seconds` is what the step took, where that is of interest.
    """

    level: Level
    text: str
    meaning: str = ""
    mend: str = ""
    seconds: float | None = None


def ok(text: str, seconds: float | None = None) -> Finding:
    return Finding(Level.OK, text, seconds=seconds)


def service_command(verb: str, unit: str) -> str:
    """The command that does it to one of the project's services, whoever manages services here."""
    if os.path.isdir("/run/systemd/system"):
        return f"systemctl {verb} {unit}"
    return f"start {unit} as root" if verb == "start" else f"end {unit} and start it again, as root"
