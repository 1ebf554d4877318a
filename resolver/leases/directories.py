# SPDX-License-Identifier: MIT
"""Follows directories that may not be there yet, by inotify(7): for each, the nearest that is there is watched.

Servers replace their files by renaming, or write over them in place and keep them open (dnsmasq), so both are told of.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress

from resolver.host import inotify

WAKE_READS = 4
"""Reads of the queue in one turn of the loop; others write to these directories too."""

TRIES = 3
"""To catch a directory that comes and goes while it is looked for."""

PAUSE_SECONDS = 0.02
"""Between two turns."""

_FILES = (inotify.IN_MODIFY | inotify.IN_CLOSE_WRITE | inotify.IN_ATTRIB | inotify.IN_CREATE | inotify.IN_DELETE
          | inotify.IN_MOVED_FROM | inotify.IN_MOVED_TO)
_PARENT = inotify.IN_CREATE | inotify.IN_MOVED_TO
_SELF = inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF | inotify.IN_ONLYDIR
_GONE = inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF | inotify.IN_IGNORED

_log = logging.getLogger(__name__)


class Directories:
    """Tells what happens to the files of directories, on the running loop, until closed.

    `on_event(directory, name)`; `name` is None where the directory has come, or gone, or nobody knows what happened in
    it. Directories that there are at the start are not told of.
    """

    def __init__(self, directories: list[str], on_event: Callable[[str, str | None], object]) -> None:
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._inotify = inotify.Inotify()
        self._timer: asyncio.TimerHandle | None = None
        self._watches: dict[int, dict[str, str]] = {}
        """By number: the directories that it is for, and the name in it that they wait for, empty for themselves."""
        for directory in directories:
            self._place(directory)
        self._listen()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._inotify.fileno() >= 0:
            self._loop.remove_reader(self._inotify.fileno())
        self._inotify.close()

    def _listen(self) -> None:
        self._timer = None
        self._loop.add_reader(self._inotify.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        self._loop.remove_reader(self._inotify.fileno())
        self._timer = self._loop.call_later(PAUSE_SECONDS, self._listen)
        for _ in range(WAKE_READS):
            events = self._inotify.read()
            if not events:
                return
            for event in dict.fromkeys(events):
                self._on(event)
                if self._inotify.fileno() < 0:
                    return  # closed by whom it was told to

    def _on(self, event: inotify.Event) -> None:
        if event.mask & inotify.IN_Q_OVERFLOW:
            for directory in [directory for watch in self._watches.values() for directory in watch]:
                self._place(directory)
                self._on_event(directory, None)
            return
        for directory, awaited in list(self._watches.get(event.watch, {}).items()):
            if event.mask & _GONE or (awaited and awaited == event.name):
                self._place(directory)
                self._on_event(directory, None)
            elif not awaited and event.name:
                self._on_event(directory, event.name)
        if event.mask & inotify.IN_IGNORED:
            self._watches.pop(event.watch, None)

    def _place(self, directory: str) -> None:
        """Watch it, or the nearest above it that is there."""
        for _ in range(TRIES):
            self._displace(directory)
            awaited = self._watch_nearest(directory)
            # It may have come since it was looked for.
            if not awaited or not os.path.isdir(awaited):
                return
        _log.warning("%s cannot be followed", directory)

    def _watch_nearest(self, directory: str) -> str:
        """Returns what is waited for: a directory above it that is not there, or itself; nothing where it is."""
        path, awaited = directory, ""
        while True:
            try:
                # IN_MASK_ADD: another may wait for something in the same one
                watch = self._inotify.add(path, _SELF | inotify.IN_MASK_ADD | (_PARENT if awaited else _FILES))
            except OSError as error:
                if path == "/":
                    _log.warning("%s cannot be followed: %s", directory, error)
                    return ""
                path, awaited = os.path.dirname(path), os.path.basename(path)
                continue
            self._watches.setdefault(watch, {})[directory] = awaited
            return os.path.join(path, awaited) if awaited else ""

    def _displace(self, directory: str) -> None:
        for watch, users in list(self._watches.items()):
            if users.pop(directory, None) is not None and not users:
                del self._watches[watch]
                with suppress(OSError):
                    self._inotify.remove(watch)
