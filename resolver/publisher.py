# SPDX-License-Identifier: MIT
"""Keeps the table in step with the registry, and falls back to nss.sock where /run has no room for it."""

import asyncio
import logging
from collections.abc import Sequence

from resolver.core.registry import Change
from resolver.table.writer import TableWriter

RETRY_SECONDS = 1.0
"""Between tries for room in /run: as often as processes look for a new table."""

_log = logging.getLogger(__name__)


class Publisher:
    """publish() never fails. Without room the table is withdrawn, so that processes ask the daemon instead of reading
    what is no longer true, and comes back as soon as there is room."""

    def __init__(self, writer: TableWriter) -> None:
        self._writer = writer
        self._retry: asyncio.TimerHandle | None = None
        self.withdrawals = 0
        """How often there was no room for the table."""

    @property
    def withdrawn(self) -> bool:
        return self._retry is not None

    def start(self) -> None:
        """Publish the registry as it is."""
        try:
            self._writer.reset()
        except OSError as error:
            self._withdraw(error)

    def publish(self, changes: Sequence[Change]) -> None:
        """Make the changes visible before returning."""
        if self.withdrawn:
            return  # the registry has them; the table that comes back will too
        try:
            self._writer.publish(changes)
        except OSError as error:
            self._withdraw(error)

    def close(self, unlink: bool) -> None:
        """Stop. With `unlink`, the table is taken away."""
        if self._retry is not None:
            self._retry.cancel()
        self._writer.close(unlink)

    def _withdraw(self, error: OSError) -> None:
        _log.error("The table %s cannot be written, look-ups ask the daemon until it can: %s", self._writer.path, error)
        self._writer.close(unlink=True)
        self.withdrawals += 1
        self._schedule()

    def _schedule(self) -> None:
        self._retry = asyncio.get_running_loop().call_later(RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        try:
            self._writer.reset()
        except OSError:
            self._schedule()  # said once already
        else:
            _log.warning("The table %s is back", self._writer.path)
