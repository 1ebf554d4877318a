# SPDX-License-Identifier: MIT
"""Who may change what. Reading is everybody's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Subject:
    """Who asks, as the kernel or the bus vouches for it.

    `pidfd` is borrowed, and None where the process is gone or the kernel has none. `bus_name` is the unique name of
    who asks over D-Bus. `interactive`: the caller can wait while its user is asked for a password.
    """

    uid: int
    pid: int
    pidfd: int | None = None
    bus_name: str | None = None
    interactive: bool = False

    @property
    def privileged(self) -> bool:
        """root of the host."""
        return self.uid == 0


class Authority(Protocol):
    """Decides; resolver.dbus.polkit asks polkit."""

    async def check(self, subject: Subject, action: str, details: Mapping[str, str]) -> None:
        """AccessDenied, or AuthenticationRequired, where `subject` may not do `action`, now.

        `action` is the last part of one of org.freedesktop.machine1's polkit actions (`manage-machines`); `details` are
        what a rule may decide by: name, class, verb.
        """
