# SPDX-License-Identifier: MIT
"""What may be done with images, whichever way the request came. Looking is everybody's; a worker does all else.

An operation goes on when who asked for it has gone: half of it is nobody's wish. It ends early where the daemon stops,
or somebody ends its worker (SIGTERM), and tidies up then.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from machine_images import discovery
from machine_images.image import ERRORS, HOST_IMAGE, Image, TooManyOperations, is_image_name
from machine_images.operations import check_new_name, has_leftovers
from resolver.authority import Authority, Subject
from resolver.core.errors import InvalidArgument
from resolver.worker.run import Workers

OPERATIONS_MAX = 16
"""At the same time. More make the disk slower for each; and one person's clones do not fill the host with processes."""

READS_MAX = 32
"""Images whose files are read at the same time: who lists all of them with their systems asks about each."""

PATIENCE_SECONDS = 600.0
"""That an operation may last without a sign of life: file systems that delete or share a huge file give none."""

READ_SECONDS = 5.0
"""For an image's few small files; it takes some 50 ms, for the most part for starting the worker."""

TELL_SECONDS = 10.0
"""Between two lines in the log about an operation that goes on."""

_PROGRAM = ("-m", "machine_images")

_VERBS = {"read-only": "mark_read_only", "limit": "set_limit"}
"""Where a polkit rule for systemd-machined knows an operation by another name than the worker."""

_log = logging.getLogger(__name__)


class Images:
    """For one event loop. To be closed."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._operations = Workers(OPERATIONS_MAX + 1, ERRORS)  # one more: the last may still be ending
        self._readers = Workers(READS_MAX, ERRORS)
        self._reading = asyncio.Semaphore(READS_MAX // 2)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Delete what was being made or removed when the daemon was last killed, beside all else."""
        if has_leftovers():
            self._begin(self._work("tidy", "the image directories", {}, None))

    async def close(self) -> None:
        """End what is under way; what is half done is taken back."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._operations.close()
        await self._readers.close()

    # Looking.

    def find(self, name: str) -> Image:
        """NoSuchImage."""
        return discovery.find(name)

    def all(self) -> list[Image]:
        """Hidden ones and the host's own too."""
        return discovery.everything()

    def pool(self) -> Image | None:
        """The directory of new images, as if it were one: what it uses, and its limit."""
        return discovery.pool()

    async def read(self, name: str) -> dict[str, Any]:
        """What an image says of itself (metadata.read()). NoSuchImage, NotSupported, NotAvailable."""
        async with self._reading:
            return (await self._readers.run(_PROGRAM, {"do": "read", "name": name}, patience=READ_SECONDS)).fields

    # Changing. Any MachineError.

    async def clone(self, name: str, new_name: str, read_only: bool, subject: Subject) -> None:
        check_new_name(new_name)
        await self._do(subject, "clone", name, {"new_name": new_name, "read_only": read_only})

    async def rename(self, name: str, new_name: str, subject: Subject) -> None:
        check_new_name(new_name)
        await self._do(subject, "rename", name, {"new_name": new_name})

    async def remove(self, name: str, subject: Subject) -> None:
        await self._do(subject, "remove", name, {})

    async def mark_read_only(self, name: str, read_only: bool, subject: Subject) -> None:
        await self._do(subject, "read-only", name, {"read_only": read_only})

    async def set_limit(self, name: str, size: int, subject: Subject) -> None:
        await self._do(subject, "limit", name, {"size": size})

    async def update(self, name: str, limit: int | None, read_only: bool | None, new_name: str | None,
                     subject: Subject) -> None:
        """What is given is changed; the name last, so that a failure before leaves the image where it was.

        Whether it may be is asked once for all, as systemd-machined does.
        """
        if new_name is not None:
            check_new_name(new_name)
        await self._check(subject, name, {"image": name, "verb": "update"})
        if limit is not None:
            await self._run("limit", name, {"name": name, "size": limit})
        if read_only is not None:
            await self._run("read-only", name, {"name": name, "read_only": read_only})
        if new_name is not None:
            await self._run("rename", name, {"name": name, "new_name": new_name})

    async def set_pool_limit(self, size: int, subject: Subject) -> None:
        # Not manage-images: as systemd-machined asks for it.
        await self._authority.check(subject, "manage-machines", {"verb": "set_pool_limit"})
        await self._run("pool-limit", "the pool", {"size": size})

    async def clean(self, everything: bool, subject: Subject,
                    on_removed: Callable[[str, int], object]) -> None:
        """Remove all hidden images, or all; each is told of, with the bytes that were its alone, when it has gone."""
        await self._authority.check(subject, "manage-machines",
                                    {"verb": "clean_pool", "mode": "all" if everything else "hidden"})
        await self._run("clean", "the pool", {"everything": everything},
                        lambda progress: on_removed(*progress["removed"]) if "removed" in progress else None)

    # Inside.

    async def _do(self, subject: Subject, operation: str, name: str, more: Mapping[str, Any]) -> None:
        await self._check(subject, name, _details(operation, name, more))
        await self._run(operation, name, {"name": name, **more})

    async def _check(self, subject: Subject, name: str, details: Mapping[str, str]) -> None:
        if not is_image_name(name) and name != HOST_IMAGE:
            raise InvalidArgument("name", f"Image name '{name}' is invalid.")
        discovery.find(name)
        await self._authority.check(subject, "manage-images", details)

    async def _run(self, operation: str, name: str, request: Mapping[str, Any],
                   on_progress: Callable[[dict[str, Any]], object] | None = None) -> None:
        if len(self._tasks) >= OPERATIONS_MAX:
            raise TooManyOperations(f"{OPERATIONS_MAX} operations on images are under way, and no more are begun")
        await asyncio.shield(self._begin(self._work(operation, name, request, on_progress)))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked was told, or has gone; the log has it

    async def _work(self, operation: str, name: str, request: Mapping[str, Any],
                    on_progress: Callable[[dict[str, Any]], object] | None) -> None:
        what = f"{operation} of {name!r}"
        told = time.monotonic()

        def tell(progress: dict[str, Any]) -> None:
            nonlocal told
            if on_progress is not None:
                on_progress(progress)
            if "files" in progress and time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                _log.info("Images: %s goes on: %d files and %d bytes", what, progress["files"], progress["bytes"])

        try:
            await self._operations.run(_PROGRAM, {"do": operation, **request}, patience=PATIENCE_SECONDS,
                                       on_progress=tell)
        except asyncio.CancelledError:
            _log.warning("Images: %s is given up, for the daemon stops", what)
            raise
        except Exception as error:
            _log.info("Images: %s has failed: %s", what, error)
            raise
        _log.info("Images: %s is done", what)


def _details(operation: str, image: str, more: Mapping[str, Any]) -> dict[str, str]:
    """What polkit's rules may decide by, as systemd-machined gives it, which calls an image to be limited a machine."""
    details = {"machine" if operation == "limit" else "image": image, "verb": _VERBS.get(operation, operation)}
    if "new_name" in more:
        details["new_name"] = more["new_name"]
    if operation == "read-only":
        details["read_only"] = str(int(more["read_only"]))
    return details
