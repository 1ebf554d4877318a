# SPDX-License-Identifier: MIT
"""The one table, for a terminal and for the docs."""

from collections.abc import Iterable, Sequence

from tests.bench.figures import Aim, Row

HEADINGS = ("what", "machines", "ours", "quietest", "99th p.", "peer", "theirs", "ratio", "aim", "met")


def number(value: float | None, unit: str = "") -> str:
    """Three digits, so many as a noisy machine can give."""
    if value is None:
        return ""
    digits = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{digits} {unit}".strip()


def as_ratio(value: float | None) -> str:
    """Ours by theirs: 0.83, 1.2, 1/9,600."""
    if value is None or value == 0:
        return ""
    return number(value) if value > 0.1 else f"1/{number(1 / value)}"


def aim_text(row: Row, aim: Aim) -> str:
    return number(aim.at_most, row.unit) if aim.of == "figure" else f"ratio {as_ratio(aim.at_most)}"


def verdict(row: Row, aim: Aim) -> str:
    if row.met(aim):
        return "yes"
    times = f"{number(row.measured(aim) / aim.at_most)} times" if aim.at_most else number(row.measured(aim), row.unit)
    return f"no: {times}"


def cells(row: Row) -> tuple[str, ...]:
    machines = "" if row.machines is None else f"{row.machines:,}"
    return (row.what, machines, number(row.ours, row.unit), number(row.quietest, row.unit), number(row.p99, row.unit),
            row.peer, number(row.theirs, row.unit), as_ratio(row.ratio),
            "; ".join(aim_text(row, aim) for aim in row.aims), "; ".join(verdict(row, aim) for aim in row.aims))


def for_terminal(sections: Iterable[tuple[str, Sequence[Row]]]) -> str:
    blocks = [(title, [cells(row) for row in rows]) for title, rows in sections]
    lines = [HEADINGS, *(line for _, block in blocks for line in block)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]

    def line(words: Sequence[str]) -> str:
        return "  ".join(word.ljust(width) for word, width in zip(words, widths, strict=True)).rstrip()

    text = [line(HEADINGS)]
    for title, block in blocks:
        text += ["", title, *map(line, block)]
    return "\n".join(text)


def for_docs(sections: Iterable[tuple[str, Sequence[Row]]]) -> str:
    text = []
    for title, rows in sections:
        text += [f"### {title}", "", f"| {' | '.join(HEADINGS)} |", "|" + " --- |" * len(HEADINGS)]
        text += [f"| {' | '.join(cells(row))} |" for row in rows] + [""]
    return "\n".join(text)


def summary(rows: Iterable[Row]) -> str:
    verdicts = [row.met(aim) for row in rows for aim in row.aims]
    return f"{sum(verdicts)} of {len(verdicts)} aims are met"
