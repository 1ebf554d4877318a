# SPDX-License-Identifier: MIT
"""A user that nobody knows: glibc asks every module for him, so whoever is slow or mute shows."""

from collections.abc import Iterator

from resolver.doctor.children import CHILD_SECONDS, Late, ask_child
from resolver.doctor.finding import Finding, Level, ok

NAME = "mymachines-doctor-nobody"
"""No user of anybody's, it is hoped; that he should exist does no harm."""

SLOW_SECONDS = 0.5
"""Every command that meets an unknown owner of a file waits for that."""

_MEANING = "so long does each login and each `ls -l` wait that meets an unknown user or group"
_MEND = "mymachinesctl doctor --check=sockets --check=nsswitch"


def check() -> Iterator[Finding]:
    try:
        steps = ask_child("unknown", NAME)
    except Late as late:
        what = "a group" if late.steps else "a user"
        yield Finding(Level.BROKEN, f"looking up {what} that nobody knows does not end within {CHILD_SECONDS} s",
                      _MEANING, _MEND, CHILD_SECONDS)
        return
    for step in steps:
        if step.seconds > SLOW_SECONDS:
            yield Finding(Level.WARNING, f"looking up a {step.step} that nobody knows is slow", _MEANING, _MEND,
                          step.seconds)
        else:
            yield ok(f"a {step.step} that nobody knows is looked up at once", step.seconds)
    if len(steps) < 2:
        yield Finding(Level.BROKEN, "looking up a user that nobody knows crashes the process",
                      "a module of nsswitch.conf is broken", "getent -s MODULE passwd nobody-knows, for each MODULE")
