# SPDX-License-Identifier: MIT
"""A test host with the real daemon, and what end-to-end tests ask of it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.lab import Container, Daemon, TestHost, command

MakeHost = Callable[..., TestHost]

EVENT_SECONDS = 0.5
"""Ten times the 50 ms within which a change inside a container is promised to be visible."""

MACHINE_SOCKET = "/run/systemd/machine/io.systemd.Machine"

CALL = """
import json, os, sys
from resolver.varlink.client import Client
from resolver.varlink.errors import VarlinkError
path, method, parameters, more, uid = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4], sys.argv[5]
os.setresuid(int(uid), int(uid), int(uid))  # here: the interpreter may lie where only root can read it
with Client(path, 10) as client:
    try:
        replies = list(client.call_more(method, parameters)) if more == 'more' else [client.call(method, parameters)]
        print(json.dumps({"replies": replies}))
    except VarlinkError as error:
        print(json.dumps({"error": error.name, "parameters": error.parameters}))
"""


class World:
    """A TestHost with a running daemon."""

    def __init__(self, host: TestHost, daemon: Daemon) -> None:
        self.host, self.daemon = host, daemon

    def ctl(self, *arguments: object, check: bool = True, **options: Any) -> str:
        """Output of mymachinesctl."""
        done = self.host.run([*command("mymachinesctl"), *map(str, arguments)], check=check, **options)
        return done.stdout if check else f"{done.returncode}: {done.stderr or done.stdout}"

    def register(self, container: Container, name: str | None = None, *options: object) -> None:
        self.ctl("register", name or container.name, "--leader", container.leader, *options)

    def machine(self, name: str, *options: object, **wishes: Any) -> Container:
        """A container that is running and registered."""
        container = self.host.container(name.replace(".", "-")[:11], **wishes)
        self.register(container, name, *options)
        return container

    def getent(self, *arguments: object) -> list[str]:
        """getent's lines, blanks folded; empty where it knows nothing."""
        done = self.host.run(["getent", *map(str, arguments)])
        assert done.returncode in (0, 2), done.stderr  # getent(1): 2, a key was not found
        return [" ".join(line.split()) for line in done.stdout.splitlines()]

    def addresses(self, database: str, name: str) -> list[str]:
        """What getent ahosts and its like give, each address once, in order."""
        return list(dict.fromkeys(line.split()[0] for line in self.getent(database, name)))

    def restart(self) -> None:
        """Start a daemon where the last one has ended."""
        self.daemon = self.host.start_daemon()


@pytest.fixture
def world(host: TestHost) -> World:
    return World(host, host.start_daemon())
