# SPDX-License-Identifier: MIT
"""Images on the bus: org.freedesktop.machine1.Image, and what org.freedesktop.machine1.Manager has for images."""

from collections.abc import Iterable, Mapping
from typing import Any

from machine_images import discovery
from machine_images.image import UNKNOWN, Image, ImageBusy, ImageReadOnly, NoSuchImage, TooManyOperations, is_image_name
from machine_images.images import Images
from resolver.core.errors import MachineError
from resolver.dbus.call import Call
from resolver.dbus.errors import DBUS, MACHINE1, invalid_args
from resolver.dbus.interface import Interface, Method, Property
from resolver.dbus.objects import Bound, as_text
from resolver.dbus.paths import IMAGES, decode_label, encode_label

IMAGE = Interface(
    "org.freedesktop.machine1.Image",
    properties=[
        Property("Name", "s"),
        Property("Path", "s"),
        Property("Type", "s"),
        Property("ReadOnly", "b"),
        Property("CreationTimestamp", "t"),
        Property("ModificationTimestamp", "t"),
        Property("Usage", "t"),
        Property("Limit", "t"),
        Property("UsageExclusive", "t"),
        Property("LimitExclusive", "t"),
    ],
    methods=[
        Method("Remove", ""),
        Method("Rename", "s new_name"),
        Method("Clone", "s new_name, b read_only"),
        Method("MarkReadOnly", "b read_only"),
        Method("SetLimit", "t limit"),
        Method("GetHostname", "", "s hostname"),
        Method("GetMachineID", "", "ay machine_id"),
        Method("GetMachineInfo", "", "a{ss} machine_info"),
        Method("GetOSRelease", "", "a{ss} os_release"),
    ])

ERRORS: Mapping[type[MachineError], str] = {
    NoSuchImage: f"{MACHINE1}.NoSuchImage",
    ImageBusy: "System.Error.EBUSY",  # as libsystemd names errno numbers that D-Bus has no name for
    ImageReadOnly: "System.Error.EROFS",
    TooManyOperations: f"{DBUS}.LimitsExceeded",
}
"""What resolver.dbus.errors.ERRORS is to have besides."""

_EVERYTHING = {"all": True, "hidden": False}


def image_path(name: str) -> str:
    """The object of an image."""
    return f"{IMAGES}/{encode_label(name)}"


class ImageObjects:
    """The images as objects. There is none until it is asked for."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def find(self, label: str) -> Bound | None:
        """The object of an image, by the last part of its path."""
        name = decode_label(label)
        try:
            return Bound(IMAGE, ImageHandlers(self._images, self._images.find(name))) if name else None
        except NoSuchImage:
            return None

    def labels(self) -> Iterable[str]:
        return (encode_label(image.name) for image in self._images.all())


class ImageHandlers:
    """Made for one call about one image."""

    def __init__(self, images: Images, image: Image) -> None:
        self._images = images
        self._image = image

    # Methods.

    async def do_remove(self, call: Call) -> None:
        await self._images.remove(self._image.name, await call.subject())

    async def do_rename(self, call: Call, new_name: str) -> None:
        _check_name(new_name)
        await self._images.rename(self._image.name, new_name, await call.subject())

    async def do_clone(self, call: Call, new_name: str, read_only: bool) -> None:
        _check_name(new_name)
        await self._images.clone(self._image.name, new_name, read_only, await call.subject())

    async def do_mark_read_only(self, call: Call, read_only: bool) -> None:
        await self._images.mark_read_only(self._image.name, read_only, await call.subject())

    async def do_set_limit(self, call: Call, limit: int) -> None:
        await self._images.set_limit(self._image.name, limit, await call.subject())

    async def do_get_hostname(self, _call: Call) -> list[str]:
        return [as_text((await self._read()).get("hostname", ""))]

    async def do_get_machine_id(self, _call: Call) -> list[bytes]:
        return [bytes.fromhex((await self._read()).get("machine_id", ""))]

    async def do_get_machine_info(self, _call: Call) -> list[dict[str, str]]:
        return [_as_texts((await self._read()).get("machine_info", {}))]

    async def do_get_os_release(self, _call: Call) -> list[dict[str, str]]:
        return [_as_texts((await self._read()).get("os_release", {}))]

    async def _read(self) -> dict[str, Any]:
        return await self._images.read(self._image.name)

    # Properties.

    def get_name(self, _call: Call) -> str:
        return self._image.name

    def get_path(self, _call: Call) -> str:
        return self._image.path

    def get_type(self, _call: Call) -> str:
        return self._image.type.value

    def get_read_only(self, _call: Call) -> bool:
        return self._image.read_only

    def get_creation_timestamp(self, _call: Call) -> int:
        return self._image.created

    def get_modification_timestamp(self, _call: Call) -> int:
        return self._image.modified

    def get_usage(self, _call: Call) -> int:
        return self._image.usage

    def get_limit(self, _call: Call) -> int:
        return self._image.limit

    def get_usage_exclusive(self, _call: Call) -> int:
        return self._image.usage_exclusive

    def get_limit_exclusive(self, _call: Call) -> int:
        return self._image.limit_exclusive


class ImageManagerHandlers:
    """What the manager's interface has for images, by the names there."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def do_get_image(self, _call: Call, name: str) -> list[str]:
        return [image_path(self._images.find(name).name)]

    def do_list_images(self, _call: Call) -> list[Any]:
        return [[[image.name, image.type.value, image.read_only, image.created, image.modified, image.usage,
                  image_path(image.name)] for image in self._images.all()]]

    async def do_remove_image(self, call: Call, name: str) -> None:
        await self._image(name).do_remove(call)

    async def do_rename_image(self, call: Call, name: str, new_name: str) -> None:
        await self._image(name).do_rename(call, new_name)

    async def do_clone_image(self, call: Call, name: str, new_name: str, read_only: bool) -> None:
        await self._image(name).do_clone(call, new_name, read_only)

    async def do_mark_image_read_only(self, call: Call, name: str, read_only: bool) -> None:
        await self._image(name).do_mark_read_only(call, read_only)

    async def do_set_image_limit(self, call: Call, name: str, limit: int) -> None:
        await self._image(name).do_set_limit(call, limit)

    async def do_get_image_hostname(self, call: Call, name: str) -> list[str]:
        return await self._image(name).do_get_hostname(call)

    async def do_get_image_machine_id(self, call: Call, name: str) -> list[bytes]:
        return await self._image(name).do_get_machine_id(call)

    async def do_get_image_machine_info(self, call: Call, name: str) -> list[dict[str, str]]:
        return await self._image(name).do_get_machine_info(call)

    async def do_get_image_os_release(self, call: Call, name: str) -> list[dict[str, str]]:
        return await self._image(name).do_get_os_release(call)

    async def do_set_pool_limit(self, call: Call, size: int) -> None:
        await self._images.set_pool_limit(size, await call.subject())

    async def do_clean_pool(self, call: Call, mode: str) -> list[Any]:
        if mode not in _EVERYTHING:
            raise invalid_args(f"Unknown mode '{mode}'.")
        removed: list[list[Any]] = []
        await self._images.clean(_EVERYTHING[mode], await call.subject(),
                                 lambda name, size: removed.append([name, size]))
        return [removed]

    def get_pool_path(self, _call: Call) -> str:
        return discovery.POOL

    def get_pool_usage(self, _call: Call) -> int:
        pool = self._images.pool()
        return UNKNOWN if pool is None else pool.usage

    def get_pool_limit(self, _call: Call) -> int:
        pool = self._images.pool()
        return UNKNOWN if pool is None else pool.limit

    def _image(self, name: str) -> ImageHandlers:
        _check_name(name)
        return ImageHandlers(self._images, self._images.find(name))


def _check_name(name: str) -> None:
    if not is_image_name(name):
        raise invalid_args(f"Image name '{name}' is invalid.")


def _as_texts(fields: Mapping[str, str]) -> dict[str, str]:
    return {as_text(name): as_text(value) for name, value in fields.items()}


