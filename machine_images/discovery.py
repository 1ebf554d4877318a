# SPDX-License-Identifier: MIT
"""Which images there are: a look at the directories, each time somebody asks. Nothing of an image is read.

The directories are the host's administrator's, and what lies in them is looked at and not opened, but for btrfs, which
is asked about the subvolume.
"""

import errno
import os
import stat
from collections.abc import Iterator

from machine_images import btrfs, quota
from machine_images.image import HOST_IMAGE, UNKNOWN, Image, ImageType, NoSuchImage, is_image_name
from machine_images.stat import facts_of, opened

POOL = "/var/lib/machines"
"""Where new images go."""

SEARCH_PATH = ("/etc/machines", "/run/machines", POOL, "/usr/local/lib/machines", "/usr/lib/machines")
"""As machinectl(1) has it, under Files and Directories. Of images of one name the first one counts."""

RAW_SUFFIX = ".raw"


def find(name: str) -> Image:
    """NoSuchImage, also for what can be no image's name. OSError."""
    if name == HOST_IMAGE:
        return _host()
    if is_image_name(name):
        for directory in SEARCH_PATH:
            for entry in (name, name + RAW_SUFFIX):
                image = _look(directory, entry)
                if image is not None and image.name == name:
                    return image
    raise NoSuchImage(f"No image '{name}' known")


def everything() -> list[Image]:
    """All images, hidden ones too, and the host's own. OSError."""
    images = {HOST_IMAGE: _host()}
    for directory in SEARCH_PATH:
        for image in _in(directory):
            images.setdefault(image.name, image)
    return list(images.values())


def pool() -> Image | None:
    """The directory of new images, as if it were one; None where there is none."""
    try:
        with opened(POOL) as descriptor:
            return _directory("", POOL, descriptor)
    except FileNotFoundError:
        return None


def exists(name: str) -> bool:
    try:
        find(name)
    except NoSuchImage:
        return False
    return True


def _in(directory: str) -> Iterator[Image]:
    try:
        entries = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        try:
            image = _look(directory, entry)
        except OSError:
            continue  # one that cannot be looked at does not hide the others
        if image is not None:
            yield image


def _host() -> Image:
    with opened("/") as descriptor:
        return _directory(HOST_IMAGE, "/", descriptor)


def _look(directory: str, entry: str) -> Image | None:
    """What an entry of a directory is; None for what is no image. OSError."""
    path = os.path.join(directory, entry)
    try:
        # A link leads to an image elsewhere, as machinectl(1) allows it.
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
            return None
        raise
    try:
        status = os.fstat(descriptor)
        name, is_raw = entry.removesuffix(RAW_SUFFIX), entry.endswith(RAW_SUFFIX)
        if stat.S_ISDIR(status.st_mode) and is_image_name(entry):
            with opened(f"/proc/self/fd/{descriptor}/.") as top:
                return _directory(entry, path, top)
        if stat.S_ISREG(status.st_mode) and is_raw and is_image_name(name):
            facts, used = facts_of(descriptor), status.st_blocks * 512
            return Image(name, path, ImageType.RAW, not status.st_mode & 0o222 or _is_read_only(path),
                         facts.created, facts.modified, used, used, status.st_size, status.st_size)
        if stat.S_ISBLK(status.st_mode) and is_image_name(entry):
            size = _block_size(status.st_rdev)
            return Image(entry, path, ImageType.BLOCK, not status.st_mode & 0o222, 0, 0, size, size, size, size)
        return None
    finally:
        os.close(descriptor)


def _directory(name: str, path: str, top: int) -> Image:
    if not btrfs.is_subvolume(top):
        facts = facts_of(top)
        return Image(name, path, ImageType.DIRECTORY, facts.immutable or _is_read_only(path), facts.created)
    used = quota.quota_of(top)
    sizes: list[int | None] = [None] * 4 if used is None else list(used)
    return Image(name, path, ImageType.SUBVOLUME, btrfs.is_read_only(top) or _is_read_only(path),
                 btrfs.created(top), 0, *(UNKNOWN if size is None else size for size in sizes))


def _is_read_only(path: str) -> bool:
    return path.startswith("/usr/") or bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _block_size(device: int) -> int:
    """As the kernel has it in sysfs, in units of 512 bytes; UNKNOWN where it does not."""
    try:
        with open(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/size", encoding="ascii") as file:
            return int(file.read()) * 512
    except (OSError, ValueError):
        return UNKNOWN
