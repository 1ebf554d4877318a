# SPDX-License-Identifier: MIT
"""Watch: all machines, then what changes; a watcher that does not listen holds nobody up and little memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from resolver.core.addresses import AF_INET, AF_INET6
from resolver.core.machine import ChosenAddress, Machine, MachineClass, ProcessId
from resolver.core.registry import Registry
from resolver.varlink.call import Call, Reply
from resolver.varlink.errors import VarlinkError
from resolver.varlink.watch import Watches

WAIT = 10.0


def machine(name: str, pid: int, *last: int) -> Machine:
    return Machine(name, MachineClass.CONTAINER, ProcessId(pid),
                   chosen=tuple(ChosenAddress(AF_INET, bytes((10, 0, 0, n))) for n in last))


class World:
    def __init__(self) -> None:
        self.registry = Registry()
        self.watches = Watches(self.registry)

    def add(self, name: str, pid: int, *last: int) -> None:
        self.watches.on_changes(self.registry.add(machine(name, pid, *last)))

    def watch(self, more: bool = True) -> AsyncIterator[Reply]:
        return self.watches.watch(Call("io.mymachines.Machines.Watch", {}, None, more=more))  # type: ignore[arg-type]


def run(steps: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(WAIT):
            await steps(World())

    asyncio.run(main())


async def following(watch: AsyncIterator[Reply]) -> dict[str, Any]:
    reply = await anext(watch)
    assert reply.continues
    return reply.parameters


def test_all_machines_and_then_each_change() -> None:
    async def steps(world: World) -> None:
        world.add("Web", 2, 1)
        watch = world.watch()
        assert await following(watch) == {"name": "Web", "class": "container", "leader": 2,
                                           "addresses": ["10.0.0.1"]}
        world.add("db", 3)
        assert await following(watch) == {"complete": True}
        assert await following(watch) == {"name": "db", "class": "container", "leader": 3, "addresses": []}
        waiting = asyncio.create_task(following(watch))
        await asyncio.sleep(0)
        world.watches.on_changes(world.registry.remove("web"))
        assert await waiting == {"name": "Web", "gone": True}

    run(steps)


def test_of_several_changes_to_one_machine_the_last_is_told() -> None:
    async def steps(world: World) -> None:
        watch = world.watch()
        assert await following(watch) == {"complete": True}
        world.add("web", 2, 1)
        for last in range(2, 100):
            world.watches.on_changes(world.registry.update(machine("web", 2, last)))
        world.add("db", 3)
        assert (await following(watch))["addresses"] == ["10.0.0.99"]
        assert (await following(watch))["name"] == "db"

    run(steps)


def test_link_local_addresses_are_not_told() -> None:
    async def steps(world: World) -> None:
        link_local = ChosenAddress(AF_INET6, b"\xfe\x80" + bytes(13) + b"\x01", 3, scoped=True)
        world.watches.on_changes(world.registry.add(replace(machine("web", 2), chosen=(link_local,))))
        assert (await following(world.watch()))["addresses"] == []

    run(steps)


def test_a_caller_that_takes_one_reply_is_told_so() -> None:
    async def steps(world: World) -> None:
        with pytest.raises(VarlinkError, match="ExpectedMore"):
            await anext(world.watch(more=False))

    run(steps)


def test_who_stops_listening_is_forgotten() -> None:
    async def steps(world: World) -> None:
        watch = world.watch()
        await following(watch)
        waiting = asyncio.create_task(following(watch))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not world.watches._pending

    run(steps)


def test_a_slow_watcher_holds_no_more_than_it_knows_and_there_is() -> None:
    """However many come and go while it does not listen."""
    async def steps(world: World) -> None:
        world.add("web", 2, 1)
        watch = world.watch()
        await following(watch)
        assert await following(watch) == {"complete": True}
        for number in range(1000):
            world.add(f"m{number}", 3, 2)
            world.watches.on_changes(world.registry.remove(f"m{number}"))
        world.watches.on_changes(world.registry.remove("web"))
        [pending] = world.watches._pending
        assert list(pending._changes) == ["web"]
        assert await following(watch) == {"name": "web", "gone": True}
        world.add("db", 4)
        assert (await following(watch))["name"] == "db"
        assert pending._known == {"db"}

    run(steps)
