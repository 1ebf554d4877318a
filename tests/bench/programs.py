# SPDX-License-Identifier: MIT
"""The bench's own C programs: built, run on a test host, and what they print read."""

import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from tests.lab import TestHost

SOURCES = Path(__file__).parent
NAMES = ("canned", "leaders", "lookups", "registrar", "visible")
WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror")
TIMEOUT = 300.0


class Timing(NamedTuple):
    """Nanoseconds; see lookups.c."""

    found: int
    loading: float
    first: float
    median: float
    p99: float
    loop: float


class Watched(NamedTuple):
    """What a reader saw; `longest` in nanoseconds."""

    calls: int
    found: int
    longest: float


class Registered(NamedTuple):
    """Nanoseconds; see registrar.c."""

    failures: int
    all: float
    median: float
    p99: float


class Programs:
    """A folder with the programs, that all test hosts see: make it before them. A context manager."""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self.folder = Path(self._folder.name)
        self.folder.chmod(0o755)
        for name in NAMES:
            subprocess.run([os.environ.get("CC", "cc"), "-O2", *WARNINGS, "-D_GNU_SOURCE", "-o",
                            str(self.folder / name), str(SOURCES / f"{name}.c")], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def keys(self, keys: Iterable[object]) -> str:
        """The path of a file with these."""
        descriptor, path = tempfile.mkstemp(prefix="keys-", dir=self.folder)
        os.chmod(path, 0o644)
        with open(descriptor, "w", encoding="ascii") as file:
            file.writelines(f"{key}\n" for key in keys)
        return path

    def lookups(self, host: TestHost, module: str, kind: str, keys: str, calls: int) -> Timing:
        words = self._run(host, "lookups", "time", module, kind, str(calls), keys)
        return Timing(int(words[0]), *map(float, words[1:]))

    def lookups_at_once(self, host: TestHost, clients: int, module: str, kind: str, keys: str, calls: int) -> float:
        """Nanoseconds a call, of all clients' calls together. All must find something."""
        found, each = self._run(host, "lookups", f"clients={clients}", module, kind, str(calls), keys)
        assert int(found) == clients * calls, f"{found} of {clients * calls} look-ups found something"
        return float(each)

    def watch(self, host: TestHost, module: str, kind: str, keys: str) -> "Watcher":
        return Watcher(host, [self.path("lookups"), "watch", module, kind, "0", keys])

    def register(self, host: TestHost, protocol: str, machines: Sequence[tuple[str, int]], clients: int = 1,
                 rounds: int = 1) -> Registered:
        """AssertionError where a registration fails. More rounds: unregistered too, each time."""
        text = "".join(f"{name} {leader}\n" for name, leader in machines)
        done = host.run([self.path("registrar"), protocol, str(clients), str(rounds)], input=text, check=True,
                        timeout=TIMEOUT)
        words = done.stdout.split()
        assert words[0] == "0", f"{words[0]} registrations failed: {done.stderr[:1000]}"
        return Registered(0, *map(float, words[1:]))

    def serve_canned(self, host: TestHost, path: str, reply: bytes) -> None:
        """Something that answers every call at `path` with that, as long as the host lasts; see canned.c."""
        server = host.popen([self.path("canned"), path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert server.stdin is not None
        assert server.stdout is not None
        with server.stdin:
            server.stdin.write(reply)
        with server.stdout:
            assert server.stdout.readline() == b"listening\n"

    def visible(self, host: TestHost, leader: int, name: str, address: str, times: int) -> list[float]:
        """Nanoseconds from an address change in a guest to the answer; see visible.c."""
        return [float(word) for word in self._run(host, "visible", str(leader), name, "host0", address, str(times))]

    def _run(self, host: TestHost, name: str, *arguments: str) -> list[str]:
        return host.run([self.path(name), *arguments], check=True, timeout=TIMEOUT).stdout.split()


class Watcher:
    """A reader that goes on asking until `stop`."""

    def __init__(self, host: TestHost, argv: Sequence[str]) -> None:
        self._process = host.popen(argv, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"watching\n"

    def stop(self) -> Watched:
        self._process.terminate()
        words = self._process.communicate(timeout=TIMEOUT)[0].split()
        return Watched(int(words[0]), int(words[1]), float(words[2]))
