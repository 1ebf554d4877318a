# SPDX-License-Identifier: MIT
"""The last run of each section, kept in docs/: performance.json, and what is made of it for the reader."""

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.figures import Row
from tests.bench.table import for_docs, summary
from tests.lab import PROJECT

JSON = PROJECT / "docs" / "performance.json"
PAGE = PROJECT / "docs" / "performance.md"
BEGIN, END = "<!-- begin: made by tests.bench -->\n", "<!-- end -->\n"


def this_machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    kernel = ".".join(platform.release().split(".")[:2])
    processor = models[0] if models else platform.machine()
    return f"Linux {kernel}, Python {platform.python_version()}, {os.cpu_count()} processors ({processor})"


@dataclass
class Section:
    name: str
    title: str
    rows: list[Row]
    seconds: float
    load: float
    """How many others wanted the processors when it began; much above 0, and times are theirs as well."""
    measured: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%d"))
    machine: str = field(default_factory=this_machine)

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "rows": [row.as_json() for row in self.rows]}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Section":
        return cls(**{**fields, "rows": [Row.from_json(row) for row in fields["rows"]]})


class Record:
    def __init__(self, sections: Iterable[Section]) -> None:
        self.sections = {section.name: section for section in sections}

    @classmethod
    def read(cls) -> "Record":
        if not JSON.exists():
            return cls([])
        return cls(Section.from_json(fields) for fields in json.loads(JSON.read_text()))

    def update(self, sections: Iterable[Section]) -> None:
        self.sections.update((section.name, section) for section in sections)

    def write(self) -> None:
        from tests.bench.plots import draw

        sections = list(self.sections.values())
        JSON.write_text(json.dumps([section.as_json() for section in sections], indent=1) + "\n")
        PAGE.write_text(with_table(PAGE.read_text(), sections))
        draw(sections)


def with_table(page: str, sections: list[Section]) -> str:
    """The page, with what stands between the marks made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    where = sorted({f"{section.measured}, {section.machine}" for section in sections})
    rows = [row for section in sections for row in section.rows]
    text = f"Measured {'; '.join(where)}. {summary(rows)}.\n\n"
    titled = ((f"{section.title} (load at the begin: {section.load:.1f})", section.rows) for section in sections)
    return before + BEGIN + text + for_docs(titled) + END + after
