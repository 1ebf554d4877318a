# SPDX-License-Identifier: MIT
"""python -m tests.bench [SECTION...]: what it all costs, beside what people use today. Prints one table of ratios.

Times are of this machine in this run; what carries over to another one are the ratios (docs/performance.md).
"""

import argparse
import compileall
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType

from tests.bench import (
    dns,
    section_events,
    section_lookups,
    section_registering,
    section_scale,
    section_starting,
    section_users,
)
from tests.bench.figures import Row
from tests.bench.programs import Programs
from tests.bench.record import Record, Section
from tests.bench.settings import Settings, miniature
from tests.bench.table import cells, for_terminal, summary
from tests.lab import PROJECT, Unavailable

SECTIONS: dict[str, ModuleType] = {
    "lookups": section_lookups, "users": section_users, "register": section_registering, "events": section_events,
    "start": section_starting, "scale": section_scale, "dns": dns,
}


PACKAGES = ("resolver", "machine_images")
ERROR_LENGTH = 2000
"""Of a failure, what is shown: a daemon's log of ten thousand machines is in it."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION",
                        help=f"of {', '.join(SECTIONS)}; without, all of them")
    parser.add_argument("--many", type=int, help="machines of `scale` (default: 10,000)")
    parser.add_argument("--networks", type=int, help="of these, with networks of their own (default: 1,000)")
    parser.add_argument("--rounds", type=int, help="pairs with each peer (default: 7)")
    parser.add_argument("--miniature", action="store_true", help="only to see that it runs: the figures mean nothing")
    parser.add_argument("--record", action="store_true",
                        help="write these sections to docs/: performance.json, the table of performance.md, plots")
    options = parser.parse_args()
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}")
    if options.record and options.miniature:
        parser.error("a miniature is not worth recording")
    if os.geteuid() != 0:
        print("the benchmark makes hosts and containers, which needs root", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as after ^C: nothing stays behind
    compile_packages()
    wanted = {name: SECTIONS[name] for name in options.sections or SECTIONS}
    failed: list[str] = []
    with Programs() as programs:
        settings = miniature(programs) if options.miniature else Settings(programs)
        changes = {name: value for name in ("many", "networks", "rounds") if (value := getattr(options, name))}
        sections = [measure(name, module, settings.but(**changes), failed) for name, module in wanted.items()]
    print("\n" + for_terminal((section.title, section.rows) for section in sections))
    print("\n" + summary(row for section in sections for row in section.rows))
    if options.record and not failed:
        record = Record.read()
        record.update(sections)
        record.write()
    return 1 if failed else 0


def compile_packages() -> None:
    """To byte code, as whoever installs them does: a checkout may have none, and then a start compiles as well."""
    for package in PACKAGES:
        compileall.compile_dir(PROJECT / package, quiet=1)


def measure(name: str, module: ModuleType, settings: Settings, failed: list[str]) -> Section:
    """Says each row as it comes: the whole takes some minutes. A section that fails keeps the rows before."""
    run: Callable[[Settings], Iterator[Row]] = module.run
    begin, load, rows = time.monotonic(), os.getloadavg()[0], []
    try:
        for row in run(settings):
            rows.append(row)
            print(f"{name:9}{time.monotonic() - begin:5.0f} s  " + "  ".join(filter(None, cells(row))), file=sys.stderr,
                  flush=True)
    except Unavailable as reason:
        print(f"{name}: left out from here on: {reason}", file=sys.stderr)
    except AssertionError as error:
        print(f"{name}: failed: {str(error)[:ERROR_LENGTH]}", file=sys.stderr)
        failed.append(name)
    return Section(name, module.TITLE, rows, time.monotonic() - begin, load)


if __name__ == "__main__":
    sys.exit(main())
