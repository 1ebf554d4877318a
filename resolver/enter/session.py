# SPDX-License-Identifier: MIT
"""A login prompt and a shell on a terminal of the machine's, each a service of its service manager
(org.freedesktop.systemd1(5), systemd.exec(5))."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from dbus_fast import Variant

from resolver.core.errors import NotAvailable
from resolver.enter.bus import Bus, CallFailed, connect
from resolver.enter.place import Place
from resolver.enter.terminal import Terminal, open_peer

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
        _start(unit, lambda: bus.call(SYSTEMD, SYSTEMD_PATH, MANAGER, "StartUnit", "ss", [unit, "replace"]))


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
        # The service manager holds the other end from now on. Whoever opened it by its path would, with a check or a
        # reset before the program starts, hang it up for its reader, and machinectl then ends.
        peer = open_peer(terminal)

        def start(properties: list[list[Any]]) -> list[Any]:
            return bus.call(SYSTEMD, SYSTEMD_PATH, MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))",
                            [unit, "fail", properties, []], descriptors=[peer])

        def start_what_it_knows() -> list[Any]:
            try:
                return start([*properties, *_NEWER])
            except CallFailed as error:
                if error.name not in _WRONG_PROPERTY:
                    raise
                return start(properties)

        try:
            _start(unit, start_what_it_knows)
        finally:
            os.close(peer)


def _start(unit: str, start: Callable[[], list[Any]]) -> None:
    """It is not waited for: a program that comes before who reads the terminal has no size for it yet."""
    try:
        start()
    except CallFailed as error:
        raise NotAvailable(f"{unit} cannot be started in the machine: {error}") from None


def _properties(terminal: Terminal, user: str, path: str, arguments: Sequence[str],
                environment: Sequence[str]) -> list[list[Any]]:
    # systemd would put variables in their place (systemd.service(5), Command Lines).
    escaped = [argument.replace("$", "$$") for argument in arguments]
    # No TTYReset=: the terminal is new, and a reset at the end throws away what has not been read yet.
    values: list[tuple[str, str, Any]] = [
        ("Description", "s", f"Shell for User {user}"),
        *((f"Standard{each}FileDescriptor", "h", 0) for each in ("Input", "Output", "Error")),  # the first that is sent
        ("TTYPath", "s", terminal.path),
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


_NEWER = [["CollectMode", Variant("s", "inactive-or-failed")]]
"""Of systemd 236: a service that failed is forgotten."""
