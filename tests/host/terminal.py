# SPDX-License-Identifier: MIT
"""A terminal with a program of the booted host on it."""

from collections.abc import Sequence
from pathlib import Path

from tests.lab import terminal
from tests.lab.terminal import COLUMNS, ROWS, SECONDS

from .booted import BootedHost

__all__ = ["COLUMNS", "ROWS", "SECONDS", "Terminal"]


class Terminal(terminal.Terminal):
    def __init__(self, host: BootedHost, argv: Sequence[str | Path] | str, *, uid: int = 0) -> None:
        super().__init__(host.words(argv, uid))
