# SPDX-License-Identifier: MIT
"""How far a work on files has come."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

TELL_SECONDS = 1.0
"""Between two reports: far less than anybody's patience, far more than a report costs."""

CHANGED_MAX = 10
"""Paths that are kept of those that changed: enough to see what it was."""


def _nobody(_: "Progress") -> None: ...


@dataclass
class Progress:
    """Counts, and tells them to `tell`, at most every TELL_SECONDS and only where something was done meanwhile."""

    tell: Callable[["Progress"], None] = _nobody
    files: int = 0
    """Of every kind, directories too."""
    bytes: int = 0
    """Of content. Holes do not count."""
    changes: int = 0
    """Files that changed or vanished while they were read."""
    changed: list[str] = field(default_factory=list)
    """The first CHANGED_MAX of them."""
    _told: float = field(default_factory=time.monotonic)

    def advance(self, files: int = 0, count: int = 0) -> None:
        """`count` bytes, and so many files."""
        self.files += files
        self.bytes += count
        self.maybe_tell()

    def maybe_tell(self) -> None:
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS:
            self._told = now
            self.tell(self)

    def sign_of_life(self) -> "Progress":
        """For what counts for nothing, but takes its time. That nobody listens any more is no error there."""
        def tell(_: "Progress") -> None:
            with suppress(OSError):
                self.tell(self)

        return Progress(tell)

    def note_change(self, path: str) -> None:
        self.changes += 1
        if len(self.changed) < CHANGED_MAX:
            self.changed.append(path)

    def __str__(self) -> str:
        changes = f", {self.changes} of which changed meanwhile" if self.changes else ""
        return f"{self.files} files and {self.bytes} bytes{changes}"
