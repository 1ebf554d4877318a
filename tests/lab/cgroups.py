# SPDX-License-Identifier: MIT
"""A unit's control group without a systemd that made it.

libsystemd finds a process's unit in /proc/PID/cgroup alone: the first component of the path that is no slice, in the
hierarchy that systemd would use, which is cgroup v2, or on older set-ups the v1 hierarchy `name=systemd`. Which of
the two it takes depends on how /sys/fs/cgroup is mounted; a scope here is made in each that exists.
"""

import errno
import itertools
import os
from pathlib import Path

from .processes import is_alive, kill_all
from .waiting import Unavailable, wait_for

# Control groups are not namespaced by anything the lab does: the slice's name keeps two test runs apart.
SLICE_PREFIX = f"mymachineslab{os.getpid()}x"
_numbers = itertools.count(1)


def hierarchies() -> list[Path]:
    """Where the hierarchies that libsystemd reads are mounted: cgroup v2, v1's name=systemd, or both (hybrid)."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(left.split()[4]))
    return found


class Scope:
    """The unit `name`, in a slice of its own, in every hierarchy. `close` kills what is left in it and removes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._slices = [mount / f"{SLICE_PREFIX}{next(_numbers)}.slice" for mount in hierarchies()]
        if not self._slices:
            raise Unavailable("no control group hierarchy is mounted that libsystemd reads")
        try:
            for slice_ in self._slices:
                (slice_ / name).mkdir(parents=True)
        except OSError as error:
            self.close()
            raise Unavailable(f"cannot make control groups: {error}") from error

    @property
    def procs_files(self) -> list[Path]:
        """Write a pid, or 0 for oneself, to each."""
        return [slice_ / self.name / "cgroup.procs" for slice_ in self._slices]

    def add(self, pid: int) -> None:
        for procs in self.procs_files:
            procs.write_text(str(pid))

    def freeze(self, frozen: bool) -> None:
        """All of it at once, as `systemctl freeze` does; v2 alone has that. Returns when it is so."""
        files = [slice_ / self.name / "cgroup.freeze" for slice_ in self._slices]
        files = [file for file in files if file.exists()]
        if not files:
            raise Unavailable("this kernel has no cgroup.freeze")
        for file in files:
            file.write_text(str(int(frozen)))
            events = file.with_name("cgroup.events")
            wait_for(lambda events=events: f"frozen {int(frozen)}" in events.read_text())  # type: ignore[misc]

    def pids(self) -> set[int]:
        return {int(pid) for procs in self.procs_files if procs.exists() for pid in procs.read_text().split()}

    def close(self) -> None:
        kill_all(filter(is_alive, self.pids() - {0}))
        for slice_ in self._slices:
            for folder in (slice_ / self.name, slice_):
                wait_for(lambda folder=folder: _removed(folder), what=f"{folder} to be removable")  # type: ignore[misc]


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:    # its last process has ended, but the kernel has not yet let go of it
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def leftovers() -> set[str]:
    """The slices of this test run that still exist."""
    return {str(path) for mount in hierarchies() for path in mount.glob(f"{SLICE_PREFIX}*")}
