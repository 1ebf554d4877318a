# SPDX-License-Identifier: MIT
"""A control group for a booted host: the one that systemd-nspawn is started in becomes the host's root of all groups.

Without one of its own, a host would share this machine's groups with every other that is booted the same way, and each
systemd would take the others' processes for its own.
"""

import errno
import os
from pathlib import Path

from tests.lab import Unavailable, wait_for
from tests.lab.cgroups import hierarchies
from tests.lab.processes import kill_all

REMOVE_SECONDS = 10     # the kernel lets go of a group some time after its last process


PREFIX = "mymachines-test-"


class Groups:
    """By one path in every hierarchy that systemd-nspawn writes to. `remove` when nothing runs there any more."""

    def __init__(self, name: str) -> None:
        """`name` begins with this process's id, up to a dot."""
        for mount in hierarchies():
            for old in mount.glob(f"{PREFIX}*"):
                if not Path("/proc", old.name.removeprefix(PREFIX).partition(".")[0]).exists():
                    end(old)
        self._folders = [mount / f"{PREFIX}{name}" for mount in hierarchies()]
        if not self._folders:
            raise Unavailable("no control group hierarchy is mounted")
        try:
            for folder in self._folders:
                folder.mkdir()
        except OSError as error:
            self.remove()
            raise Unavailable(f"cannot make control groups: {error}") from error

    def enter(self) -> list[str]:
        """The words before a command that runs it there."""
        procs = " ".join(f"{folder}/cgroup.procs" for folder in self._folders)
        return ["sh", "-c", f'for procs in {procs}; do echo $$ >"$procs" || exit; done; exec "$@"', "sh"]

    def remove(self) -> None:
        """With all that was made inside."""
        for folder in self._folders:
            end(folder)


def end(top: Path) -> None:
    """Remove a group. What still runs there is killed: the host of a test run that was killed outlives it."""
    kill_all(int(pid) for procs in top.rglob("cgroup.procs") for pid in procs.read_text().split())
    wait_for(lambda: removed(top), REMOVE_SECONDS, f"{top} to be removable")


def removed(top: Path) -> bool:
    """Whether a group and all inside could be removed, or was not there."""
    for group, _, _ in os.walk(top, topdown=False):
        try:
            os.rmdir(group)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
    return not top.exists()
