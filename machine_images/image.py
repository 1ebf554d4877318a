# SPDX-License-Identifier: MIT
"""An image, and the rules for its name. No input or output."""

from dataclasses import dataclass
from enum import StrEnum

from resolver.core.errors import MachineError

NAME_MAX = 255 - len(".#") - len(".raw.lck")
"""Bytes of a name: with what locks and raw images add to it, it is still a file's name (limits.h, NAME_MAX)."""

UNKNOWN = 2**64 - 1
"""A size that is not known, or has no limit, as the interface gives it."""

HOST_IMAGE = ".host"
"""The image that the host runs from: its root directory."""


class NoSuchImage(MachineError):
    """No image by that name."""


class ImageBusy(MachineError):
    """A machine runs from it, or something else is done to it."""


class ImageReadOnly(MachineError):
    """It is not to be changed: the host's own, one of the vendor's, or on a read-only file system."""


class TooManyOperations(MachineError):
    """As many operations are under way as are done at a time."""


ERRORS: tuple[type[MachineError], ...] = (NoSuchImage, ImageBusy, ImageReadOnly, TooManyOperations)


class ImageType(StrEnum):
    """As org.freedesktop.machine1 calls them."""

    DIRECTORY = "directory"
    SUBVOLUME = "subvolume"
    RAW = "raw"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Image:
    """As found. Times in microseconds since 1970, 0 where they are not known; sizes in bytes, or UNKNOWN.

    `exclusive`: not shared with other subvolumes.
    """

    name: str
    path: str
    type: ImageType
    read_only: bool = False
    created: int = 0
    modified: int = 0
    usage: int = UNKNOWN
    usage_exclusive: int = UNKNOWN
    limit: int = UNKNOWN
    limit_exclusive: int = UNKNOWN

    @property
    def hidden(self) -> bool:
        """Not shown but to those who ask for all. clean() removes these."""
        return self.name.startswith(".")

    @property
    def of_vendor(self) -> bool:
        """Part of the host's operating system, or the host itself."""
        return self.name == HOST_IMAGE or self.path.startswith("/usr/")


def is_image_name(name: str) -> bool:
    """Whether an image may have it: a file's name, of printable characters, not one that tools use for their own.

    Hidden names are. `.#` begins the names of locks and of what is not complete yet.
    """
    return (0 < len(name.encode(errors="replace")) <= NAME_MAX and name not in (".", "..") and "/" not in name
            and not name.startswith(".#") and name.isprintable())
