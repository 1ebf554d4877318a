# SPDX-License-Identifier: MIT
"""A leader that dies, a caller that goes, at each moment at which a registration waits: nothing of it stays.

A registration is a coroutine, so that between two of its waits nothing else happens. It is run by a wrapper that acts
before it goes on for the n-th time, for each n until there is none. Leaders are real processes with namespaces.
"""

import asyncio
import errno
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from resolver import addressing
from resolver import manager as manager_module
from resolver.addressing import Network
from resolver.authority import Subject
from resolver.core.errors import InvalidArgument, MachineError, NotAvailable
from resolver.core.machine import MachineClass, ProcessId
from resolver.core.registration import Registration
from resolver.core.registry import Registry
from resolver.guest.metadata import GuestFiles
from resolver.host import state_files
from resolver.host.links import HostLinks
from resolver.host.netns import NetlinkOpener
from resolver.host.state_files import StateFiles
from resolver.host.this_host import host_machine
from resolver.manager import Manager
from tests.lab import wait_for
from tests.lab.processes import end

PATIENCE = 10.0
ROOT = Subject(0, os.getpid(), None)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Stepped:
    """Awaits a coroutine, and calls `before(n)` before it goes on for the n-th time, from 0. An error that this returns
    is what the coroutine's wait ends with."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], before: Callable[[int], BaseException | None]) -> None:
        self._coroutine, self._before = coroutine, before

    def __await__(self) -> Generator[Any, Any, Any]:
        number, error = 0, None
        while True:
            error = self._before(number) or error
            try:
                waits_for = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
            except StopIteration as stop:
                return stop.value
            number, error = number + 1, None
            try:
                yield waits_for
            except BaseException as thrown:  # noqa: BLE001 - the coroutine's to handle
                error = thrown


class SlowAuthority:
    """Allows all, as polkit does: not at once."""

    async def check(self, *_: object) -> None:
        await asyncio.sleep(0)


class SlowUnits:
    async def start_scope(self, *_: object) -> None:
        await asyncio.sleep(0)

    async def stop(self, unit: str) -> None:
        raise NotImplementedError


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = Registry()
        self._links, self._guest = HostLinks(), GuestFiles()
        self.told: list[Any] = []
        self.manager = Manager(
            self.registry, StateFiles(folder / "machines", folder / "private"), NetlinkOpener(), self._links,
            SlowAuthority(), SlowUnits(), host_machine(), self._guest, [self.told.extend])
        self._leaders: list[subprocess.Popen[bytes]] = []

    def leader(self, joins: "subprocess.Popen[bytes] | None" = None) -> "subprocess.Popen[bytes]":
        """In namespaces of its own; `joins`, in the network namespace of another one."""
        own = Path("/proc/self/ns/user").readlink()
        network = ["--net"] if joins is None else []
        enter = [] if joins is None else ["nsenter", "-t", str(joins.pid), "-n"]
        child = subprocess.Popen([*enter, "unshare", "--user", "--map-root-user", *network, "sleep", "600"])
        self._leaders.append(child)
        wait_for(lambda: Path(f"/proc/{child.pid}/ns/user").readlink() != own
                 and Path(f"/proc/{child.pid}/comm").read_text() == "sleep\n", PATIENCE, "a leader")
        return child

    def register(self, leader: "subprocess.Popen[bytes]", name: str = "web", scope: bool = False,
                 ssh_address: str = "") -> Any:
        request = Registration(name, MachineClass.CONTAINER, ProcessId(leader.pid), ssh_address=ssh_address)
        return self.manager.create(request, [], ROOT) if scope else self.manager.register(request, ROOT)

    def files(self) -> list[str]:
        return sorted(os.listdir(self.folder / "machines") + os.listdir(self.folder / "private"))

    def close(self) -> None:
        self.manager.close()
        self._guest.close()
        self._links.close()
        for leader in self._leaders:
            end(leader)


@asynccontextmanager
async def world_in(folder: Path) -> AsyncIterator[World]:
    world = World(folder)
    try:
        yield world
    finally:
        world.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def nothing_is_left(world: World, before: int) -> None:
    """Of the machine, in whatever place; and the name can be taken again."""
    async with asyncio.timeout(PATIENCE):
        # A thread that opens a socket for somebody who has gone closes it when it has it.
        while world.registry.by_name("web") is not None or descriptors() != before:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert world.files() == []
    assert not world.manager._registering
    assert not world.manager._held
    balance = sum((change.before is None) - (change.after is None) for change in world.told)
    assert balance == 0


def die(leader: "subprocess.Popen[bytes]") -> None:
    leader.kill()
    leader.wait()


def go(_leader: object) -> BaseException:
    return asyncio.CancelledError()


def steps(world: World, act: Callable[["subprocess.Popen[bytes]"], BaseException | None],
          scope: bool) -> Iterator[tuple[Stepped, "subprocess.Popen[bytes]"]]:
    """Registrations, each with `act` before another step; the last is the one that had no such step left."""
    number, reached = 0, True
    while reached:
        reached = False
        leader = world.leader()

        def before(step: int, number: int = number,
                   leader: "subprocess.Popen[bytes]" = leader) -> BaseException | None:
            nonlocal reached
            if step != number:
                return None
            reached = True
            return act(leader)

        yield Stepped(world.register(leader, scope=scope), before), leader
        number += 1
    assert number > 2, "a registration that hardly waits"


@pytest.mark.parametrize("scope", [False, True], ids=["register", "create"])
def test_a_leader_that_dies_at_each_step(tmp_path: Path, scope: bool) -> None:
    async def run() -> None:
        async with world_in(tmp_path) as world:
            outcomes = []
            before = descriptors()
            for registration, leader in steps(world, die, scope):
                try:
                    await registration
                    outcomes.append("registered")
                except InvalidArgument:
                    outcomes.append("refused")
                end(leader)
                await nothing_is_left(world, before)
            assert outcomes[0] == "refused"
            assert outcomes[-1] == "registered"  # it died after all steps
            assert outcomes.count("refused") > 1

    asyncio.run(run())


@pytest.mark.parametrize("scope", [False, True], ids=["register", "create"])
def test_a_caller_that_goes_at_each_step(tmp_path: Path, scope: bool) -> None:
    async def run() -> None:
        async with world_in(tmp_path) as world:
            before = descriptors()
            outcomes = []
            for registration, leader in steps(world, go, scope):
                try:
                    await registration
                    outcomes.append("registered")  # whole: where the caller went as the last wait was over
                    assert world.registry.by_name("web") is not None
                except asyncio.CancelledError:
                    outcomes.append("cancelled")
                    await nothing_is_left(world, before)
                end(leader)
                await nothing_is_left(world, before)
            assert outcomes[-1] == "registered"
            assert outcomes.count("cancelled") > 1

    asyncio.run(run())


@pytest.mark.parametrize(("ssh_address", "files"), [("", 1), ("vsock/7", 2)], ids=["public", "private too"])
@pytest.mark.parametrize("call", ["open", "rename"])
def test_no_room_at_each_write(tmp_path: Path, call: str, ssh_address: str, files: int,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    real = getattr(os, call)

    async def run() -> None:
        async with world_in(tmp_path) as world:
            before = descriptors()
            for failing in range(1, files + 2):
                left = failing

                def fail(*arguments: Any, **options: Any) -> Any:
                    nonlocal left
                    if state_files._TEMPORARY in str(arguments[0]):
                        left -= 1
                        if left == 0:
                            raise OSError(errno.ENOSPC, "no room")
                    return real(*arguments, **options)

                leader = world.leader()
                monkeypatch.setattr(os, call, fail)
                try:
                    await world.register(leader, ssh_address=ssh_address)
                    assert failing > files
                except NotAvailable:
                    pass
                finally:
                    monkeypatch.setattr(os, call, real)
                if world.registry.by_name("web") is None:
                    await nothing_is_left(world, before)
                    await world.register(leader)  # there is room again
                end(leader)
                await nothing_is_left(world, before)

    asyncio.run(run())


def test_at_the_limit_of_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many at once: no more than the limit get in, the others are told, and each that goes makes room for one."""
    monkeypatch.setattr(manager_module, "MACHINES_MAX", 5)

    async def run() -> None:
        async with world_in(tmp_path) as world:
            leaders = [world.leader() for _ in range(12)]

            async def attempt(number: int) -> str:
                try:
                    await world.register(leaders[number], f"m{number}")
                except MachineError as error:
                    return type(error).__name__
                return "registered"

            outcomes = await asyncio.gather(*map(attempt, range(12)))
            assert sorted(outcomes) == ["NotAvailable"] * 7 + ["registered"] * 5
            assert len(world.registry) == 5
            first = outcomes.index("registered")
            end(leaders[first])
            async with asyncio.timeout(PATIENCE):
                while len(world.registry) == 5:  # noqa: ASYNC110 - until it is noticed
                    await asyncio.sleep(0.005)
            refused = [number for number in range(12) if outcomes[number] != "registered"]
            again = await asyncio.gather(*map(attempt, refused))
            assert sorted(again) == ["NotAvailable"] * 6 + ["registered"]

    asyncio.run(run())


def test_a_restart_on_a_busy_host_asks_again_for_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that opens a machine's socket comes too late, twice: the table has addresses that are not to go."""
    real, late = NetlinkOpener.open, 2

    async def open_late(*arguments: Any) -> Any:
        nonlocal late
        late -= 1
        if late >= 0:
            raise TimeoutError
        return await real(*arguments)

    async def run() -> None:
        nonlocal late
        late = 0
        async with world_in(tmp_path) as world:
            await world.register(world.leader())
            late = 2
            successor = World(tmp_path)
            await successor.manager.restore()
            entry = successor.registry.by_name("web")
            assert entry is not None
            assert (await successor.manager.explain("web")).network is Network.OWN
            successor.close()

    monkeypatch.setattr(NetlinkOpener, "open", open_late)
    asyncio.run(run())


def add_to_loopback(leader: "subprocess.Popen[bytes]", address: str) -> None:
    subprocess.run(["nsenter", f"--target={leader.pid}", "--net", "sh", "-c",
                    f"ip link set lo up; ip address add {address}/32 dev lo"], check=True, timeout=PATIENCE)


def addresses_of(world: World) -> list[bytes]:
    entry = world.registry.by_name("web")
    assert entry is not None
    return [each.packed for each in entry.machine.addresses]


@pytest.mark.parametrize("trouble", [TimeoutError(), OSError(errno.EMFILE, "no descriptor left")],
                         ids=["late", "descriptors"])
def test_a_socket_that_could_not_be_opened_comes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       trouble: OSError) -> None:
    """The machine is registered without addresses, and has them as soon as there is nothing in the way any more."""
    monkeypatch.setattr(addressing, "ADDRESSES_SECONDS", 0.0)
    monkeypatch.setattr(addressing, "LATER_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(addressing, "LATER_LAST_SECONDS", 0.004)
    real, tries, in_the_way = NetlinkOpener.open, 0, True

    async def open_badly(*arguments: Any) -> Any:
        nonlocal tries
        tries += 1
        if in_the_way:
            raise trouble
        return await real(*arguments)

    async def run() -> None:
        nonlocal in_the_way
        async with world_in(tmp_path) as world:
            before = descriptors()
            leader, address = world.leader(), socket.inet_aton("192.0.2.7")
            add_to_loopback(leader, "192.0.2.7")
            await world.register(leader)
            assert addresses_of(world) == []
            async with asyncio.timeout(PATIENCE):
                while tries < 5:  # noqa: ASYNC110 - a second try, and more, none of which says anything
                    await asyncio.sleep(0.001)
            in_the_way = False
            async with asyncio.timeout(PATIENCE):
                while address not in addresses_of(world):  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            assert (await world.manager.explain("web")).network is Network.OWN
            assert world.told[-1].after is world.registry.by_name("web")
            die(leader)
            await nothing_is_left(world, before)

    monkeypatch.setattr(NetlinkOpener, "open", open_badly)
    asyncio.run(run())


def test_a_machine_that_goes_is_not_tried_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addressing, "ADDRESSES_SECONDS", 0.0)
    monkeypatch.setattr(addressing, "LATER_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(addressing, "LATER_LAST_SECONDS", 0.001)

    async def open_never(*_: Any) -> Any:
        raise TimeoutError

    async def run() -> None:
        async with world_in(tmp_path) as world:
            before = descriptors()
            leader = world.leader()
            await world.register(leader)
            die(leader)
            await nothing_is_left(world, before)
            async with asyncio.timeout(PATIENCE):
                while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)

    monkeypatch.setattr(NetlinkOpener, "open", open_never)
    asyncio.run(run())
