# SPDX-License-Identifier: MIT
"""What `mymachinesctl top` shows, as lines that fit a screen. No input or output."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from resolver.cli.output import printable


class MachineRow(NamedTuple):
    """`memory` in bytes, None where it is not known; `exact` as resolver.host.usage has it. `rate`: events a second."""

    name: str
    machine_class: str
    addresses: Sequence[str]
    processes: int
    users: int
    memory: int | None
    exact: bool
    cut: bool
    rate: float | None


class UserRow(NamedTuple):
    name: str
    machine: str
    processes: int
    memory: int


class View(NamedTuple):
    machines: Sequence[MachineRow]
    users: Sequence[UserRow]
    clock: str
    rate: float | None
    connected: bool


class Line(NamedTuple):
    """`style`: head, title, away, or nothing."""

    text: str
    style: str = ""


MACHINE_HEADINGS = ("MACHINE", "CLASS", "PROCESSES", "USERS", "MEMORY", "EVENTS/S", "ADDRESSES")
USER_HEADINGS = ("USER", "MACHINE", "PROCESSES", "MEMORY")
RIGHT = {"PROCESSES", "USERS", "MEMORY", "EVENTS/S"}
"""Numbers."""

USERS_LEAST = 4
"""Lines that users keep of a screen that is full of machines: heading, two of them, and a blank."""


def lines(view: View, width: int | None = None, height: int | None = None) -> list[Line]:
    """All of it, or what fits `width` columns and `height` rows; what is left out is counted."""
    machines = [_cells(row) for row in sorted(view.machines, key=lambda row: (-(row.memory or 0), row.name))]
    users = [(row.name, row.machine, str(row.processes), memory_text(row.memory, True))
             for row in sorted(view.users, key=lambda row: (-row.memory, row.name))]
    if height is None:
        rows = [*_table(MACHINE_HEADINGS, machines, None), *([Line("")] if users else []),
                *_table(USER_HEADINGS, users, None)]
    else:
        room = max(0, height - 2)
        first = min(len(machines) + 1, room if not users else max(room - USERS_LEAST, room // 2))
        rows = _table(MACHINE_HEADINGS, machines, first)
        rest = room - len(rows) - 1
        if users and rest > 1:
            rows += [Line(""), *_table(USER_HEADINGS, users, rest)]
    found = [*_head(view), Line(""), *rows]
    return [Line(line.text[:width], line.style) for line in found[:height]]


def _head(view: View) -> Iterator[Line]:
    memory = memory_text(sum(row.memory or 0 for row in view.machines), all(row.exact for row in view.machines))
    parts = [view.clock, _count(len(view.machines), "machine"),
             _count(sum(row.processes for row in view.machines), "process"), memory]
    if view.rate is not None:
        parts.append(f"{view.rate:.1f} events/s")
    yield Line(", ".join(parts), "head") if view.connected else Line(f"mymachinesd is away; {', '.join(parts)}", "away")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 'es' if what.endswith('s') else 's'}"


def _cells(row: MachineRow) -> tuple[str, ...]:
    return (row.name, row.machine_class, f"{row.processes}{'+' if row.cut else ''}", str(row.users),
            "-" if row.memory is None else memory_text(row.memory, row.exact),
            "-" if row.rate is None else f"{row.rate:.1f}", ", ".join(row.addresses) or "-")


def memory_text(count: int, exact: bool) -> str:
    """In powers of 1024, three digits of it; with `~` where it is a sum in which shared pages count twice."""
    value, unit = float(count), "B"
    for larger in "KMGTP":
        if value < 1000:
            break
        value, unit = value / 1024, larger
    text = f"{value:.0f}{unit}" if unit == "B" or value >= 100 else f"{value:.1f}{unit}"
    return text if exact else f"~{text}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], height: int | None) -> list[Line]:
    """Columns as wide as the widest of those shown; the last line counts those for which there was no room."""
    if height is not None and height < 2:
        return []
    shown = rows if height is None or len(rows) < height else rows[:height - 2]
    cells = [headings, *(list(map(printable, row)) for row in shown)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    texts = ["  ".join(cell.rjust(width) if heading in RIGHT else cell.ljust(width)
                       for cell, width, heading in zip(row, widths, headings, strict=True)).rstrip() for row in cells]
    more = [Line(f"... and {len(rows) - len(shown)} more")] if len(shown) < len(rows) else []
    return [Line(texts[0], "title"), *map(Line, texts[1:]), *more]
