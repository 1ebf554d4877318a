# SPDX-License-Identifier: MIT
"""The table: there, believed by readers, open to everybody, and the same as what the daemon says."""

import ipaddress
import os
import stat
import time
from collections.abc import Iterator

from resolver.core.names import name_key
from resolver.doctor.children import Late, ask_child
from resolver.doctor.finding import Finding, Level, ok, service_command
from resolver.table import TABLE_PATH
from resolver.table.reader import TableReader, TableUnavailable
from resolver.varlink import MACHINE_SOCKET
from resolver.varlink.client import Client
from resolver.varlink.errors import VarlinkError

DAEMON_SECONDS = 2.0
"""For the daemon to tell of all machines; 10,000 take less than one."""

COMPARISONS = 5
"""Machines change while the two are compared: a difference counts that is there each time."""

COMPARISON_PAUSE = 0.2

NAMED_MAX = 5
"""Machines that a finding names."""

_WITHOUT = "look-ups ask the daemon, which is slower, or end without an answer where it does not run"


def check() -> Iterator[Finding]:
    broken = _trouble_with_the_file()
    if broken is not None:
        yield broken
        return
    started = time.perf_counter()
    try:
        reader = TableReader()
        count = len(reader.names())
    except TableUnavailable as error:
        yield Finding(Level.BROKEN, f"{error}: it is damaged, of another version, or its daemon has gone", _WITHOUT,
                      service_command("restart", "mymachinesd"))
        return
    yield ok(f"{TABLE_PATH}: {count} names", time.perf_counter() - started)
    yield from _readable_by_all()
    yield from _as_the_daemon_says(reader)


def _trouble_with_the_file() -> Finding | None:
    try:
        status = os.lstat(TABLE_PATH)
    except FileNotFoundError:
        return Finding(Level.BROKEN, f"{TABLE_PATH} is not there", _WITHOUT, service_command("restart", "mymachinesd"))
    except OSError as error:
        return Finding(Level.BROKEN, f"{TABLE_PATH}: {error.strerror}", _WITHOUT,
                       f"chmod 755 {os.path.dirname(TABLE_PATH)}")
    if not stat.S_ISREG(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
        return Finding(Level.BROKEN, f"{TABLE_PATH} is not a file that root alone can write", "no reader believes it",
                       f"rm {TABLE_PATH}; {service_command('restart', 'mymachinesd')}")
    return None


def _readable_by_all() -> Iterator[Finding]:
    """As root: by a user without rights. Anybody else has just read it."""
    if os.geteuid() != 0:
        return
    try:
        [step] = ask_child("readable", TABLE_PATH)
    except (Late, ValueError):
        yield Finding(Level.WARNING, f"{TABLE_PATH}: reading it as another user does not end", _WITHOUT,
                      service_command("restart", "mymachinesd"))
        return
    if step.error is not None:
        yield Finding(Level.BROKEN, f"{TABLE_PATH} cannot be read by all users: {step.error}", _WITHOUT,
                      f"chmod 755 {os.path.dirname(TABLE_PATH)} && chmod 644 {TABLE_PATH}")


def _as_the_daemon_says(reader: TableReader) -> Iterator[Finding]:
    different: set[str] | None = None
    try:
        for number in range(COMPARISONS):
            now = _different(reader)
            different = now if different is None else different & now
            if not different:
                yield ok("the table is what mymachinesd says")
                return
            if number + 1 < COMPARISONS:
                reader.wait(reader.generation(), COMPARISON_PAUSE)
    except (OSError, VarlinkError):
        yield Finding(Level.WARNING, "the table cannot be compared: mymachinesd does not say what it knows",
                      "look-ups give what was true when it last did", "mymachinesctl doctor --check=daemon")
        return
    except TableUnavailable as error:
        yield Finding(Level.BROKEN, f"{error}", _WITHOUT, service_command("restart", "mymachinesd"))
        return
    named = sorted(different or ())
    more = f" and {len(named) - NAMED_MAX} others" if len(named) > NAMED_MAX else ""
    yield Finding(Level.BROKEN, f"the table and mymachinesd disagree about {', '.join(named[:NAMED_MAX])}{more}",
                  "look-ups give what is not so any more, or not yet", service_command("restart", "mymachinesd"))


def _different(reader: TableReader) -> set[str]:
    """Names of machines about which the two differ: whether they are there, or their addresses."""
    said: dict[str, list[str]] = {}
    with Client(MACHINE_SOCKET, DAEMON_SECONDS) as client:
        for reply in client.call_more("io.mymachines.Machines.Watch"):
            if reply.get("complete"):
                break
            said[reply["name"]] = reply["addresses"]
    different = {name for name, addresses in said.items() if _looked_up(reader, name) != addresses}
    # Labels and aliases lead to a machine as well: the name found counts.
    found = {host[0] for host in map(reader.host_by_name, reader.names()) if host is not None}
    keys = set(map(name_key, said))
    return different | {name for name in found if name_key(name) not in keys}


def _looked_up(reader: TableReader, name: str) -> list[str] | None:
    found = reader.host_by_name(name)
    if found is None:
        return None
    return [str(ipaddress.ip_address(address.packed)) for address in found[1] if not address.scoped]
