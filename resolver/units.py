# SPDX-License-Identifier: MIT
"""What is asked of the service manager; resolver.dbus.systemd asks systemd."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol


class UnitProperty(NamedTuple):
    """A property of a unit to be: its name, its D-Bus signature, and the value in that signature's form."""

    name: str
    signature: str
    value: Any


class Units(Protocol):
    """Every call waits for the service manager, with a deadline: NotAvailable at its end. NotSupported without one."""

    async def start_scope(self, name: str, pid: int, description: str, properties: Sequence[UnitProperty],
                          pidfd: int | None = None) -> None:
        """Put a process into a new scope in machine.slice; returns when it runs there.

        `pidfd` is borrowed, and makes sure of the process where the service manager takes it.
        """

    async def stop(self, unit: str) -> None:
        """Have a unit stopped; returns when the service manager has taken the job, not when it is done."""
