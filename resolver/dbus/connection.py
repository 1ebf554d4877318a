# SPDX-License-Identifier: MIT
"""The one connection to the system bus: there when the bus is, back again after the bus restarts.

The daemon never waits for it. Without a bus, names and Varlink are served all the same.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dbus_fast import Message, MessageFlag, MessageType

from resolver.dbus.reader import ProtocolError, Received, close_all
from resolver.dbus.transport import SYSTEM_BUS, Transport, open_socket

CALL_SECONDS = 25.0
"""For an answer to a call of ours, where nothing else is said: what D-Bus libraries wait by default."""

CONNECT_SECONDS = 5.0
"""For the bus to take us in: a millisecond, unless it has hung."""

START_SECONDS = 2.0
"""That the daemon's start waits for the bus. It goes on without, and the bus has us when it is there."""

RETRY_FIRST_SECONDS = 0.1
RETRY_LAST_SECONDS = 10.0
"""Between attempts to connect: a bus that restarts is back within a second, one that is not there costs nothing."""

BUS = "org.freedesktop.DBus"
BUS_PATH = "/org/freedesktop/DBus"

_IN_QUEUE = 2  # reply of RequestName (D-Bus specification): another has the name, we have it after them

_log = logging.getLogger(__name__)


class BusError(Exception):
    """An error reply: its D-Bus name and text."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text or name)
        self.name = name


NO_ANSWER = f"{BUS}.Error.NoReply"
"""No answer in time, as D-Bus libraries say it."""
DISCONNECTED = f"{BUS}.Error.Disconnected"
"""There is no bus, or there is none any more."""

SignalHandler = Callable[[Message], None]


class Connection:
    """Owns `name` on the bus. Method calls go to `on_call`, whose the message's descriptors are from then on."""

    def __init__(self, name: str, address: str | None = None) -> None:
        """`address` is the bus's; without one DBUS_SYSTEM_BUS_ADDRESS, or where the system bus is by convention."""
        self._address = address or os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or SYSTEM_BUS
        self._name = name
        self.on_call: Callable[[Received], None] = _refuse
        self.unique_name: str | None = None
        """Ours, as the bus gave it; None while there is no bus."""
        self.owns_name = False
        self._transport: Transport | None = None
        self._serial = 0
        self._pending: dict[int, asyncio.Future[Message]] = {}
        self._handlers: dict[str, SignalHandler] = {}
        self._task: asyncio.Task[None] | None = None
        self._attempted = asyncio.Event()
        self._lost = asyncio.Event()

    # Start and stop.

    async def start(self) -> None:
        """Connect now, or as soon as there is a bus. Waits START_SECONDS at most, and never fails."""
        self._task = asyncio.create_task(self._keep_connected())
        try:
            await asyncio.wait_for(self._attempted.wait(), START_SECONDS)
        except TimeoutError:
            _log.warning("The bus at %s does not answer; D-Bus is served when it does", self._address)

    async def close(self) -> None:
        """Leave the bus, and with it its names."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._drop(EOFError("the daemon stops"))

    # Calls and signals.

    async def call(self, destination: str, path: str, interface: str, member: str, signature: str = "",
                   body: Sequence[Any] = (), descriptors: Sequence[int] = (),
                   seconds: float = CALL_SECONDS) -> Message:
        """The reply. BusError for an error reply, for no answer in time (NO_ANSWER), without a bus (DISCONNECTED).

        Descriptors of the reply are the caller's to close.
        """
        message = Message(destination=destination, path=path, interface=interface, member=member, signature=signature,
                          body=list(body), unix_fds=list(descriptors), serial=self._next_serial())
        if self._transport is None:
            raise BusError(DISCONNECTED, "there is no system bus")
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[message.serial] = answer
        try:
            self._transport.send(message)
            async with asyncio.timeout(seconds):
                reply = await answer
        except TimeoutError:
            raise BusError(NO_ANSWER, f"{destination} has not answered in {seconds:g} s") from None
        finally:
            self._pending.pop(message.serial, None)
        if reply.message_type is MessageType.ERROR:
            close_all(reply.unix_fds)
            raise BusError(reply.error_name or "", str(reply.body[0]) if reply.signature.startswith("s") else "")
        return reply

    def send(self, message: Message) -> None:
        """Send a reply or a signal; nothing happens where there is no bus. ValueError, TypeError as Transport.send."""
        if self._transport is not None:
            message.serial = self._next_serial()
            self._transport.send(message)

    def notify(self, member: str, signature: str = "", body: Sequence[Any] = ()) -> None:
        """Call a method of the bus itself whose answer tells nothing."""
        self.send(Message(destination=BUS, path=BUS_PATH, interface=BUS, member=member, signature=signature,
                          body=list(body), flags=MessageFlag.NO_REPLY_EXPECTED))

    async def owner_of(self, name: str) -> str:
        """The unique name behind a name, BusError where nobody has it. Starts a service that can be activated."""
        try:
            reply = await self.call(BUS, BUS_PATH, BUS, "GetNameOwner", "s", [name])
        except BusError as error:
            if error.name != f"{BUS}.Error.NameHasNoOwner":
                raise
            await self.call(BUS, BUS_PATH, BUS, "StartServiceByName", "su", [name, 0])
            reply = await self.call(BUS, BUS_PATH, BUS, "GetNameOwner", "s", [name])
        return str(reply.body[0])

    @contextmanager
    def signals(self, sender: str, path: str, interface: str, member: str, handle: SignalHandler,
                first: str | None = None) -> Iterator[None]:
        """Have `handle` called for these signals meanwhile. `sender` is a unique name: others may send lookalikes.

        `first`: only for those whose first argument is this text.
        """
        rule = f"type='signal',sender='{sender}',path='{path}',interface='{interface}',member='{member}'"
        if first is not None:
            rule += f",arg0='{first}'"

        def check(message: Message) -> None:
            said = message.sender, message.path, message.interface, message.member
            if said == (sender, path, interface, member) and first in (None, *message.body[:1]):
                handle(message)

        key = f"{rule},{id(check)}"
        self._handlers[key] = check
        # What is sent to the bus first, it does first: no need to wait for its answer.
        self.notify("AddMatch", "s", [rule])
        try:
            yield
        finally:
            del self._handlers[key]
            self.notify("RemoveMatch", "s", [rule])

    # Inside.

    def _next_serial(self) -> int:
        self._serial = self._serial % 0xFFFFFFFF + 1  # 0 is none (D-Bus specification, Header Fields)
        return self._serial

    async def _keep_connected(self) -> None:
        pause, told = RETRY_FIRST_SECONDS, ""
        while True:
            try:
                await self._connect()
            except (OSError, ProtocolError, BusError, TimeoutError) as error:
                self._drop(error)
                why = str(error) or "no answer in time"
                if why != told:
                    _log.warning("D-Bus is not served while the bus at %s is not there: %s", self._address, why)
                    told = why
                self._attempted.set()
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY_LAST_SECONDS)
                continue
            pause, told = RETRY_FIRST_SECONDS, ""
            self._attempted.set()
            await self._lost.wait()

    async def _connect(self) -> None:
        async with asyncio.timeout(CONNECT_SECONDS):
            sock = await open_socket(self._address)
            self._lost.clear()
            self._transport = Transport(sock, self._on_message, self._on_lost)
            hello = await self.call(BUS, BUS_PATH, BUS, "Hello")
            self.unique_name = str(hello.body[0])
            # In the queue, where another has the name: it is ours when they let go of it.
            reply = await self.call(BUS, BUS_PATH, BUS, "RequestName", "su", [self._name, 0])
        if reply.body[0] == _IN_QUEUE:
            _log.warning("Another program is %s on the bus; D-Bus is served when it lets go of the name", self._name)

    def _on_lost(self, error: Exception) -> None:
        _log.warning("The bus is gone (%s); D-Bus is served again when it is back", error)
        self._drop(error)

    def _drop(self, error: Exception) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        self.unique_name, self.owns_name = None, False
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(BusError(DISCONNECTED, f"the bus is gone: {error}"))
        self._lost.set()

    def _on_message(self, received: Received) -> None:
        message = received.message
        if message.message_type is MessageType.METHOD_CALL:
            self.on_call(received)
            return
        if message.message_type is not MessageType.SIGNAL:
            answer = self._pending.get(message.reply_serial)
            if answer is not None and not answer.done():
                if received.problem:
                    message.message_type, message.error_name = MessageType.ERROR, f"{BUS}.Error.InconsistentMessage"
                answer.set_result(message)
                return
        elif not received.problem:
            self._on_signal(message)
        close_all(message.unix_fds)

    def _on_signal(self, message: Message) -> None:
        # This sender's name is the bus's own: nobody else can have it.
        if message.sender == BUS and message.member in ("NameAcquired", "NameLost") and message.body == [self._name]:
            self.owns_name = message.member == "NameAcquired"
            if not self.owns_name:
                _log.warning("Another program has taken the name %s on the bus", self._name)
        for handle in list(self._handlers.values()):
            handle(message)


def _refuse(received: Received) -> None:
    close_all(received.message.unix_fds)
