# SPDX-License-Identifier: MIT
"""Asking polkit, which is a mock here: it answers what the test says. tests/host has the real one."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dbus_fast import Message, MessageType

from resolver.authority import Subject
from resolver.core.errors import AccessDenied, AuthenticationRequired, MachineError
from resolver.dbus import polkit
from resolver.dbus.connection import Connection
from resolver.dbus.paths import MANAGER
from resolver.dbus.polkit import POLKIT, Polkit
from tests.dbus.bus import Bus
from tests.dbus.world import World, mock_service, run

DETAILS = {"name": "web", "class": "container", "verb": "kill"}
ROOT = Subject(0, 1)
ALLOW, DENY, CHALLENGE = [True, False, {}], [False, False, {}], [False, True, {}]


class MockPolkit:
    """Answers each action with the same; what it was asked is in `asked`."""

    def __init__(self, answers: dict[str, list[Any]]) -> None:
        self.answers = answers
        self.asked: list[Message] = []

    def __call__(self, message: Message) -> Message | None:
        self.asked.append(message)
        if message.member != "CheckAuthorization":
            return None
        action = message.body[1].removeprefix("org.freedesktop.machine1.")
        if action not in self.answers:
            return Message.new_error(message, f"{POLKIT}.Error.Failed", f"Action {message.body[1]} is not registered")
        return Message.new_method_return(message, "(bba{ss})", [self.answers[action]])


def proc(name: str) -> str:
    return Path("/proc", name).read_text()


def on_bus(bus: Bus, test: Callable[[Polkit], Any]) -> None:
    """Run a test with a connection of ours."""
    async def connected() -> None:
        connection = Connection("org.freedesktop.machine1", bus.address)
        await connection.start()
        try:
            await test(Polkit(connection))
        finally:
            await connection.close()

    run(connected())


@pytest.mark.parametrize(("answer", "error"), [
    (ALLOW, None), (DENY, AccessDenied), (CHALLENGE, AuthenticationRequired),
])
def test_its_answers(bus: Bus, answer: list[Any], error: type[MachineError] | None) -> None:
    async def test(authority: Polkit) -> None:
        mock = MockPolkit({"manage-machines": answer})
        async with mock_service(bus, POLKIT, mock):
            if error is None:
                await authority.check(Subject(1000, 77, bus_name=":1.77"), "manage-machines", DETAILS)
            else:
                with pytest.raises(error) as raised:
                    await authority.check(Subject(1000, 77, bus_name=":1.77"), "manage-machines", DETAILS)
                assert type(raised.value) is error
        (kind, values), action, details, flags, _ = mock.asked[0].body
        assert (kind, values["name"].value) == ("system-bus-name", ":1.77")
        assert (action, details, flags) == ("org.freedesktop.machine1.manage-machines", DETAILS, 0)

    on_bus(bus, test)


def test_root_is_not_asked_about(bus: Bus) -> None:
    async def test(authority: Polkit) -> None:
        mock = MockPolkit({"manage-machines": DENY})
        async with mock_service(bus, POLKIT, mock):
            await authority.check(ROOT, "manage-machines", DETAILS)
        assert not mock.asked

    on_bus(bus, test)


def test_without_polkit_there_is_root_alone(bus: Bus) -> None:
    async def test(authority: Polkit) -> None:
        await authority.check(ROOT, "manage-machines", DETAILS)
        with pytest.raises(AccessDenied):
            await authority.check(Subject(1000, 77, bus_name=":1.77"), "manage-machines", DETAILS)

    on_bus(bus, test)


def test_without_a_bus_there_is_root_alone(no_bus: Bus) -> None:
    on_bus(no_bus, _root_alone)


async def _root_alone(authority: Polkit) -> None:
    await authority.check(ROOT, "manage-machines", DETAILS)
    with pytest.raises(AccessDenied):
        await authority.check(Subject(1000, os.getpid()), "manage-machines", DETAILS)


@pytest.mark.parametrize(("answer", "allowed"), [(ALLOW, True), (DENY, False)])
def test_an_action_that_polkit_does_not_know_is_asked_as_the_nearest(bus: Bus, answer: list[Any],
                                                                     allowed: bool) -> None:
    async def test(authority: Polkit) -> None:
        mock = MockPolkit({"create-machine": answer})
        caller = Subject(1000, 77, bus_name=":1.77")
        async with mock_service(bus, POLKIT, mock):
            if allowed:
                await authority.check(caller, "register-machine", DETAILS)
            else:
                with pytest.raises(AccessDenied):
                    await authority.check(caller, "register-machine", DETAILS)
            with pytest.raises(AccessDenied):  # and nothing is nearest to this one
                await authority.check(caller, "manage-machines", DETAILS)
        assert [message.body[1].rpartition(".")[2] for message in mock.asked] == [
            "register-machine", "create-machine", "manage-machines"]

    on_bus(bus, test)


def test_a_known_action_is_not_asked_as_another(bus: Bus) -> None:
    async def test(authority: Polkit) -> None:
        async with mock_service(bus, POLKIT, MockPolkit({"register-machine": DENY, "create-machine": ALLOW})):
            with pytest.raises(AccessDenied):
                await authority.check(Subject(1000, 77, bus_name=":1.77"), "register-machine", DETAILS)

    on_bus(bus, test)


def test_a_process_is_told_of_by_more_than_its_number(bus: Bus) -> None:
    async def test(authority: Polkit) -> None:
        mock = MockPolkit({"manage-machines": ALLOW})
        process = subprocess.Popen(["sleep", "60"])  # noqa: ASYNC220 - a millisecond
        pidfd = os.pidfd_open(process.pid)
        try:
            async with mock_service(bus, POLKIT, mock):
                await authority.check(Subject(1000, process.pid, pidfd), "manage-machines", DETAILS)
                kind, values = mock.asked[0].body[0]
                (passed,) = mock.asked[0].unix_fds
                start = int(proc(f"{process.pid}/stat").rpartition(")")[2].split()[19])
                assert (kind, values["pid"].value, values["uid"].value) == ("unix-process", process.pid, 1000)
                assert (values["start-time"].value, values["pidfd"].value) == (start, 0)
                assert f"Pid:\t{process.pid}\n" in proc(f"self/fdinfo/{passed}")
                os.close(passed)
                process.kill()
                process.wait()
                with pytest.raises(AccessDenied):
                    await authority.check(Subject(1000, process.pid, pidfd), "manage-machines", DETAILS)
                assert len(mock.asked) == 1
        finally:
            os.close(pidfd)
            process.kill()
            process.wait()

    on_bus(bus, test)


def test_who_can_wait_is_asked_and_who_gave_up_is_not_asked_any_more(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polkit, "PASSWORD_SECONDS", 0.2)

    async def test(authority: Polkit) -> None:
        asked: asyncio.Queue[Message] = asyncio.Queue()
        async with mock_service(bus, POLKIT, lambda message: asked.put_nowait(message)):  # noqa: PLW0108 - typed
            with pytest.raises(AccessDenied, match=r"0\.2 s"):
                await authority.check(Subject(1000, 77, bus_name=":1.77", interactive=True), "manage-machines", DETAILS)
            question, end = await asyncio.wait_for(asked.get(), 10), await asyncio.wait_for(asked.get(), 10)
            assert question.body[3] == 1
            assert question.body[4]
            assert (end.member, end.body) == ("CancelCheckAuthorization", [question.body[4]])

    on_bus(bus, test)


def test_a_polkit_that_hangs_keeps_only_who_asked(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polkit, "ANSWER_SECONDS", 0.2)

    async def test(authority: Polkit) -> None:
        async with mock_service(bus, POLKIT, lambda _: None):
            waiting = asyncio.create_task(
                authority.check(Subject(1000, 77, bus_name=":1.77"), "manage-machines", DETAILS))
            await authority.check(ROOT, "manage-machines", DETAILS)
            with pytest.raises(AccessDenied):
                await waiting

    on_bus(bus, test)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
@pytest.mark.parametrize(("answer", "error"), [
    (ALLOW, ""), (DENY, "Access denied"), (CHALLENGE, "authentication"),
])
def test_another_user_changes_what_polkit_allows(bus: Bus, tmp_path: Path, answer: list[Any], error: str) -> None:
    async def test() -> None:
        mock = MockPolkit({"manage-machines": answer, "register-machine": answer})
        async with World(bus, tmp_path) as world, mock_service(bus, POLKIT, mock):
            await world.register("web")
            service = ("call", "org.freedesktop.machine1", MANAGER, "org.freedesktop.machine1.Manager")
            for arguments in (["RegisterMachine", "sayssus", "mine", "0", "", "container", str(world.leader(65534)),
                               ""], ["UnregisterMachine", "s", "web"]):
                called = await asyncio.to_thread(bus.busctl, *service, *arguments, uid=65534)
                assert (called.returncode == 0) is not bool(error), called.stderr
                assert error in called.stderr
            names = [entry.machine.name for entry in world.registry]
            assert names == (["web"] if error else ["mine"])
            # Whatever polkit says, another's process is no leader, and class host is the host's.
            for leader, kind in ((world.leader(), "container"), (world.leader(65534), "host")):
                called = await asyncio.to_thread(bus.busctl, *service, "RegisterMachine", "sayssus", "new", "0", "",
                                                 kind, str(leader), "", uid=65534)
                assert called.returncode != 0
            assert mock.asked[0].body[2] == {"name": "mine", "class": "container", "verb": "register"}

    run(test())


def test_mocks_answer_as_polkit_does() -> None:
    """The shape of the reply is polkit's own: a struct of two booleans and a dictionary."""
    question = Message(path="/x", interface="a.b", member="CheckAuthorization", serial=1,
                       signature="(sa{sv})sa{ss}us", body=[["", {}], "org.freedesktop.machine1.x", {}, 0, ""])
    reply = MockPolkit({"x": ALLOW})(question)
    assert reply is not None
    assert reply.message_type is MessageType.METHOD_RETURN
    assert reply.signature == "(bba{ss})"
