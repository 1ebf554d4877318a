# SPDX-License-Identifier: MIT
"""What a real bus does not show: credentials as dbus 1.16 gives them, and what is not sent."""

import asyncio
import os
from collections.abc import Iterator
from typing import Any, cast

import pytest
from dbus_fast import Message, MessageFlag, MessageType, Variant

from resolver.core.errors import AccessDenied, NoSuchMachine
from resolver.dbus.call import Call
from resolver.dbus.connection import BusError, Connection
from resolver.dbus.interface import Interface, Method
from resolver.dbus.objects import Bound, Objects
from resolver.dbus.reader import Received
from tests.dbus.world import run


class FakeConnection:
    """Answers every call with the same, and keeps what is sent."""

    def __init__(self, credentials: dict[str, Variant] | None = None, descriptors: tuple[int, ...] = ()) -> None:
        self.sent: list[Message] = []
        self._credentials = credentials
        self._descriptors = descriptors
        self.on_call: Any = None

    async def call(self, *_: Any, **__: Any) -> Message:
        if self._credentials is None:
            raise BusError("org.freedesktop.DBus.Error.NameHasNoOwner", "no such name")
        return Message(message_type=MessageType.METHOD_RETURN, reply_serial=1, signature="a{sv}",
                       body=[self._credentials], unix_fds=list(self._descriptors))

    def send(self, message: Message) -> None:
        self.sent.append(message)


def call_by(connection: FakeConnection, flags: MessageFlag = MessageFlag.NONE) -> Call:
    return Call(cast(Connection, connection), Message(
        path="/a", interface="a.b", member="Do", flags=flags, sender=":1.7", serial=1))


@pytest.fixture
def pidfd() -> Iterator[int]:
    """To be closed by who is under test."""
    descriptor = os.pidfd_open(os.getpid())
    yield descriptor
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_a_caller_by_its_pidfd(pidfd: int) -> None:
    async def test() -> None:
        said = {"UnixUserID": Variant("u", 1000), "ProcessID": Variant("u", 77), "ProcessFD": Variant("h", 0)}
        call = call_by(FakeConnection(said, (pidfd,)), MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION)
        subject = await call.subject()
        assert (subject.uid, subject.pid, subject.pidfd, subject.bus_name, subject.interactive) == (
            1000, 77, pidfd, ":1.7", True)
        assert await call.subject() is subject
        call.close()

    run(test())


def test_a_caller_whom_nobody_knows() -> None:
    async def test() -> None:
        for connection in (FakeConnection(), FakeConnection({"ProcessID": Variant("u", 1)})):
            with pytest.raises(AccessDenied):
                await call_by(connection).subject()

    run(test())


class Handlers:
    def do_now(self, _call: Call) -> list[str]:
        return ["now"]

    async def do_later(self, _call: Call) -> list[str]:
        await asyncio.sleep(0)
        return ["later"]

    def do_fail(self, _call: Call) -> None:
        raise NoSuchMachine("with a NUL \0 in it")

    async def do_break(self, _call: Call) -> None:
        raise ZeroDivisionError


INTERFACE = Interface("a.b", methods=[Method("Now", "", "s a"), Method("Later", "", "s a"), Method("Fail"),
                                      Method("Break"), Method("Absent")])


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize(("member", "answer"), [
    ("Now", "now"), ("Later", "later"), ("Fail", "with a NUL ? in it"), ("Break", "The daemon failed"),
    ("Absent", "not supported"),
])
def test_who_wants_no_reply_gets_none(member: str, answer: str, wanted: bool,
                                      caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        connection = FakeConnection()
        objects = Objects(cast(Connection, connection), {"/a": Bound(INTERFACE, Handlers())}, {})
        flags = MessageFlag.NONE if wanted else MessageFlag.NO_REPLY_EXPECTED
        connection.on_call(Received(Message(path="/a", interface="a.b", member=member, sender=":1.7", serial=5,
                                            flags=flags)))
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(connection.sent) == (1 if wanted else 0)
        for reply in connection.sent:
            assert (reply.reply_serial, reply.destination) == (5, ":1.7")
            assert answer in reply.body[0]
        await objects.close()

    run(test())
    assert ("ZeroDivisionError" in caplog.text) is (member == "Break")


def test_calls_that_are_not_answered_end_with_the_daemon() -> None:
    class Slow:
        ended = False

        async def do_later(self, _call: Call) -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.ended = True

    async def test() -> None:
        connection, slow = FakeConnection(), Slow()
        objects = Objects(cast(Connection, connection), {"/a": Bound(INTERFACE, slow)}, {})
        connection.on_call(Received(Message(path="/a", interface="a.b", member="Later", sender=":1.7", serial=5)))
        await asyncio.sleep(0)
        await objects.close()
        assert slow.ended
        assert not connection.sent

    run(test())
