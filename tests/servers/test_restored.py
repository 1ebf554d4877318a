# SPDX-License-Identifier: MIT
"""A start with machines of before: it is ready with what look-ups had, and what has changed since is seen soon."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from resolver import addressing
from resolver.addressing import Network
from resolver.core.addresses import AF_INET
from resolver.core.errors import MachineExists
from resolver.core.machine import ChosenAddress
from resolver.host import addresses as addresses_module
from resolver.host.addresses import AddressWatcher
from resolver.host.reach import HostChange, Reach
from resolver.manager import Published
from tests.hostside.worlds import in_net
from tests.lab.processes import end
from tests.servers.test_registration_faults import PATIENCE, World, world_in

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

OLD = ChosenAddress(AF_INET, bytes([192, 0, 2, 1]), reverse=False)


def chosen(world: World, name: str) -> list[bytes]:
    entry = world.registry.by_name(name)
    assert entry is not None
    return [address.packed for address in entry.addresses]


async def configure(leader: "subprocess.Popen[bytes]") -> None:
    """The address 198.51.100.7 inside; not on the loop that is to see it."""
    for line in ("link add e0 type veth peer name e1", "address add 198.51.100.7/24 dev e0"):
        await asyncio.to_thread(in_net, leader.pid, "ip", *line.split())


async def until(predicate: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not predicate():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@asynccontextmanager
async def successor_of(world: World, published: Published) -> AsyncIterator[World]:
    successor = World(world.folder)
    try:
        await successor.manager.restore(published)
        yield successor
    finally:
        successor.close()


def trying(folder: Path, test: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with world_in(folder) as world:
            await test(world)

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(run())
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_is_ready_with_what_look_ups_had_and_right_soon_after(tmp_path: Path) -> None:
    """The host has no route to the guest: look-ups give all its global addresses."""
    async def test(world: World) -> None:
        leader = world.leader()
        await world.register(leader)
        await configure(leader)
        async with successor_of(world, lambda _: (OLD,)) as successor:
            assert chosen(successor, "web") == [OLD.packed]
            successor.manager.host_changed(HostChange(everything=True))  # this is not its turn
            for _ in range(10):
                await asyncio.sleep(0)
            assert chosen(successor, "web") == [OLD.packed]
            successor.manager.catch_up()
            await until(lambda: chosen(successor, "web") == [bytes([198, 51, 100, 7])])
            await asyncio.to_thread(in_net, leader.pid, "ip", "address", "add", "198.51.100.8/24", "dev", "e0")
            await until(lambda: bytes([198, 51, 100, 8]) in chosen(successor, "web"))

    trying(tmp_path, test)


def test_who_asks_has_the_addresses_of_now(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        leader = world.leader()
        await world.register(leader)
        async with successor_of(world, lambda _: (OLD,)) as successor:
            entry = successor.registry.by_name("web")
            assert entry is not None
            machine, explanation = await asyncio.gather(successor.manager.settled(entry.machine),
                                                        successor.manager.explain("web"))
            assert explanation.network is Network.OWN
            assert OLD.packed not in [address.packed for address in machine.addresses]
            assert chosen(successor, "web") == []

    trying(tmp_path, test)


def test_a_machine_that_look_ups_do_not_know_is_looked_at_first(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        leader = world.leader()
        await world.register(leader)
        await configure(leader)
        async with successor_of(world, lambda _: None) as successor:
            assert chosen(successor, "web") == [bytes([198, 51, 100, 7])]
        # Nor is it, if nothing proves that it is the machine that they know.
        (tmp_path / "private" / "web").unlink(missing_ok=True)
        public = tmp_path / "machines" / "web"
        public.write_bytes(b"".join(line for line in public.read_bytes().splitlines(True) if b"BOOT_ID" not in line))
        async with successor_of(world, lambda _: (OLD,)) as successor:
            assert chosen(successor, "web") == [bytes([198, 51, 100, 7])]

    trying(tmp_path, test)


def test_a_guest_that_keeps_the_kernel_from_answering_delays_nobody(tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps what look-ups had for a time, and then has nothing."""
    monkeypatch.setattr(addressing, "RESTORED_SECONDS", 0.3)
    hostile: list[AddressWatcher] = []
    read = AddressWatcher._read

    def never_known(watcher: AddressWatcher) -> None:
        if not hostile:
            hostile.append(watcher)
        if watcher not in hostile:
            read(watcher)

    async def test(world: World) -> None:
        for name in ("bad", "web", "db"):
            await world.register(world.leader(), name)
        monkeypatch.setattr(AddressWatcher, "_read", never_known)
        async with successor_of(world, lambda _: (OLD,)) as successor:
            successor.manager.catch_up()
            await until(lambda: chosen(successor, "web") == chosen(successor, "db") == [])
            assert chosen(successor, "bad") == [OLD.packed]
            await until(lambda: chosen(successor, "bad") == [])
            assert (await successor.manager.explain("bad")).network is Network.UNKNOWN

    trying(tmp_path, test)


def test_machines_come_and_go_before_they_are_looked_at(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        leaders = {name: world.leader() for name in ("web", "db")}
        for name, leader in leaders.items():
            await world.register(leader, name)
        async with successor_of(world, lambda _: (OLD,)) as successor:
            end(leaders["db"])
            await until(lambda: successor.registry.by_name("db") is None)
            await successor.register(successor.leader(), "new")
            assert chosen(successor, "new") == []
            assert chosen(successor, "web") == [OLD.packed]
            successor.manager.catch_up()
            await until(lambda: chosen(successor, "web") == [])
            assert successor.registry.by_name("db") is None

    trying(tmp_path, test)


def test_a_machine_that_is_refused_takes_nothing_from_the_one_of_its_name(tmp_path: Path) -> None:
    """Both are in one network namespace."""
    async def test(world: World) -> None:
        pod = world.leader()
        await world.register(pod)
        with pytest.raises(MachineExists):
            await world.register(world.leader(pod))
        await configure(pod)
        await until(lambda: chosen(world, "web") == [bytes([198, 51, 100, 7])])

    trying(tmp_path, test)


def test_many_in_one_network_namespace_change_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than are told of at once; each is judged by one question to the host."""
    asked = 0
    reach = Reach

    def counted(*arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return reach(*arguments)

    monkeypatch.setattr(addressing, "Reach", counted)
    monkeypatch.setattr(addresses_module, "AHEAD_SECONDS", 10.0)
    names = [f"pod{number}" for number in range(2 * addressing.TOLD_AT_ONCE)]

    async def test(world: World) -> None:
        pod = world.leader()
        for name in names:
            await world.register(world.leader(pod) if name != names[0] else pod, name)
        assert asked == 1
        await configure(pod)
        await until(lambda: all(chosen(world, name) == [bytes([198, 51, 100, 7])] for name in names))
        assert asked < len(names)
        world.manager.host_changed(HostChange(everything=True))
        before = asked
        await until(lambda: asked > before)
        for _ in range(10):
            await asyncio.sleep(0)
        assert asked == before + 1
        owners = [entry.machine.name for entry in world.registry if any(a.reverse for a in entry.addresses)]
        assert owners in ([], [names[0]])
        end(pod)
        await until(lambda: world.registry.by_name(names[0]) is None)
        assert chosen(world, names[-1]) == [bytes([198, 51, 100, 7])]

    trying(tmp_path, test)
