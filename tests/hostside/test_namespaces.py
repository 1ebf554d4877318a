# SPDX-License-Identifier: MIT
"""Machines that share a network namespace, real ones: it is followed once, until the last of them has left."""

import asyncio
import fcntl
import os
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from resolver.host.netns import NetlinkOpener
from resolver.host.process import NoSuchProcess, Process
from resolver.host.readable import Readable
from resolver.namespaces import NetworkNamespace, NetworkNamespaces
from tests.hostside.worlds import in_net, needs_root, sleeper
from tests.lab.waiting import wait_for

SIOCGSKNS = 0x894C  # linux/sockios.h

pytestmark = needs_root


@contextmanager
def joined(pid: int) -> Iterator[Process]:
    """Another process in the network namespace of `pid`."""
    with subprocess.Popen(["nsenter", "-t", str(pid), "-n", "sleep", "1000"]) as child:
        try:
            wait_for(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "sleep\n", what="nsenter")
            with Process.open(child.pid) as process:
                yield process
        finally:
            child.kill()


@contextmanager
def mover() -> Iterator[tuple[Process, Callable[[], None]]]:
    """A process in a network namespace of its own, and what makes it go to another new one."""
    with subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; read _; exec unshare -n sleep 1000"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as child:
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdout.readline()
            told = child.stdin
            with Process.open(child.pid) as process:
                before = process.namespace("net")

                def move() -> None:
                    print(file=told)
                    wait_for(lambda: process.namespace("net") != before, what="the process's move")

                yield process, move
        finally:
            child.kill()


class Opener(NetlinkOpener):
    """Counts, and may do something first."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.opened = 0
        self.before = before

    async def open(self, namespace: int, groups: int) -> Any:
        self.opened += 1
        self.before()
        return await super().open(namespace, groups)


def trying(test: Callable[[NetworkNamespaces, Opener, list[NetworkNamespace]], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        changes: list[NetworkNamespace] = []
        opener = Opener()
        namespaces = NetworkNamespaces(opener, changes.append)
        try:
            await test(namespaces, opener, changes)
        finally:
            namespaces.close()

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(run())
    assert len(os.listdir("/proc/self/fd")) == before


async def eventually(predicate: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not predicate():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def namespace_of_socket(namespace: NetworkNamespace) -> tuple[int, int]:
    assert namespace.watcher._socket is not None
    descriptor = fcntl.ioctl(namespace.watcher._socket, SIOCGSKNS)
    try:
        status = os.fstat(descriptor)
        return status.st_dev, status.st_ino
    finally:
        os.close(descriptor)


def packed(namespace: NetworkNamespace) -> set[bytes]:
    return {address.packed for address in namespace.watcher.addresses}


def test_one_ends_and_others_go_on() -> None:
    async def test(namespaces: NetworkNamespaces, opener: Opener, changes: list[NetworkNamespace]) -> None:
        with sleeper("-n") as pid, Process.open(pid) as first, joined(pid) as second:
            in_net(pid, "ip", "link", "set", "lo", "up")
            one = await namespaces.enter("web", "web", first)
            assert await namespaces.enter("db", "db", second) is one
            assert opener.opened == 1
            await eventually(one.watcher.known.is_set)
            namespaces.leave(one, "web")
            changes.clear()
            await asyncio.to_thread(in_net, pid, "ip", "address", "add", "192.0.2.1/32", "dev", "lo")
            await eventually(lambda: bytes([192, 0, 2, 1]) in packed(one))
            assert changes[-1] is one
            assert list(one.machines.values()) == ["db"]
            namespaces.leave(one, "db")
            again = await namespaces.enter("db", "db", second)
            assert again is not one
            assert opener.opened == 2
            namespaces.leave(again, "db")

    trying(test)


def test_the_hosts_own_has_no_addresses_of_a_machine() -> None:
    async def test(namespaces: NetworkNamespaces, opener: Opener, changes: list[NetworkNamespace]) -> None:
        with Process.open(os.getpid()) as process:
            host = await namespaces.enter("web", "web", process)
            assert host.is_host
            assert host.watcher.known.is_set()
            assert host.watcher.addresses == ()
            assert (opener.opened, changes) == (0, [])
            namespaces.leave(host, "web")

    trying(test)


def test_a_dead_leader_has_none() -> None:
    async def test(namespaces: NetworkNamespaces, _opener: Opener, _changes: list[NetworkNamespace]) -> None:
        with sleeper("-n") as pid, Process.open(pid) as process:
            os.kill(pid, 9)
            await eventually(process.exited)
            with pytest.raises(NoSuchProcess):
                await namespaces.enter("web", "web", process)

    trying(test)


def test_a_leader_that_moves_while_it_is_looked_at_is_where_its_socket_is() -> None:
    """Else the addresses of one network namespace would be those of machines in another."""
    async def test(namespaces: NetworkNamespaces, opener: Opener, _changes: list[NetworkNamespace]) -> None:
        with mover() as (moving, move):
            before = moving.namespace("net")
            opener.before = move
            went = await namespaces.enter("moved", "moved", moving)
            opener.before = lambda: None
            there = await namespaces.enter("db", "db", moving)
            assert (went.key, there.key) == (before, moving.namespace("net"))
            for namespace, key in ((went, "moved"), (there, "db")):
                assert namespace_of_socket(namespace) == namespace.key
                namespaces.leave(namespace, key)

    trying(test)


def test_two_who_come_at_once_share_it() -> None:
    async def run() -> None:
        namespaces = NetworkNamespaces(NetlinkOpener(by_thread=True), lambda _: None)
        with sleeper("-n") as pid, Process.open(pid) as first, joined(pid) as second:
            one, other = await asyncio.gather(namespaces.enter("web", "web", first),
                                              namespaces.enter("db", "db", second))
            assert one is other
            assert set(one.machines.values()) == {"web", "db"}
            namespaces.leave(one, "web")
            namespaces.leave(one, "db")
        namespaces.close()

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(run())
    assert len(os.listdir("/proc/self/fd")) == before


def test_readable_tells_once_and_again_when_asked() -> None:
    async def run() -> None:
        readable, calls = Readable(), []
        reading, writing = os.pipe()
        os.write(writing, b"x")
        for times in (1, 2):
            readable.once(reading, lambda: calls.append(1))
            await eventually(lambda times=times: len(calls) == times)  # type: ignore[misc]
            for _ in range(3):
                await asyncio.sleep(0)
            assert len(calls) == times
        readable.once(reading, lambda: calls.append(1))
        readable.forget(reading)
        readable.forget(reading)
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(calls) == 2
        os.close(reading)
        os.close(writing)
        readable.close()

    asyncio.run(run())
