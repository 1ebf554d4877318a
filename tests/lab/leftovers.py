# SPDX-License-Identifier: MIT
"""What a test may not leave behind on the machine: processes, network interfaces, mounts, control groups."""

import os
import signal
import socket
from pathlib import Path

from . import cgroups
from .processes import children, describe, is_alive
from .waiting import wait_for

GRACE = 5.0     # seconds; what ends by itself, such as a child of something just killed, may take a moment


class Machine:
    """A picture of the machine before a test; `leftovers` says what is new."""

    def __init__(self) -> None:
        self._processes = set(children())
        self._interfaces = {name for _, name in socket.if_nameindex()}
        self._mounts = mounts()
        self._cgroups = cgroups.leftovers()

    def _new_processes(self) -> list[int]:
        return [pid for pid in children() if pid not in self._processes and is_alive(pid)]

    def leftovers(self) -> list[str]:
        found = [f"process {describe(pid)}" for pid in self._new_processes()]
        found += [f"interface {name}" for _, name in socket.if_nameindex() if name not in self._interfaces]
        found += [f"mount {point}" for point in mounts() - self._mounts]
        found += [f"control group {path}" for path in cgroups.leftovers() - self._cgroups]
        return sorted(found)

    def assert_as_before(self) -> None:
        """AssertionError names what is new and stays; what can be removed, processes, is, so that one test fails."""
        try:
            wait_for(lambda: not self.leftovers(), GRACE)
        except AssertionError:
            left = self.leftovers()
            for pid in self._new_processes():
                os.kill(pid, signal.SIGKILL)
            raise AssertionError("left behind: " + "; ".join(left)) from None


def mounts() -> set[str]:
    """The mount points that this process sees."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line.split()[4] for line in lines}
