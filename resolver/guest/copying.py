# SPDX-License-Identifier: MIT
"""Copies between the host and machines, for the daemon: copy_worker.py does them."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from resolver.core.errors import InvalidArgument, MachineError
from resolver.host.process import Process
from resolver.worker.run import Workers

PATIENCE_SECONDS = 60.0
"""Of silence. A copy may take as long as it likes while it goes on; a guest can make any single step hang (FUSE)."""

_WORKER = ("-m", "resolver.guest.copy_worker")

_log = logging.getLogger(__name__)

Direction = Literal["from", "to"]


class Copied(NamedTuple):
    """What was copied: files of every kind, directories too; bytes of content, without holes; and how many files
    changed or vanished while they were read.
    """

    files: int
    bytes: int
    changes: int


async def copy_from(workers: Workers, process: Process, source: str, destination: str, *,
                    replace: bool = False) -> Copied:
    """Copy a path of the machine, whose leader this is, to one of the host's; "" means the same.

    The destination appears when it is complete. FileExists where it is there already; with `replace`, files are
    replaced one by one, and directories merged. InvalidArgument, FileNotFound, NoSuchMachine, NotAvailable.
    Cancelled, it takes away what was made. The process is not needed any more when this has begun to wait.
    """
    machine, host = _absolute("source", source), _absolute("destination", destination or source)
    return await _copy(workers, process, "from", machine, host, replace)


async def copy_to(workers: Workers, process: Process, source: str, destination: str, *,
                  replace: bool = False) -> Copied:
    """Like copy_from, of a path of the host to one of the machine's."""
    host, machine = _absolute("source", source), _absolute("destination", destination or source)
    return await _copy(workers, process, "to", machine, host, replace)


async def _copy(workers: Workers, process: Process, direction: Direction, machine: str, host: str,
                replace: bool) -> Copied:
    what = f"Copying {host!r} {direction} process {process.pid}'s {machine!r}"
    progress = {"files": 0, "bytes": 0}
    request = {"direction": direction, "machine": machine, "host": host, "replace": replace}
    try:
        result = await workers.run(_WORKER, request, (process.fileno(),), patience=PATIENCE_SECONDS,
                                   on_progress=_keep(progress))
    except asyncio.CancelledError:
        _log.info("%s was given up by its caller, after %d files and %d bytes", what, *progress.values())
        raise
    except MachineError as error:
        _log.info("%s failed: %s", what, error)
        raise
    fields = result.fields
    _log.info("%s: %d files, %d bytes", what, fields["files"], fields["bytes"])
    if fields["changes"]:
        _log.info("%s: %d files changed meanwhile: %s", what, fields["changes"], ", ".join(fields["changed"]))
    return Copied(fields["files"], fields["bytes"], fields["changes"])


def _keep(progress: dict[str, int]) -> Callable[[dict[str, Any]], None]:
    return progress.update


def _absolute(field: str, path: str) -> str:
    if not path.startswith("/"):
        raise InvalidArgument(field, "the path is not absolute")
    if "\0" in path:
        raise InvalidArgument(field, "the path holds a zero byte")
    return path
