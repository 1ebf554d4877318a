# SPDX-License-Identifier: MIT
"""Who may change what. Reading is everybody's."""

from dataclasses import dataclass

from resolver.core.errors import AccessDenied


@dataclass(frozen=True, slots=True)
class Subject:
    """Who asks, as the kernel vouches for it (SO_PEERCRED, unix(7))."""

    uid: int
    pid: int

    @property
    def privileged(self) -> bool:
        """root of the host."""
        return self.uid == 0


class RootOnly:
    """Where no polkit runs: root changes, nobody else."""

    async def check(self, subject: Subject, action: str) -> None:
        """AccessDenied where `subject` may not do `action`, a polkit action's last part (`manage-machines`)."""
        if not subject.privileged:
            raise AccessDenied(f"only root may do this here ({action})")
