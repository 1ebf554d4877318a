# SPDX-License-Identifier: MIT
"""io.systemd.MachineImage: requests as dicts in, answers as dicts out."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from errno import EBUSY, EIO, EOPNOTSUPP, EROFS
from typing import Any

from machine_images.image import UNKNOWN, Image, ImageBusy, ImageReadOnly, NoSuchImage, TooManyOperations, is_image_name
from machine_images.images import READS_MAX, Images
from resolver.authority import Subject
from resolver.core.errors import InvalidArgument, MachineError, NotAvailable, NotSupported
from resolver.varlink.at_once import as_they_come
from resolver.varlink.call import Call
from resolver.varlink.errors import VarlinkError, expected_more, system_error
from resolver.varlink.interface import Interface, load_interface

NAME = "io.systemd.MachineImage"

ERRORS: Mapping[type[MachineError], Callable[[Any], VarlinkError]] = {
    NoSuchImage: lambda _: VarlinkError(f"{NAME}.NoSuchImage"),
    TooManyOperations: lambda _: VarlinkError(f"{NAME}.TooManyOperations"),
    ImageBusy: lambda _: system_error(EBUSY),
    ImageReadOnly: lambda _: system_error(EROFS),
}
"""What resolver.varlink.errors.ERRORS is to have besides."""

_AS_NUMBERS: Mapping[type[MachineError], int] = {NotSupported: EOPNOTSUPP, NotAvailable: EIO}
"""This interface has no errors of its own for these, and clients of systemd-machined's know them as errno numbers."""


@contextmanager
def _numbered() -> Iterator[None]:
    try:
        yield
    except (NotSupported, NotAvailable) as error:
        raise system_error(_AS_NUMBERS[type(error)]) from error


class MachineImageInterface:
    """The methods, by their names in the interface."""

    def __init__(self, images: Images) -> None:
        self._images = images

    async def do_list(self, call: Call) -> AsyncIterator[dict[str, Any]]:
        """One image by name; without one all, for which the caller must say more."""
        name = call.parameters.get("name")
        metadata = call.parameters.get("acquireMetadata") or "no"
        if name is not None:
            _check_name("name", name)
            yield await self._fields(self._images.find(name), metadata)
        elif not call.more:
            raise expected_more()
        elif metadata == "no":
            for image in self._images.all():
                yield image_fields(image)
        else:
            async for fields in as_they_come(self._images.all(), lambda image: self._fields(image, metadata),
                                             READS_MAX // 2, (NoSuchImage,)):
                yield fields

    async def do_update(self, call: Call) -> dict[str, Any]:
        fields = call.parameters
        name: str = fields["name"]
        new_name, limit = fields.get("newName"), fields.get("limit")
        _check_name("name", name)
        if new_name is not None:
            _check_name("newName", new_name)
        if limit is not None and limit < 0:
            raise InvalidArgument("limit", f"{limit} is no number of bytes")
        with _numbered():
            await self._images.update(name, limit, fields.get("readOnly"), new_name, _subject(call))
        return {}

    async def do_clone(self, call: Call) -> dict[str, Any]:
        fields = call.parameters
        _check_name("name", fields["name"])
        _check_name("newName", fields["newName"])
        with _numbered():
            await self._images.clone(fields["name"], fields["newName"], bool(fields.get("readOnly")), _subject(call))
        return {}

    async def do_remove(self, call: Call) -> dict[str, Any]:
        _check_name("name", call.parameters["name"])
        with _numbered():
            await self._images.remove(call.parameters["name"], _subject(call))
        return {}

    async def do_set_pool_limit(self, call: Call) -> dict[str, Any]:
        limit = call.parameters["limit"]
        if limit < 0:
            raise InvalidArgument("limit", f"{limit} is no number of bytes")
        with _numbered():
            await self._images.set_pool_limit(limit, _subject(call))
        return {}

    async def do_clean_pool(self, call: Call) -> AsyncIterator[dict[str, Any]]:
        """A reply for each image, when it has gone. NoSuchImage where there was none to remove."""
        if not call.more:
            raise expected_more()
        removed: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        cleaning = asyncio.create_task(self._images.clean(
            call.parameters["mode"] == "all", _subject(call),
            lambda name, usage: removed.put_nowait({"name": name, "usage": None if usage == UNKNOWN else usage})))
        cleaning.add_done_callback(lambda _: removed.put_nowait(None))
        try:
            any_removed = False
            while (fields := await removed.get()) is not None:
                any_removed = True
                yield {key: value for key, value in fields.items() if value is not None}
            with _numbered():
                cleaning.result()
            if not any_removed:
                raise NoSuchImage("there is no image to remove")
        finally:
            cleaning.cancel()  # who waits; the work goes on

    async def _fields(self, image: Image, metadata: str) -> dict[str, Any]:
        fields = image_fields(image)
        if metadata == "no":
            return fields
        try:
            found = await self._images.read(image.name)
        except (NotAvailable, NotSupported) as error:
            if metadata == "yes":
                raise system_error(_AS_NUMBERS[type(error)]) from error
            return fields
        fields |= {name: found[key] for name, key in (("hostname", "hostname"), ("machineId", "machine_id"))
                   if key in found}
        fields |= {name: [f"{field}={value}" for field, value in found[key].items()]
                   for name, key in (("machineInfo", "machine_info"), ("OSRelease", "os_release")) if found.get(key)}
        return fields


def image_fields(image: Image) -> dict[str, Any]:
    """What is known without a look into the image."""
    fields: dict[str, Any] = {"name": image.name, "path": image.path, "type": image.type.value, "class": "machine",
                              "readOnly": image.read_only}
    fields |= {name: time for name, time in (("creationTimestamp", image.created),
                                             ("modificationTimestamp", image.modified)) if time}
    fields |= {name: size for name, size in (
        ("usage", image.usage), ("usageExclusive", image.usage_exclusive), ("limit", image.limit),
        ("limitExclusive", image.limit_exclusive)) if size != UNKNOWN}
    return fields


def machine_image_interface() -> Interface:
    return load_interface(NAME, folder=os.path.dirname(__file__))


def _check_name(field: str, name: str) -> None:
    if not is_image_name(name):
        raise InvalidArgument(field, f"Image name '{name}' is invalid.")


def _subject(call: Call) -> Subject:
    caller = call.caller
    return Subject(caller.uid, caller.pid, caller.pidfd,
                   interactive=bool(call.parameters.get("allowInteractiveAuthentication")))
