# SPDX-License-Identifier: MIT
"""The real daemon with its userdb process, the hook, and DNS, on a test host with a real container `web`."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from tests.dbus.bus import Bus
from tests.endtoend.conftest import World as Host
from tests.lab import PROJECT, Daemon, TestHost, wait_for
from tests.lab.processes import children, describe
from tests.soak.callers.doors import Door, doors

HOSTILE_UID, HONEST_UID = 65534, 1
"""nobody and daemon: dbus-daemon takes nobody in whom NSS does not know."""

DNS_PORT = 5300
PHASE_SECONDS = 120.0
"""For a phase to end; it takes some seconds."""


class Answers(NamedTuple):
    seconds: list[float]
    failed: list[str]


class Weight(NamedTuple):
    """Of a process: descriptors, and bytes of memory that are its own share (PSS, proc(5))."""

    descriptors: int
    memory: int


class World:
    """A context manager. `server` is the process behind each door."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: where another copy of the project is."""
        self._stack = ExitStack()
        self.environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/",
                             "PYTHONPATH": f"{folder or PROJECT}:{PROJECT}"}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            bus = stack.enter_context(Bus())
            self.host = stack.enter_context(TestHost())
            environment = {**self.environment, "DBUS_SYSTEM_BUS_ADDRESS": bus.address}
            self.daemon = self._start("resolver.daemon", environment=environment)
            self.hook = self._start("resolver.hook.__main__")
            self.dns = self._start("resolver.dns.__main__", f"--listen=127.0.0.1:{DNS_PORT}")
            Host(self.host, self.daemon).machine("web")
            wait_for(self._find_userdb, what="the userdb process")
            self.doors: dict[str, Door] = doors(DNS_PORT, str(bus.socket))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def server(self, door: str) -> int:
        """Its pid."""
        return {"userdb": self._find_userdb() or 0, "hook": self.hook.pid, "dns": self.dns.pid}.get(
            door, self.daemon.pid)

    def weight(self, door: str) -> Weight:
        pid = self.server(door)
        pss = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        assert pss
        return Weight(len(list(Path(f"/proc/{pid}/fd").iterdir())), int(pss[1]) * 1024)

    def ask(self, door: str, count: int) -> Answers:
        """As another user than the hostile one."""
        done = self.host.run(self._module("asker", door, self.doors[door].place, count, HONEST_UID),
                             env=self.environment, cwd=PROJECT, timeout=PHASE_SECONDS, check=True)
        return Answers(**json.loads(done.stdout))

    @contextmanager
    def hog(self, door: str, how: str, count: int) -> Iterator[int]:
        """Gives the number of connections that are held."""
        before = self.weight(door).descriptors
        hog = self.host.popen(self._module("hog", door, self.doors[door].place, how, count, HOSTILE_UID),
                              env=self.environment, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert hog.stdout is not None
            word, _, held = hog.stdout.readline().decode().partition(" ")
            assert word == "ready"
            yield int(held)
        finally:
            hog.communicate(b"", timeout=PHASE_SECONDS)
            # The server has noticed that they are gone: the next phase begins as this one did.
            wait_for(lambda: self.weight(door).descriptors < before + 32, PHASE_SECONDS, "connections to be closed")

    @contextmanager
    def churn(self, machines: int) -> Iterator[None]:
        """Machines that come and go meanwhile: those who listen are told."""
        churn = self.host.popen(self._module("churn", machines), env=self.environment, cwd=PROJECT,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert churn.stdout is not None
            assert churn.stdout.readline() == b"ready\n"
            yield
        finally:
            churn.communicate(b"", timeout=PHASE_SECONDS)
            assert churn.returncode == 0

    def _module(self, name: str, *arguments: object) -> list[str]:
        return [sys.executable, "-m", f"tests.soak.callers.{name}", *map(str, arguments)]

    def _start(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Daemon:
        code = f"import sys; from {module} import main; sys.exit(main())"
        # -P: no other copy of the project is found before the one that is asked for
        return self.host.start_daemon([sys.executable, "-P", "-c", code], *arguments,
                                      env=environment or self.environment)

    def _find_userdb(self) -> int | None:
        return next((pid for pid in children(self.daemon.pid) if "userdb" in describe(pid)), None)
