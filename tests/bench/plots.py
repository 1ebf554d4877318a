# SPDX-License-Identifier: MIT
"""The figures as pictures, SVG in docs/, drawn from what was recorded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.figures import Row
from tests.bench.record import Section
from tests.lab import PROJECT

DOCS = PROJECT / "docs"
OURS, THEIRS = "#0b6e4f", "#b0b0b0"


def draw(sections: Sequence[Section], folder: Path = DOCS) -> list[Path]:
    """Returns the files. A plot whose rows were not measured is left alone."""
    rows = [row for section in sections for row in section.rows]
    by_name = {section.name: section.rows for section in sections}
    drawn = []
    for name, figure in (("lookups", bars(by_name.get("lookups", []))), ("users", lines(by_name.get("users", []))),
                         ("aims", aims(rows))):
        if figure is not None:
            path = folder / f"performance-{name}.svg"
            # Without these, each drawing of the same figures would be another file.
            figure.savefig(path, metadata={"Date": None, "Creator": None})
            drawn.append(path)
    return drawn


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"svg.hashsalt": "mymachines", "svg.fonttype": "none", "font.size": 9})
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def bars(rows: Sequence[Row]) -> Any:
    """Each look-up beside what it is compared with."""
    compared = [row for row in rows if row.theirs and not row.peer.startswith("ours")]
    if not compared:
        return None
    figure, axes = new_figure(8, 0.42 * len(compared) + 1)
    for place, row in enumerate(reversed(compared)):
        axes.barh(place + 0.2, row.ours, 0.36, color=OURS)
        axes.barh(place - 0.2, row.theirs, 0.36, color=THEIRS)
        axes.text(row.theirs, place - 0.2, f" {row.peer}", va="center", fontsize=7)
    axes.set_yticks(range(len(compared)), [row.what for row in reversed(compared)])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("microseconds, logarithmic (green: ours)")
    return figure


def lines(rows: Sequence[Row]) -> Any:
    """What a user record costs, by the number of machines."""
    series: dict[str, list[Row]] = {}
    for row in rows:
        if row.unit == "us" and row.theirs is not None:
            series.setdefault(row.what, []).append(row)
    if not series:
        return None
    figure, axes = new_figure(7, 4)
    for (what, points), style in zip(series.items(), ("-o", "--o", ":o"), strict=False):
        machines = [point.machines for point in points]
        axes.plot(machines, [point.ours for point in points], style, color=OURS, label=f"mymachines: {what}")
        axes.plot(machines, [point.theirs for point in points], style, color=THEIRS, label=f"machined: {what}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("machines")
    axes.set_ylabel("microseconds a record")
    axes.legend(frameon=False, fontsize=7)
    return figure


def aims(rows: Sequence[Row]) -> Any:
    """Each aim as a share of what is allowed: left of the line is met."""
    shares = [(f"{row.what} ({row.machines:,})" if row.machines else row.what, row.measured(aim) / aim.at_most, aim.of)
              for row in rows for aim in row.aims if aim.at_most]
    if not shares:
        return None
    figure, axes = new_figure(8, 0.2 * len(shares) + 1)
    for place, (_, share, of) in enumerate(reversed(shares)):
        axes.plot(max(share, 1e-4), place, "o" if of == "figure" else "D", markersize=4,
                  color=OURS if share <= 1 else "#c0392b")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(shares)), [what for what, *_ in reversed(shares)], fontsize=7)
    axes.grid(axis="y", linewidth=0.3)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("measured, as a share of the aim (circle: the figure, diamond: the ratio to the peer)")
    return figure
