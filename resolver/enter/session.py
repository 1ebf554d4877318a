# SPDX-License-Identifier: MIT
"""A login prompt and a shell on a terminal of the machine's, each a service of its service manager
(org.freedesktop.systemd1(5), systemd.exec(5))."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from dbus_fast import Variant

from resolver.core.errors import NotAvailable
from resolver.enter.bus import BUS, BUS_PATH, Bus, CallFailed, connect
from resolver.enter.place import Place
from resolver.enter.terminal import Terminal

STARTED_SECONDS = 2.0
"""For the service manager to tell that the service has failed. It may be busy with booting, and start it later: then
the terminal is there, and whoever sits at it waits."""

SYSTEMD, SYSTEMD_PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
MANAGER = f"{SYSTEMD}.Manager"

OWN_SHELL = ("/bin/sh", ("-sh", "-c", 'exec "${SHELL:-/bin/sh}" -l'))
"""systemd sets SHELL to what the machine's own users database says (systemd.exec(5), SetLoginEnvironment=)."""

_WRONG_PROPERTY = {"org.freedesktop.DBus.Error.InvalidArgs", "org.freedesktop.DBus.Error.PropertyReadOnly",
                   "org.freedesktop.DBus.Error.UnknownProperty"}


def start_login(place: Place, terminal: Terminal, deadline: float) -> None:
    """A login prompt on the terminal, by container-getty@.service. NotAvailable, OSError."""
    with Bus(connect(place), deadline) as bus:
        unit = f"container-getty@{terminal.number}.service"
        _start(bus, unit, lambda: bus.call(SYSTEMD, SYSTEMD_PATH, MANAGER, "StartUnit", "ss", [unit, "replace"]),
               deadline)


def start_shell(place: Place, terminal: Terminal, user: str, path: str, arguments: Sequence[str],
                environment: Sequence[str], deadline: float) -> None:
    """A program on the terminal, as this user; without `path`, the user's own shell. NotAvailable, OSError.

    `arguments` begin with the name that the program is told it has.
    """
    if not path:
        path, arguments = OWN_SHELL
    with Bus(connect(place), deadline) as bus:
        unit = f"container-shell@{terminal.number}.service"
        properties = _properties(terminal, user, path, arguments or [path], environment)

        def start(properties: list[list[Any]]) -> list[Any]:
            return bus.call(SYSTEMD, SYSTEMD_PATH, MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))",
                            [unit, "fail", properties, []])

        def start_what_it_knows() -> list[Any]:
            try:
                return start([*properties, *_NEWER])
            except CallFailed as error:
                if error.name not in _WRONG_PROPERTY:
                    raise
                return start(properties)

        _start(bus, unit, start_what_it_knows, deadline)


def _start(bus: Bus, unit: str, start: Callable[[], list[Any]], deadline: float) -> None:
    """Start it, and see whether it fails at once."""
    try:
        bus.call(BUS, BUS_PATH, BUS, "AddMatch", "s",
                 [f"type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved'"])
        bus.call(SYSTEMD, SYSTEMD_PATH, MANAGER, "Subscribe")
        (job,) = start()
    except CallFailed as error:
        raise NotAvailable(f"{unit} cannot be started in the machine: {error}") from None
    until = min(deadline, time.monotonic() + STARTED_SECONDS)
    while (signal := bus.signal(until)) is not None:
        if signal.member == "JobRemoved" and len(signal.body) == 4 and signal.body[1] == job:
            if signal.body[3] not in ("done", "skipped"):
                raise NotAvailable(f"{unit} has failed in the machine ({signal.body[3]}); its journal says more")
            return


def _properties(terminal: Terminal, user: str, path: str, arguments: Sequence[str],
                environment: Sequence[str]) -> list[list[Any]]:
    # systemd would put variables in their place (systemd.service(5), Command Lines).
    escaped = [argument.replace("$", "$$") for argument in arguments]
    values: list[tuple[str, str, Any]] = [
        ("Description", "s", f"Shell for User {user}"),
        ("StandardInput", "s", "tty"),
        ("StandardOutput", "s", "tty"),
        ("StandardError", "s", "tty"),
        ("TTYPath", "s", terminal.path),
        ("TTYReset", "b", True),
        ("User", "s", user),
        ("PAMName", "s", "login"),
        ("WorkingDirectory", "s", "-~"),
        ("Environment", "as", list(environment)),
        ("UtmpIdentifier", "s", terminal.path.removeprefix("/dev/")),
        ("UtmpMode", "s", "user"),
        ("IgnoreSIGPIPE", "b", False),
        ("KillMode", "s", "mixed"),
        ("SendSIGHUP", "b", True),
        ("ExecStart", "a(sasb)", [[path, escaped, False]]),
    ]
    return [[name, Variant(signature, value)] for name, signature, value in values]


_NEWER = [["Type", Variant("s", "exec")], ["CollectMode", Variant("s", "inactive-or-failed")]]
"""Of systemd 240, and 236: a program that is not there is told at once, and a service that failed is forgotten."""
