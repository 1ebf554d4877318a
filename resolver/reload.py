# SPDX-License-Identifier: MIT
"""Read the configuration anew, and apply it: all of it, or, where something is wrong with it, nothing."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from resolver.config.read import read_configuration
from resolver.config.settings import Settings
from resolver.notify import notify

APPLY_SECONDS = 30.0
"""Lease files that are to be read may lie on a disk that hangs; the watcher of these gives up earlier."""

_log = logging.getLogger(__name__)


class Reload:
    """request() may be called at any time, from a signal handler too: those that come together are one."""

    def __init__(self, path: str, settings: Settings, apply: Callable[[Settings], Awaitable[None]]) -> None:
        """`apply` raises OSError where something cannot be had."""
        self.applied = settings
        self._path = path
        self._apply = apply
        self._wanted = False
        self._task: asyncio.Task[None] | None = None

    def request(self) -> None:
        self._wanted = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Reload no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._wanted:
            self._wanted = False
            # sd_notify(3): the clock lets the service manager tell which request this answers.
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                await self._reload()
            finally:
                notify("READY=1")

    async def _reload(self) -> None:
        configuration = await asyncio.to_thread(read_configuration, self._path)
        for problem in configuration.problems:
            _log.error("%s", problem)
        if configuration.problems:
            _log.error("Nothing of the configuration is applied: see above")
            return
        try:
            async with asyncio.timeout(APPLY_SECONDS):
                await self._apply(configuration.settings)
        except OSError as error:    # TimeoutError too
            _log.error("The configuration is applied in part: %s", str(error) or "it takes too long")
            return
        self.applied = configuration.settings
        _log.info("The configuration is applied: %s", ", ".join(configuration.files) or "there is none")
