# SPDX-License-Identifier: MIT
"""The daemon's part of the bus over a real manager of machines, and clients of it; all on one loop."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from dbus_fast import Message, MessageFlag, MessageType, Variant
from dbus_fast.aio import MessageBus

import machine_images.dbus
from machine_images.dbus import ImageManagerHandlers, ImageObjects
from machine_images.images import Images
from resolver.core.machine import Machine, MachineClass, ProcessId
from resolver.core.registry import Registry
from resolver.dbus.connection import Connection
from resolver.dbus.errors import ERRORS
from resolver.dbus.manager import MachineSignals
from resolver.dbus.objects import Collection
from resolver.dbus.paths import MANAGER
from resolver.dbus.polkit import Polkit
from resolver.dbus.server import NAME, Server
from resolver.dbus.systemd import Systemd
from resolver.entering import Entering
from resolver.guest.metadata import GuestFiles
from resolver.host.links import HostLinks
from resolver.host.netns import NetlinkOpener
from resolver.host.state_files import StateFiles
from resolver.manager import Manager
from resolver.worker.run import Workers
from tests.dbus.bus import Bus

PATIENCE = 10.0
"""Seconds that a test waits for what takes milliseconds."""

MANAGER_INTERFACE = f"{NAME}.Manager"
MACHINE_INTERFACE = f"{NAME}.Machine"
PROPERTIES = "org.freedesktop.DBus.Properties"
NO_ID = bytes(16)

Service = Callable[[Message], "Awaitable[Message | None] | Message | None"]


class Failed(Exception):
    """An error reply."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name.removeprefix("org.freedesktop.")
        self.text = text


class Client:
    """A program on the bus, by dbus-fast's own connection: the other side is not tested with itself."""

    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus
        self.signals: asyncio.Queue[tuple[str, list[Any]]] = asyncio.Queue()
        bus.add_message_handler(self._on_message)

    async def call(self, member: str, signature: str = "", *body: Any, path: str = MANAGER,
                   interface: str | None = MANAGER_INTERFACE, flags: int = 0, fds: list[int] | None = None,
                   destination: str = NAME) -> Any:
        """The value of the reply, or their list where there are more; Failed for an error."""
        async with asyncio.timeout(PATIENCE):
            reply = await self.bus.call(Message(destination, path, interface, member, flags=MessageFlag(flags),
                                                signature=signature, body=list(body), unix_fds=fds or []))
        if reply.message_type is MessageType.ERROR:
            raise Failed(reply.error_name or "", reply.body[0])
        return reply.body[0] if len(reply.body) == 1 else reply.body

    async def get(self, path: str, name: str, interface: str = MACHINE_INTERFACE) -> Any:
        return (await self.call("Get", "ss", interface, name, path=path, interface=PROPERTIES)).value

    async def match(self, rule: str) -> None:
        """Have the signals of this rule in `signals`."""
        await self.call("AddMatch", "s", rule, destination="org.freedesktop.DBus", path="/org/freedesktop/DBus",
                        interface="org.freedesktop.DBus")

    async def next_signal(self) -> tuple[str, list[Any]]:
        async with asyncio.timeout(PATIENCE):
            return await self.signals.get()

    def _on_message(self, message: Message) -> None:
        if message.message_type is MessageType.SIGNAL and message.interface != "org.freedesktop.DBus":
            self.signals.put_nowait((message.member or "", message.body))


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[MessageBus]:
    bus = await MessageBus(address, negotiate_unix_fd=True).connect()
    try:
        yield bus
    finally:
        bus.disconnect()
        try:
            async with asyncio.timeout(PATIENCE):
                await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
        except (EOFError, OSError):
            pass  # the bus was faster


@asynccontextmanager
async def client(bus: Bus) -> AsyncIterator[Client]:
    async with connected(bus.address) as connection:
        yield Client(connection)


@asynccontextmanager
async def mock_service(bus: Bus, name: str, answer: Service) -> AsyncIterator[MessageBus]:
    """A program that has `name` and answers calls as the test says: no systemd, no polkit."""
    async with connected(bus.address) as connection:
        tasks: set[asyncio.Task[None]] = set()

        async def finish(reply: Awaitable[Message | None]) -> None:
            message = await reply
            if message is not None:
                await connection.send(message)

        def on_message(message: Message) -> Message | bool | None:
            if message.message_type is not MessageType.METHOD_CALL:
                return None
            reply = answer(message)
            if isinstance(reply, Message) or reply is None:
                return reply or True
            task = asyncio.ensure_future(finish(reply))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            return True

        connection.add_message_handler(on_message)
        await connection.request_name(name)
        try:
            yield connection
        finally:
            for task in tasks:
                task.cancel()


async def until(predicate: Callable[[], object]) -> None:
    """Wait for what has no event, with a deadline."""
    async with asyncio.timeout(PATIENCE):
        while not predicate():  # noqa: ASYNC110 - as it says
            await asyncio.sleep(0.005)


class World:
    """A manager of machines that is served on `bus`. On it are no polkit and no systemd but a test's own."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self.bus = bus
        self.registry = Registry()
        self.connection = Connection(NAME, bus.address)
        self.os_release: dict[str, str] = {"ID": "debian"}
        self.hang = asyncio.Event()
        host = Machine(".host", MachineClass.HOST, ProcessId(1), root_directory="/", unit="-.slice")
        self._links, self._guest = HostLinks(), GuestFiles()
        self.manager = Manager(
            self.registry, StateFiles(folder / "machines", folder / "private"), NetlinkOpener(), self._links,
            Polkit(self.connection), Systemd(self.connection), host, self._guest,
            [MachineSignals(self.connection).on_changes])
        self._workers = Workers()
        entering = Entering(self.manager, Polkit(self.connection), self._workers)
        ERRORS.update(machine_images.dbus.ERRORS)
        self.images = images = Images(Polkit(self.connection))
        objects = ImageObjects(images)
        self.server = Server(self.connection, self.manager, entering, self._read_os_release,
                             ImageManagerHandlers(images), Collection(objects.find, objects.labels))
        self._leaders: list[subprocess.Popen[bytes]] = []

    async def __aenter__(self) -> Self:
        await self.connection.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.close()
        await self.connection.close()
        await self._workers.close()
        await self.images.close()
        self.manager.close()
        self._links.close()
        self._guest.close()
        for leader in self._leaders:
            leader.kill()
            leader.wait()

    def leader(self, uid: int = 0) -> int:
        """A process to be a machine's leader: the number."""
        # With mounts of its own, as far as that is allowed: what enters machines asks for that.
        apart = ["unshare", "--mount"] if os.geteuid() == 0 else []
        drop = ["setpriv", f"--reuid={uid}", "--clear-groups"] if uid else []
        self._leaders.append(subprocess.Popen([*apart, *drop, "sleep", "600"], stdin=subprocess.DEVNULL))
        return self._leaders[-1].pid

    def end(self, pid: int) -> None:
        leader = next(leader for leader in self._leaders if leader.pid == pid)
        leader.kill()

    async def register(self, name: str, **fields: Any) -> str:
        """Register a machine over the bus; its object's path."""
        async with client(self.bus) as caller:
            return str(await caller.call("RegisterMachine", "sayssus", name, NO_ID, "test", "container",
                                         self.leader(), "", **fields))

    async def _read_os_release(self, machine: Machine) -> dict[str, str]:
        if machine.name == "hangs":
            await self.hang.wait()
        return self.os_release


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test on a loop of its own; nothing that goes wrong beside it is overlooked."""
    problems: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: problems.append(context))
        async with asyncio.timeout(60):
            await test

    asyncio.run(watched())
    assert not problems, problems


def variant(signature: str, value: Any) -> Variant:
    return Variant(signature, value)
