# SPDX-License-Identifier: MIT
"""Copies of the project with one bug put in: what looks for bugs must find it there."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).parents[2]


class Bug(NamedTuple):
    """In `file`, below the project: `new` in place of `old`, which is there once."""

    file: str
    old: str
    new: str


@contextmanager
def mutant(bug: Bug) -> Iterator[Path]:
    """A folder with both packages, that bug in one of them: for PYTHONPATH. The bytecode is the copy's own."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        Path(folder).chmod(0o755)
        for package in ("resolver", "machine_images"):
            shutil.copytree(PROJECT / package, Path(folder, package), ignore=shutil.ignore_patterns("__pycache__"))
        path = Path(folder, bug.file)
        text = path.read_text()
        assert text.count(bug.old) == 1, f"{bug.file} has changed: {bug.old!r} is there {text.count(bug.old)} times"
        path.write_text(text.replace(bug.old, bug.new))
        yield Path(folder)
