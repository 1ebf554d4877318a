# SPDX-License-Identifier: MIT
"""A machine by descriptors, so that what is entered is what was held, whatever becomes of its processes' numbers."""

import os
from dataclasses import dataclass, field
from typing import Self

from resolver.core.errors import NoSuchMachine
from resolver.core.idmap import IdMap
from resolver.host.process import NoSuchProcess, Process


@dataclass(frozen=True, slots=True)
class Place:
    """`root` is a descriptor of its root directory (O_PATH). The namespaces are None where they are the host's."""

    root: int
    user_namespace: int | None = None
    pid_namespace: int | None = None
    mount_namespace: int | None = None
    uid_map: IdMap = field(default_factory=IdMap)
    mounts: int | None = None
    """The machine's mounts, as /proc/PID/mountinfo has them (proc_pid_mountinfo(5))."""

    @classmethod
    def of_host(cls) -> Self:
        return cls(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    @classmethod
    def of_leader(cls, pidfd: int) -> Self:
        """The machine of this leader. NoSuchMachine where it has exited."""
        try:
            with Process.from_pidfd(pidfd) as leader:
                def own(kind: str) -> int | None:
                    return None if leader.shares_namespace(kind) else leader.open_namespace(kind)  # type: ignore[arg-type]

                mounts = os.open(f"/proc/{leader.pid}/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
                # Behind that: what was opened by number is the leader's.
                return cls(leader.open_root(), own("user"), own("pid"), own("mnt"), leader.id_maps().uid, mounts)
        except NoSuchProcess:
            raise NoSuchMachine("its leader has just exited") from None

    @property
    def is_host(self) -> bool:
        """Whether its files are the host's own, as the host sees them."""
        return self.mount_namespace is None
