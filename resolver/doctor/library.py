# SPDX-License-Identifier: MIT
"""Which libnss_mymachines.so.2 a fresh process loads: systemd's has the same name."""

import os
import re
from collections.abc import Iterator

from resolver.doctor.children import Late, ask_child, run
from resolver.doctor.finding import Finding, Level, ok
from resolver.table import TABLE_PATH

MARK = os.fsencode(TABLE_PATH)
"""Stands in our module alone: the path that it maps."""

LINKER_FIRST = "/etc/ld.so.conf.d/00-mymachines.conf"

LDCONFIG_SECONDS = 5.0


def check() -> Iterator[Finding]:
    try:
        steps = ask_child("loaded")
    except Late:
        yield Finding(Level.BROKEN, "loading libnss_mymachines.so.2 does not end", "every look-up hangs", "ldconfig")
        return
    found = steps[0].result if steps else None
    if not isinstance(found, str):
        error = steps[0].error if steps else "the process that loaded it crashed"
        yield Finding(Level.BROKEN, f"no libnss_mymachines.so.2 can be loaded: {error}",
                      "glibc passes over `mymachines` in nsswitch.conf", _mend() or "make install")
    elif not is_ours(found):
        yield Finding(Level.BROKEN, f"programs load {found}, which is not ours",
                      "it asks systemd-machined, or mymachinesd as if that were it, at each look-up",
                      _mend() or "make install")
    else:
        yield ok(f"programs load {found}")


def is_ours(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return MARK in file.read()
    except OSError:
        return False


def _mend() -> str:
    """Where ours is known to the linker behind another one: the folder that should be first."""
    try:
        listed, _ = run(["/sbin/ldconfig", "-p"], LDCONFIG_SECONDS)
    except OSError:
        return ""
    for path in re.findall(r"libnss_mymachines\.so\.2 .*=> (.*)", listed):
        if is_ours(path):
            return f"echo {os.path.dirname(path)} >{LINKER_FIRST} && ldconfig"
    return ""
