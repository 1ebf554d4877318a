# SPDX-License-Identifier: MIT
"""One method call: what was said, and who said it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from dbus_fast import Message, MessageFlag

from resolver.authority import Subject
from resolver.core.errors import AccessDenied, NotAvailable
from resolver.dbus.connection import BUS, BUS_PATH, BusError, Connection
from resolver.dbus.errors import invalid_args
from resolver.dbus.reader import close_all

T = TypeVar("T")

CREDENTIALS_SECONDS = 5.0
"""For the bus to say who a caller is: it knows, and answers within a millisecond."""


class Call:
    """Owns the descriptors that came with the message, until close()."""

    def __init__(self, connection: Connection, message: Message) -> None:
        self.message = message
        self._connection = connection
        self.given: list[int] = []
        """Descriptors that go with the reply, and are closed behind it."""
        self._pidfds: list[int] = []
        self._subject: Subject | None = None

    @property
    def body(self) -> list[Any]:
        return self.message.body

    def descriptor(self, index: int) -> int:
        """The descriptor that a value of type h stands for; it stays the call's."""
        if not 0 <= index < len(self.message.unix_fds):
            raise invalid_args(f"There is no descriptor {index} with the message")
        return self.message.unix_fds[index]

    def give(self, descriptor: int) -> int:
        """Send a descriptor with the reply; it is the call's from here on. The value of type h that stands for it."""
        self.given.append(descriptor)
        return len(self.given) - 1

    async def subject(self) -> Subject:
        """Who calls, as the bus vouches for it; its pidfd is borrowed until close(). AccessDenied where nobody does."""
        if self._subject is None:
            self._subject = await self._ask()
        return self._subject

    async def while_listening(self, work: Coroutine[Any, Any, T]) -> T:
        """What the work gives; it is cancelled where the caller leaves the bus. NotAvailable then, for nobody."""
        sender = self.message.sender or ""
        task = asyncio.create_task(work)

        def on_owner_change(message: Message) -> None:
            if message.body[1:] == [sender, ""]:
                task.cancel()

        try:
            with self._connection.signals(BUS, BUS_PATH, BUS, "NameOwnerChanged", on_owner_change, sender):
                reply = await self._connection.call(BUS, BUS_PATH, BUS, "NameHasOwner", "s", [sender],
                                                    seconds=CREDENTIALS_SECONDS)
                if not reply.body[0]:  # it left before we listened
                    task.cancel()
                await asyncio.wait([task])
        except BusError as error:
            raise NotAvailable(f"the bus is gone: {error}") from None
        finally:
            task.cancel()
        if task.cancelled():
            raise NotAvailable("the caller has left the bus")
        return task.result()

    def close(self) -> None:
        close_all(self.message.unix_fds)
        close_all(self.given)
        close_all(self._pidfds)
        self.message.unix_fds, self.given, self._pidfds, self._subject = [], [], [], None

    async def _ask(self) -> Subject:
        sender = self.message.sender
        try:
            reply = await self._connection.call(BUS, BUS_PATH, BUS, "GetConnectionCredentials", "s", [sender],
                                                seconds=CREDENTIALS_SECONDS)
        except BusError as error:
            raise AccessDenied(f"the bus does not say who {sender} is: {error}") from None
        self._pidfds.extend(reply.unix_fds)
        said = {name: value.value for name, value in reply.body[0].items()}
        if "UnixUserID" not in said:
            raise AccessDenied(f"the bus does not know whose connection {sender} is")
        # ProcessFD came with dbus 1.16. Without it the number may be another process's by now, if the caller's process
        # has ended and left its connection to a child: the leader of a machine is then checked for its owner only.
        at = said.get("ProcessFD", -1)
        pidfd = self._pidfds[at] if 0 <= at < len(self._pidfds) else None
        return Subject(said["UnixUserID"], said.get("ProcessID", 0), pidfd, bus_name=sender,
                       interactive=bool(self.message.flags.value & MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION.value))
