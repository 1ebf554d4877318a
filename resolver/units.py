# SPDX-License-Identifier: MIT
"""What is asked of the service manager; resolver.dbus.systemd asks systemd."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from resolver.core.errors import NotSupported


class UnitProperty(NamedTuple):
    """A property of a unit to be: its name, its D-Bus signature, and the value in that signature's form."""

    name: str
    signature: str
    value: Any


class Units(Protocol):
    """Every call waits for the service manager, with a deadline: NotAvailable at its end."""

    async def start_scope(self, name: str, pid: int, description: str, properties: Sequence[UnitProperty]) -> None:
        """Put a process into a new scope in machine.slice; returns when it runs there."""

    async def stop(self, unit: str) -> None:
        """Have a unit stopped; returns when the service manager has taken the job, not when it is done."""


class NoUnits:
    """Where no systemd runs."""

    async def start_scope(self, *_: object) -> None:
        raise NotSupported("units are systemd's, which does not run here")

    async def stop(self, *_: object) -> None:
        raise NotSupported("units are systemd's, which does not run here")
