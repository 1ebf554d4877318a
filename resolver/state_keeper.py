# SPDX-License-Identifier: MIT
"""Keeps the state files in step with the registry, also where /run refuses for a time: read-only, or without room."""

import asyncio
import logging

from resolver.core.errors import NotAvailable
from resolver.core.machine import Machine
from resolver.core.registry import Registry
from resolver.host.state_files import Loaded, StateFiles

RETRY_SECONDS = 1.0
"""Between tries to remove what could not be removed: as often as for room for the table."""

_log = logging.getLogger(__name__)


class StateKeeper:
    """What is asked for is refused where it cannot be kept; what happens by itself is kept as soon as that can be."""

    def __init__(self, files: StateFiles, registry: Registry) -> None:
        self._files = files
        self._registry = registry
        self._ended: dict[str, Machine] = {}  # by name: whose files are still to be removed
        self._retry: asyncio.TimerHandle | None = None

    def load(self) -> Loaded:
        """As StateFiles.load()."""
        return self._files.load()

    def save(self, machine: Machine) -> None:
        """Keep a machine that the registry has. NotAvailable, and nothing is kept."""
        try:
            self._files.save(machine, linked=self._owns_its_unit(machine))
        except OSError as error:
            raise NotAvailable(f"the machine's state cannot be kept: {error}") from error
        self._ended.pop(machine.name, None)

    def remove(self, machine: Machine) -> None:
        """Keep it no more, before the registry lets it go. NotAvailable: after a restart it would be back."""
        try:
            self._files.remove(machine.name, machine.unit)
        except OSError as error:
            raise NotAvailable(f"the machine's state cannot be removed: {error}") from error

    def forget(self, machine: Machine) -> None:
        """Keep a machine no more that has ended. Never fails; in the worst case its leader is found gone at a start."""
        try:
            self._files.remove(machine.name, machine.unit)
        except OSError as error:
            _log.error("The state file of machine %s cannot be removed, which is tried again: %s", machine.name, error)
            self._ended[machine.name] = machine
            self._schedule()

    def unit_left(self, unit: str) -> None:
        """A machine in this unit has been let go: the next one's link takes the place of its."""
        heir = self._registry.by_unit(unit)
        if heir is not None:
            try:
                self._files.link(heir.machine)
            except OSError as error:
                _log.error("The link of machine %s cannot be made, which is tried again: %s", heir.machine.name, error)
                self._schedule()

    def tidy(self) -> None:
        """Put right what a daemon that was killed, or had no room, left undone. Never fails."""
        try:
            self._tidy()
        except OSError as error:
            _log.error("The state files cannot be put right, which is tried again: %s", error)
            self._schedule()

    def close(self) -> None:
        """Try no more."""
        if self._retry is not None:
            self._retry.cancel()

    def _owns_its_unit(self, machine: Machine) -> bool:
        owner = self._registry.by_unit(machine.unit)
        return owner is not None and owner.machine.name == machine.name

    def _tidy(self) -> None:
        for machine in list(self._ended.values()):
            self._files.remove(machine.name, machine.unit)
            del self._ended[machine.name]
        self._files.tidy(entry.machine for entry in self._registry if self._owns_its_unit(entry.machine))

    def _schedule(self) -> None:
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        try:
            self._tidy()
        except OSError:
            self._schedule()  # said once already
        else:
            _log.warning("The state files are in step again")
