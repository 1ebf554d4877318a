# SPDX-License-Identifier: MIT
"""The README's picture, a terminal before and after: `python -m tests.picture >docs/terminal.svg`, as root.

Real commands on a real container, on a host of namespaces: without the daemon, and with it.
"""

import os
import re
import sys
import tempfile
from collections.abc import Sequence
from xml.sax.saxutils import escape

from tests.demo import USER, run_line, sleeper
from tests.lab import TestHost

COMMANDS = ("ping -n -c 1 web", "ls -l made-inside", "ps -o user:16,machine:8,comm -p {pid}")

CHARACTER, LINE, MARGIN, TITLE = 7.25, 18, 14, 30      # pixels, of a font of 12
COLUMNS = 68
FONT = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"


def typed(host: TestHost, pid: int, folder: str) -> list[str]:
    """Each command and what it prints, as a terminal has it."""
    lines: list[str] = []
    for command in COMMANDS:
        line = command.format(pid=pid)
        done = run_line(host.run, line, folder)
        lines += [f"$ {line}", *filter(None, (done.stdout + done.stderr).splitlines())]
    return lines


def pictures() -> tuple[list[str], list[str]]:
    with TestHost() as host, tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        web = host.container("web", scope="web.scope")
        web.exec(["touch", f"{folder}/made-inside"], uid=USER, gid=USER, check=True)
        with sleeper(web) as pid:
            before = typed(host, pid, folder)
            host.start_daemon()
            words = f"mymachinesctl register web --leader {web.leader} --interface ve-web"
            assert run_line(host.run, words, None).returncode == 0
            after = typed(host, pid, folder)
    return before, after


def svg(terminals: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Windows below each other, as wide as COLUMNS characters; longer lines are folded as a terminal does."""
    width = round(COLUMNS * CHARACTER) + 2 * MARGIN
    parts, top = [], 0
    for title, lines in terminals:
        rows = [line[at:at + COLUMNS] for line in lines for at in range(0, len(line), COLUMNS)]
        height = TITLE + len(rows) * LINE + MARGIN
        parts.append(f'<rect y="{top}" width="{width}" height="{height}" rx="8" fill="#1d2430"/>')
        parts += [f'<circle cx="{MARGIN + 16 * number}" cy="{top + 15}" r="5" fill="{colour}"/>'
                  for number, colour in enumerate(("#ec6a5e", "#f4bf4f", "#61c554"))]
        parts.append(f'<text x="{width / 2}" y="{top + 19}" fill="#9aa5b8" text-anchor="middle">{escape(title)}</text>')
        for number, row in enumerate(rows):
            colour = "#ffffff" if row.startswith("$ ") else "#c3cddd"
            y = top + TITLE + 14 + number * LINE
            parts.append(f'<text x="{MARGIN}" y="{y}" fill="{colour}" xml:space="preserve">{escape(row)}</text>')
        top += height + MARGIN
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top - MARGIN}" width="{width}" '
            f'height="{top - MARGIN}" font-family="{FONT}" font-size="12" role="img">')
    return "\n".join([head, "<title>A terminal before and after mymachines</title>", *parts, "</svg>", ""])


def main() -> int:
    before, after = pictures()
    if not re.search(r"vu-web-1000 +web +sleep", "\n".join(after)):
        print("the names are missing:", *after, sep="\n", file=sys.stderr)
        return 1
    print(svg([("before", before), ("after", after)]), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
