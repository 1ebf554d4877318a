# SPDX-License-Identifier: MIT
"""No test of a server leaves a descriptor, a thread or a task behind."""

import gc
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.waiting import wait_for
from tests.servers.dialogue import Running

Serve = Callable[..., Running]


def open_files() -> dict[str, str]:
    """The descriptors of this process and what they are."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            pass  # the one that listdir() itself had open
    return found


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    gc.collect()
    files, threads = open_files(), set(threading.enumerate())
    yield
    gc.collect()
    assert {fd: file for fd, file in open_files().items() if files.get(fd) != file} == {}
    wait_for(lambda: set(threading.enumerate()) <= threads, what="threads to end")


@pytest.fixture(params=["epoll", "asyncio"])
def loop_kind(request: pytest.FixtureRequest) -> str:
    """Each test of a server runs on both loops."""
    return str(request.param)


@pytest.fixture
def serve(tmp_path: Path, loop_kind: str) -> Iterator[Serve]:
    """serve(...) starts a server on a thread; arguments as Running's."""
    servers: list[Running] = []

    def start(**options: Any) -> Running:
        servers.append(Running(loop_kind, str(tmp_path / f"socket{len(servers)}"), **options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
