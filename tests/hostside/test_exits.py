# SPDX-License-Identifier: MIT
"""Exits of processes, told by one epoll instance."""

import asyncio
import os
import subprocess

from resolver.host.exits import EXITS_AT_ONCE, Exits
from resolver.host.process import Process


def test_each_exit_is_told_until_it_is_forgotten() -> None:
    children = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    held = {str(child.pid): Process.open(child.pid) for child in children}
    told: list[str] = []
    before = len(os.listdir("/proc/self/fd"))

    async def run() -> None:
        def on_exit(name: str) -> None:
            told.append(name)
            exits.forget(held[name])
            exits.forget(held[name])
            if len(told) == 2:
                done.set()

        done = asyncio.Event()
        exits = Exits(on_exit)
        for name, process in held.items():
            exits.watch(process, name)
        exits.forget(held[str(children[2].pid)])
        for child in reversed(children):
            child.kill()
        async with asyncio.timeout(10):
            await done.wait()
        exits.close()
        exits.close()

    try:
        asyncio.run(run())
    finally:
        for child in children:
            child.kill()
            child.wait()
        for process in held.values():
            process.close()
    assert sorted(told) == sorted(str(child.pid) for child in children[:2])
    assert len(os.listdir("/proc/self/fd")) == before - len(held)


def test_more_than_one_round_takes_are_all_told() -> None:
    child = subprocess.Popen(["true"])
    held = [Process.open(os.getpid()) for _ in range(EXITS_AT_ONCE)]
    held += [Process(os.pidfd_open(child.pid), child.pid) for _ in range(EXITS_AT_ONCE + 1)]
    child.wait()
    told: set[str] = set()

    async def run() -> None:
        def on_exit(name: str) -> None:
            told.add(name)
            exits.forget(held[int(name)])
            if len(told) > EXITS_AT_ONCE:
                done.set()

        done = asyncio.Event()
        exits = Exits(on_exit)
        for number, process in enumerate(held):
            exits.watch(process, str(number))
        async with asyncio.timeout(10):
            await done.wait()
        exits.close()

    try:
        asyncio.run(run())
    finally:
        for process in held:
            process.close()
    assert told == {str(number) for number in range(EXITS_AT_ONCE, len(held))}
