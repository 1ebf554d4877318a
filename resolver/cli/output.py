# SPDX-License-Identifier: MIT
"""Tables for people, JSON for programs."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def printable(text: object) -> str:
    """Text for a terminal: what others chose may hold control characters, and must not act on it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def coloured(text: str, parameters: str) -> str:
    """With these SGR parameters (ECMA-48) on a terminal, plain elsewhere and where NO_COLOR is set (no-color.org)."""
    return f"\x1b[{parameters}m{text}\x1b[0m" if colours_wanted() else text


def colours_wanted() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_json(value: object) -> None:
    """One JSON value, and a newline."""
    json.dump(value, sys.stdout, indent=2 if sys.stdout.isatty() else None)
    print()


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as their widest cell, the last one as long as it is."""
    lines = [list(headings), *([printable(cell) if cell not in (None, "") else "-" for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_fields(fields: Mapping[str, Any]) -> None:
    """A field a line; a list takes a line for each of its values. Empty ones are left out."""
    width = max(map(len, fields))
    for name, value in fields.items():
        values = value if isinstance(value, list | tuple) else [value]
        label = f"{name}:"
        for item in values:
            if item not in (None, ""):
                print(f"{label:>{width + 1}} {printable(item)}")
                label = ""
