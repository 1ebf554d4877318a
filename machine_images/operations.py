# SPDX-License-Identifier: MIT
"""What can be done to images. Blocking: for a worker.

Each leaves either the old state or the new. A clone is made under a hidden name, and named at the end; what is removed
is renamed first. What a killed process leaves under such a name is deleted by the next operation (delete_leftovers).
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence

from machine_images import btrfs, discovery, subvolumes
from machine_images.image import UNKNOWN, Image, ImageBusy, ImageReadOnly, ImageType, NoSuchImage, is_image_name
from machine_images.locks import image_locked, name_locked
from machine_images.stat import facts_of, set_immutable, set_writable
from resolver.core.errors import FileExists, InvalidArgument, NotSupported
from resolver.files.copy import copy
from resolver.files.kernel import rename_new
from resolver.files.progress import Progress
from resolver.files.remove import remove as remove_tree
from resolver.files.remove import remove_leftovers

SETTINGS = ("/etc/systemd/nspawn", "/run/systemd/nspawn")
"""Where NAME.nspawn may be, besides the image's own directory (systemd.nspawn(5))."""

BESIDE_RAW = (".roothash", ".roothash.p7s", ".verity")
"""What belongs to a raw image, with this in the place of .raw (systemd-nspawn(1), --root-hash=, --verity-data=)."""


def clone(name: str, new_name: str, read_only: bool, progress: Progress) -> None:
    """Make a second one, in the pool. NoSuchImage, FileExists, ImageBusy, InvalidArgument, OSError."""
    check_new_name(new_name)
    delete_leftovers()
    image = discovery.find(name)
    with name_locked(new_name):  # not the image: a machine may run from it, as for systemd-machined
        if discovery.exists(new_name):
            raise FileExists("File exists")
        os.makedirs(discovery.POOL, mode=0o700, exist_ok=True)
        with _opened(discovery.POOL) as pool, _opened(os.path.dirname(image.path) or "/") as where:
            source = os.path.basename(image.path) or "."
            if image.type is ImageType.SUBVOLUME and subvolumes.same_file_system(image.path, pool):
                subvolumes.snapshot(image.path, pool, new_name, read_only, progress)
            elif image.path == "/":
                raise NotSupported("the host runs from it, with all that is mounted there: it is not copied")
            elif image.type in (ImageType.DIRECTORY, ImageType.SUBVOLUME):
                _copy_directory(image, where, source, pool, new_name, read_only, progress)
            elif image.type is ImageType.RAW:
                _copy_raw(image, pool, new_name, read_only, progress)
            else:
                raise NotSupported("a block device is not cloned")
        _copy_settings(image, new_name, progress)


def _copy_directory(image: Image, where: int, source: str, pool: int, new_name: str, read_only: bool,
                    progress: Progress) -> None:
    with _resolved(image, where, source) as (directory, entry):
        copy(directory, entry, pool, os.fsencode(new_name), progress)
    if read_only:
        try:
            set_immutable(os.path.join(discovery.POOL, new_name), True)
        except OSError:
            remove_tree(pool, os.fsencode(new_name), progress)
            raise


def _copy_raw(image: Image, pool: int, new_name: str, read_only: bool, progress: Progress) -> None:
    directory, source = os.path.split(os.path.realpath(image.path))
    with _opened(directory) as where:
        copy(where, os.fsencode(source), pool, os.fsencode(new_name + discovery.RAW_SUFFIX), progress)
    path = os.path.join(discovery.POOL, new_name + discovery.RAW_SUFFIX)
    set_writable(path, not read_only)


def rename(name: str, new_name: str) -> None:
    """NoSuchImage, FileExists, ImageBusy, ImageReadOnly, InvalidArgument, OSError."""
    check_new_name(new_name)
    image = _to_be_changed(name)
    if new_name == name:
        raise InvalidArgument("newName", "the image has that name")
    with _locked(image), name_locked(new_name):
        if discovery.exists(new_name):
            raise FileExists("File exists")
        directory, entry = os.path.split(image.path)
        suffix = discovery.RAW_SUFFIX if image.type is ImageType.RAW else ""
        with _unprotected(image), _opened(directory) as where:
            rename_new(where, os.fsencode(entry), where, os.fsencode(new_name + suffix))
        for path in _belongings(image):
            folder, file = os.path.split(path)
            with contextlib.suppress(OSError):  # the image has its new name: what cannot follow stays
                os.rename(path, os.path.join(folder, new_name + file[len(image.name):]))


def remove(name: str, progress: Progress) -> None:
    """NoSuchImage, ImageBusy, ImageReadOnly, OSError."""
    delete_leftovers()
    image = _to_be_changed(name)
    with _locked(image):
        _remove(image, progress)


def _remove(image: Image, progress: Progress) -> None:
    belongings = list(_belongings(image))
    directory, entry = os.path.split(image.path)
    with _opened(directory) as where:
        if image.type is ImageType.SUBVOLUME and not os.path.islink(image.path):
            subvolumes.remove(where, entry, progress)
        elif image.type is ImageType.DIRECTORY and not os.path.islink(image.path):
            if _is_immutable(image):
                set_immutable(image.path, False)
            remove_tree(where, os.fsencode(entry), progress)
        else:
            os.unlink(entry, dir_fd=where)  # a raw image, or a link: what it leads to is not ours
    for path in belongings:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def mark_read_only(name: str, read_only: bool) -> None:
    """NoSuchImage, ImageBusy, ImageReadOnly, NotSupported, OSError."""
    image = _to_be_changed(name)
    with _locked(image):
        if image.type is ImageType.SUBVOLUME:
            with _opened(image.path) as top:
                btrfs.set_read_only(top, read_only)
        elif image.type is ImageType.DIRECTORY:
            set_immutable(os.path.realpath(image.path), read_only)
        elif image.type is ImageType.RAW:
            set_writable(os.path.realpath(image.path), not read_only)
        else:
            raise NotSupported("a block device is not marked")


def set_limit(name: str, size: int) -> None:
    """UNKNOWN: none. NoSuchImage, ImageReadOnly, OSError; NotSupported for no subvolume, or where nobody counts."""
    image = _to_be_changed(name)
    if image.type is not ImageType.SUBVOLUME:
        raise NotSupported("Only subvolumes of btrfs have a limit: Operation not supported")
    with _opened(image.path) as top:
        _set_limit(top, size)


def set_pool_limit(size: int) -> None:
    """The same of all new images together. NotSupported, OSError."""
    with _opened(discovery.POOL) as top:
        if not btrfs.is_subvolume(top):
            raise NotSupported(f"{discovery.POOL} is no subvolume of btrfs")
        if size != UNKNOWN:
            btrfs.enable_quota(top)  # as who sets a limit to all expects it
        _set_limit(top, size)


def _set_limit(top: int, size: int) -> None:
    try:
        btrfs.set_limit(top, None if size == UNKNOWN else size)
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ENOENT, errno.EINVAL):
            raise NotSupported("Nobody counts there (btrfs quota enable): Operation not supported") from None
        raise


def clean(everything: bool, progress: Progress) -> Iterator[tuple[str, int]]:
    """Remove all hidden images of the pool, or all; each by name with the bytes that were its alone, once it is gone.

    One that is busy stays. OSError.
    """
    delete_leftovers()
    for image in discovery.everything():
        if image.of_vendor or not (everything or image.hidden):
            continue
        if os.path.dirname(image.path) != discovery.POOL:
            continue
        try:
            with _locked(image):
                _remove(image, progress)
        except (ImageBusy, FileNotFoundError):
            continue
        yield image.name, image.usage_exclusive


def check_new_name(name: str) -> None:
    """InvalidArgument."""
    if not is_image_name(name) or name == ".host":
        raise InvalidArgument("newName", f"Image name '{name}' is invalid.")


def delete_leftovers() -> None:
    """Delete what killed operations have left in the pool, as far as that goes."""
    with contextlib.suppress(OSError), _opened(discovery.POOL) as pool:
        subvolumes.delete_leftovers(pool)
        remove_leftovers(pool)


# Inside.


def _to_be_changed(name: str) -> Image:
    image = discovery.find(name)
    if image.of_vendor:
        raise ImageReadOnly(f"{name} is part of the host's operating system: Read-only file system")
    if os.statvfs(os.path.dirname(image.path)).f_flag & os.ST_RDONLY:
        raise ImageReadOnly(f"{image.path}: Read-only file system")
    return image


@contextlib.contextmanager
def _locked(image: Image) -> Iterator[None]:
    try:
        with image_locked(image.path):
            yield
    except FileNotFoundError as error:
        if error.filename == image.path:
            raise NoSuchImage(f"No image '{image.name}' known") from None
        raise


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _resolved(image: Image, where: int, source: str) -> Iterator[tuple[int, bytes]]:
    """A directory and the name in it of what an image's path leads to."""
    if not stat.S_ISLNK(os.stat(source, dir_fd=where, follow_symlinks=False).st_mode):
        yield where, os.fsencode(source)
        return
    with _opened(image.path) as top:
        yield top, b"."


@contextlib.contextmanager
def _unprotected(image: Image) -> Iterator[None]:
    """What is immutable cannot be renamed: it is not for that moment."""
    if image.type is not ImageType.DIRECTORY or not _is_immutable(image):
        yield
        return
    set_immutable(image.path, False)
    with _opened(image.path) as top:
        try:
            yield
        finally:
            set_immutable(f"/proc/self/fd/{top}/.", True)


def _is_immutable(image: Image) -> bool:
    with _opened(image.path) as top:
        return facts_of(top).immutable


def _belongings(image: Image) -> Iterator[str]:
    """The files that belong to an image, where they are there."""
    beside = os.path.dirname(image.path)
    names: Sequence[str] = (".nspawn",)
    for folder in (*SETTINGS, beside):
        for suffix in (*names, *(BESIDE_RAW if folder == beside and image.type is ImageType.RAW else ())):
            path = os.path.join(folder, image.name + suffix)
            if os.path.lexists(path):
                yield path


def _copy_settings(image: Image, new_name: str, progress: Progress) -> None:
    """A clone starts with the settings of the image that it was made of."""
    for path in _belongings(image):
        folder, file = os.path.split(path)
        suffix = file[len(image.name):]
        target = folder if folder in SETTINGS else discovery.POOL
        with contextlib.suppress(FileExistsError), _opened(folder) as where, _opened(target) as there:
            copy(where, os.fsencode(file), there, os.fsencode(new_name + suffix), progress)

