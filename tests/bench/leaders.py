# SPDX-License-Identifier: MIT
"""Leaders of machines by the thousand; leaders.c makes them, and tells what they are."""

import resource
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.programs import Programs
from tests.lab import FIRST_CONTAINER_ID, TestHost, Unavailable, wait_for
from tests.lab.cgroups import SLICE_PREFIX, hierarchies
from tests.lab.waiting import Lines

IDS = 65536
NETWORK_SIZE = 8
MAKING_SECONDS = 300.0
"""For all of them; a namespace takes a millisecond or a few."""
UNIT_DESCRIPTORS = 65536
"""LimitNOFILE= of system/mymachinesd.service."""


def grant_descriptors() -> None:
    """To a daemon that we start, as many as its unit grants, where we may (getrlimit(2)): a pidfd for each machine."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < UNIT_DESCRIPTORS:
        with suppress(ValueError, PermissionError):     # no CAP_SYS_RESOURCE
            resource.setrlimit(resource.RLIMIT_NOFILE, (UNIT_DESCRIPTORS, UNIT_DESCRIPTORS))


class Leaders:
    """A context manager. `pids[n]` leads machine n, whose host ids begin at `first_id(n)`.

    The first `networks` have network namespaces of their own, a veth link to the host and three addresses; others share
    these.
    With `units`, each is in a control group of its own, as systemd-machined demands.
    """

    def __init__(self, programs: Programs, host: TestHost, count: int, networks: int = 0, *,
                 units: bool = False) -> None:
        self.host, self.count, self.networks = host, count, min(count, networks)
        grant_descriptors()
        self.pids: list[int] = []
        self._slice = self._make_slice() if units else None
        self._argv = [programs.path("leaders"), str(count), str(self.networks), str(FIRST_CONTAINER_ID),
                      str(self._slice or "-")]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._process = self.host.popen(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            lines = Lines(self._process)
            self.pids = [int(lines.next(MAKING_SECONDS)) for _ in range(self.count)]
            assert lines.next(MAKING_SECONDS) == "made"
            if self.networks:
                self._make_links()
                assert self._process.stdin is not None
                self._process.stdin.write(b"links\n")
                self._process.stdin.flush()
                assert lines.next(MAKING_SECONDS) == "configured"
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, _kind: type[BaseException] | None, _value: object, _trace: TracebackType | None) -> None:
        self.close()

    @property
    def machines(self) -> list[tuple[str, int]]:
        """Names and leaders' pids."""
        return [(f"m{number}", pid) for number, pid in enumerate(self.pids)]

    @staticmethod
    def first_id(number: int) -> int:
        return FIRST_CONTAINER_ID + number * IDS

    @staticmethod
    def address(network: int, last: int = 2) -> str:
        """Of the guest 2, 3, 4; of the host 1."""
        base = network * NETWORK_SIZE + last
        return f"10.{base >> 16}.{base >> 8 & 255}.{base & 255}"

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate(timeout=MAKING_SECONDS)   # at the end of its input it ends all leaders
            self._process = None
        if self._slice is not None:
            for group in self._slice.iterdir():
                if group.is_dir():
                    wait_for(lambda group=group: self._removed(group), what=f"{group} to be empty")  # type: ignore[misc]
            self._slice.rmdir()
            self._slice = None

    def _make_links(self) -> None:
        lines = []
        for number in range(self.networks):
            lines += [f"link add ve-{number} type veth peer name host0 netns {self.pids[number]}",
                      f"address add {self.address(number, 1)}/29 dev ve-{number}", f"link set ve-{number} up"]
        self.host.run(["ip", "-batch", "-"], input="\n".join(lines), check=True, timeout=MAKING_SECONDS)

    @staticmethod
    def _make_slice() -> Path:
        unified = [mount for mount in hierarchies() if (mount / "cgroup.controllers").exists()]
        if not unified:
            raise Unavailable("no cgroup v2 is mounted, where a process can be made in a group")
        path = unified[0] / f"{SLICE_PREFIX}leaders.slice"
        path.mkdir()
        return path

    @staticmethod
    def _removed(group: Path) -> bool:
        try:
            group.rmdir()
        except FileNotFoundError:
            pass
        except OSError:     # EBUSY: the kernel has not yet let go of its process
            return False
        return True
