# SPDX-License-Identifier: MIT
"""resolver.authority.Authority by polkit (its D-Bus interface org.freedesktop.PolicyKit1.Authority)."""

import asyncio
import itertools
import os
from collections.abc import Mapping
from typing import Any

from dbus_fast import Message, Variant

from resolver.authority import Subject
from resolver.core.errors import AccessDenied, AuthenticationRequired
from resolver.dbus.connection import NO_ANSWER, BusError, Connection
from resolver.host.process import NoSuchProcess, Process

POLKIT = "org.freedesktop.PolicyKit1"
PATH = "/org/freedesktop/PolicyKit1/Authority"
AUTHORITY = f"{POLKIT}.Authority"
ACTION_PREFIX = "org.freedesktop.machine1."

ANSWER_SECONDS = 25.0
"""For polkit to decide by its rules: D-Bus's usual patience, for polkit may have to be started first."""

PASSWORD_SECONDS = 150.0
"""For a person to find and type a password; polkit's agents give up earlier. Nobody else waits meanwhile."""

NEAREST = {"register-machine": "create-machine"}
"""What to ask about where polkit does not know an action. register-machine came with systemd 259."""

_FAILED = f"{POLKIT}.Error.Failed"
_ALLOW_USER_INTERACTION = 1


class Polkit:
    """Asks polkit. root is never asked about; where no polkit runs, nobody else may change anything."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)

    async def check(self, subject: Subject, action: str, details: Mapping[str, str]) -> None:
        """See Authority."""
        if subject.privileged:
            return
        if not self._connection.unique_name:
            raise AccessDenied(f"only root may do this while there is no system bus ({action})")
        try:
            try:
                reply = await self._ask(subject, action, details)
            except BusError as error:
                # polkit has one error for everything. An action that it does not know is the usual cause; whatever
                # it was, the answer about the nearest action counts.
                if error.name != _FAILED or action not in NEAREST:
                    raise
                reply = await self._ask(subject, NEAREST[action], details)
        except BusError as error:
            raise AccessDenied(f"polkit cannot be asked, so only root may do this ({action}: {error})") from None
        authorized, challenge = bool(reply.body[0][0]), bool(reply.body[0][1])
        if authorized:
            return
        if challenge:
            raise AuthenticationRequired(f"interactive authentication is needed ({action})")
        raise AccessDenied(f"polkit does not allow this ({action})")

    async def _ask(self, subject: Subject, action: str, details: Mapping[str, str]) -> Message:
        kind, values, descriptors = _polkit_subject(subject)
        cancellation = f"mymachines-{next(self._numbers)}" if subject.interactive else ""
        try:
            return await self._connection.call(
                POLKIT, PATH, AUTHORITY, "CheckAuthorization", "(sa{sv})sa{ss}us",
                [[kind, values], ACTION_PREFIX + action, dict(details),
                 _ALLOW_USER_INTERACTION if subject.interactive else 0, cancellation],
                descriptors, PASSWORD_SECONDS if subject.interactive else ANSWER_SECONDS)
        except (BusError, asyncio.CancelledError) as error:
            # Nobody waits for the password any more.
            if cancellation and (isinstance(error, asyncio.CancelledError) or error.name == NO_ANSWER):
                self._connection.send(Message(destination=POLKIT, path=PATH, interface=AUTHORITY, signature="s",
                                              member="CancelCheckAuthorization", body=[cancellation]))
            raise


def _polkit_subject(subject: Subject) -> tuple[str, dict[str, Variant], list[int]]:
    """Its kind, what tells it apart, and descriptors."""
    if subject.bus_name is not None:
        return "system-bus-name", {"name": Variant("s", subject.bus_name)}, []
    # By a number alone polkit might look at another process. The start time is that of the process that is held.
    try:
        with Process.from_pidfd(os.dup(subject.pidfd)) if subject.pidfd is not None else Process.open(
                subject.pid) as process:
            start_time = process.start_time()
    except NoSuchProcess:
        raise AccessDenied("the process that asked has gone") from None
    values: dict[str, Any] = {"pid": Variant("u", subject.pid), "start-time": Variant("t", start_time),
                              "uid": Variant("i", subject.uid)}
    if subject.pidfd is not None:
        values["pidfd"] = Variant("h", 0)  # polkit 124; those before pass over what they do not know
        return "unix-process", values, [subject.pidfd]
    return "unix-process", values, []
