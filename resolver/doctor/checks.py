# SPDX-License-Identifier: MIT
"""All checks, in the order of a look-up's way; none keeps the others waiting."""

import signal
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

from resolver.doctor import caches, families, library, machined, nsswitch, path, services, sockets, strangers, table
from resolver.doctor.finding import Finding, Level

Check = Callable[[], Iterable[Finding]]

CHECKS: Mapping[str, Check] = {
    "caches": caches.check,
    "nsswitch": nsswitch.check,
    "library": library.check,
    "table": table.check,
    "daemon": services.check_daemon,
    "userdb": services.check_userdb,
    "hook": services.check_hook,
    "sockets": sockets.check,
    "machined": machined.check,
    "families": families.check,
    "strangers": strangers.check,
}
"""By the name that findings are given under."""

NAME_CHECK = "path"

CHECK_SECONDS = 30.0
"""For one check as a whole. Each of its waits has a deadline of its own; those of a name's path add up to 20."""


class CheckLate(BaseException):
    """Out of the alarm's handler: no check is to mistake it for an error of its own."""


def findings(name: str | None, wanted: Collection[str] = ()) -> Iterator[tuple[str, Finding]]:
    """What each check, or each `wanted` one, finds, by the check's name; with `name`, of that machine's path too.

    To be called in the main thread: a check that does not end is broken off by SIGALRM.
    """
    checks = dict(CHECKS)
    if name is not None:
        checks[NAME_CHECK] = lambda: path.check(name)
    for check, work in checks.items():
        if wanted and check not in wanted:
            continue
        found: list[Finding] = []
        try:
            with _deadline(CHECK_SECONDS):
                for finding in work():
                    found.append(finding)  # noqa: PERF402 - what was found by the deadline counts
        except CheckLate:
            found.append(Finding(Level.BROKEN, f"the check does not end within {CHECK_SECONDS} s",
                                 "what it asks hangs, and so may others who ask",
                                 f"mymachinesctl doctor --check={check}"))
        except OSError as error:
            found.append(Finding(Level.WARNING, f"it could not be checked: {error}",
                                 "whether this is in order is not known", f"mymachinesctl doctor --check={check}"))
        yield from ((check, finding) for finding in found)


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    def late(_number: int, _frame: object) -> None:
        raise CheckLate

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
