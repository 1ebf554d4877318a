# SPDX-License-Identifier: MIT
"""What can be done to images. Blocking: for a worker.

Each leaves either the old state or the new. A clone is made under a hidden name, and named at the end; what is removed
is renamed first. What a killed process leaves under such a name is deleted by the next operation (delete_leftovers).
"""

import contextlib
import errno
import os
from collections.abc import Iterator

from machine_images import btrfs, discovery, quota, settings, subvolumes
from machine_images.image import UNKNOWN, Image, ImageBusy, ImageReadOnly, ImageType, NoSuchImage, is_image_name
from machine_images.locks import alone, image_locked, kept, name_locked
from machine_images.stat import facts_of, opened, set_immutable, set_writable
from resolver.core.errors import FileExists, InvalidArgument, NotSupported
from resolver.files.copy import copy
from resolver.files.kernel import rename_new
from resolver.files.progress import Progress
from resolver.files.remove import remove as remove_tree
from resolver.files.remove import remove_leftovers
from resolver.files.workspace import PREFIX


def clone(name: str, new_name: str, read_only: bool, progress: Progress) -> None:
    """Make a second one, in the pool. NoSuchImage, FileExists, ImageBusy, InvalidArgument, NotSupported, OSError."""
    check_new_name(new_name)
    delete_leftovers()
    image = discovery.find(name)
    # A machine may run from it, as for systemd-machined. But it is not removed meanwhile.
    with name_locked(new_name), _kept(image):
        if discovery.exists(new_name):
            raise FileExists("File exists")
        os.makedirs(discovery.POOL, mode=0o700, exist_ok=True)
        # The settings come first: it is never without what restricts it.
        with settings.copied(image, new_name, progress), opened(discovery.POOL) as pool:
            _CLONES[image.type](image, pool, new_name, progress)
            if read_only or image.type is ImageType.RAW:
                _mark_new(discovery.find(new_name), read_only, progress)


def _mark_new(image: Image, read_only: bool, progress: Progress) -> None:
    """Not before it has its name: what cannot be changed cannot be renamed either."""
    try:
        _mark(image, read_only)
    except (OSError, NotSupported):
        _take_away(image, progress)
        raise


def _clone_tree(image: Image, pool: int, new_name: str, progress: Progress) -> None:
    with opened(image.path) as top:
        if image.type is ImageType.SUBVOLUME and subvolumes.same_file_system(top, pool):
            subvolumes.snapshot(top, pool, os.fsencode(new_name), progress)
        elif image.path == "/":
            raise NotSupported("the host runs from it, with all that is mounted there: it is not copied")
        elif btrfs.is_btrfs(pool):
            subvolumes.copied(top, b".", pool, os.fsencode(new_name), progress)
        else:
            copy(top, b".", pool, os.fsencode(new_name), progress)


def _clone_raw(image: Image, pool: int, new_name: str, progress: Progress) -> None:
    directory, source = os.path.split(os.path.realpath(image.path))
    with opened(directory) as where:
        copy(where, os.fsencode(source), pool, os.fsencode(new_name + discovery.RAW_SUFFIX), progress)


def _clone_block(_image: Image, _pool: int, _new_name: str, _progress: Progress) -> None:
    raise NotSupported("a block device is not cloned")


_CLONES = {ImageType.DIRECTORY: _clone_tree, ImageType.SUBVOLUME: _clone_tree, ImageType.RAW: _clone_raw,
           ImageType.BLOCK: _clone_block}


def rename(name: str, new_name: str) -> None:
    """NoSuchImage, FileExists, ImageBusy, ImageReadOnly, InvalidArgument, OSError."""
    check_new_name(new_name)
    image = _to_be_changed(name)
    if new_name == name:
        raise FileExists("File exists")
    with _locked(image), name_locked(new_name):
        if discovery.exists(new_name):
            raise FileExists("File exists")
        directory, entry = os.path.split(image.path)
        suffix = discovery.RAW_SUFFIX if image.type is ImageType.RAW else ""
        with settings.moved(image, new_name), _unprotected(image), opened(directory) as where:
            _rename_new(where, os.fsencode(entry), os.fsencode(new_name + suffix))


def _rename_new(directory: int, old: bytes, new: bytes) -> None:
    try:
        rename_new(directory, old, directory, new)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # A file system of another machine's, without such a call: who keeps to the locks makes nothing there now.
        if os.path.lexists(f"/proc/self/fd/{directory}/{os.fsdecode(new)}"):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.rename(old, new, src_dir_fd=directory, dst_dir_fd=directory)


def remove(name: str, progress: Progress) -> None:
    """NoSuchImage, ImageBusy, ImageReadOnly, OSError."""
    delete_leftovers()
    image = _to_be_changed(name)
    with _locked(image):
        _remove(image, progress)


def _remove(image: Image, progress: Progress) -> None:
    belongings = list(settings.of(image))
    _take_away(image, progress)
    for path in belongings:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _take_away(image: Image, progress: Progress) -> None:
    directory, name = os.path.split(image.path)
    entry = os.fsencode(name)
    with opened(directory) as where:
        if os.path.islink(image.path) or image.type not in (ImageType.DIRECTORY, ImageType.SUBVOLUME):
            os.unlink(entry, dir_fd=where)  # what a link leads to is not ours
            return
        with _thawed(image):
            (subvolumes.remove if btrfs.is_btrfs(where) else remove_tree)(where, entry, progress)


def mark_read_only(name: str, read_only: bool) -> None:
    """NoSuchImage, ImageBusy, ImageReadOnly, NotSupported, OSError."""
    image = _to_be_changed(name)
    with _locked(image):
        _mark(image, read_only)


def _mark(image: Image, read_only: bool) -> None:
    path = os.path.realpath(image.path)
    if image.type is ImageType.SUBVOLUME:
        with opened(path) as top:
            btrfs.set_read_only(top, read_only)
    elif image.type is ImageType.DIRECTORY:
        try:
            set_immutable(path, read_only)
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP):
                raise NotSupported("The file system has no immutable files: Operation not supported") from None
            raise
    elif image.type is ImageType.RAW:
        set_writable(path, not read_only)
    else:
        raise NotSupported("a block device is not marked")


def set_limit(name: str, size: int) -> None:
    """UNKNOWN: none. NoSuchImage, ImageReadOnly, OSError; NotSupported for no subvolume, or where nobody counts."""
    image = _to_be_changed(name)
    if image.type is not ImageType.SUBVOLUME:
        raise NotSupported("Only subvolumes of btrfs have a limit: Operation not supported")
    with opened(image.path) as top, _counted():
        below = subvolumes.ids_below(top)
        if below:
            quota.make_group(top, below, quota.IMAGE_LEVEL)
        quota.set_limit(top, None if size == UNKNOWN else size)
        quota.recount(top)


def set_pool_limit(size: int) -> None:
    """Of all images of the pool together. NotSupported, OSError."""
    os.makedirs(discovery.POOL, mode=0o700, exist_ok=True)
    with opened(discovery.POOL) as top:
        if not btrfs.is_subvolume(top):
            raise NotSupported(f"{discovery.POOL} is no subvolume of btrfs: Operation not supported")
        with _counted():
            if size != UNKNOWN:
                quota.enable(top)  # as who sets a limit to all expects it
                quota.make_group(top, subvolumes.ids_below(top), quota.POOL_LEVEL)
            quota.set_limit(top, None if size == UNKNOWN else size)
            quota.recount(top)


@contextlib.contextmanager
def _counted() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ENOENT, errno.EINVAL):
            raise NotSupported("Nobody counts there (btrfs quota enable): Operation not supported") from None
        raise


def clean(everything: bool, progress: Progress) -> Iterator[tuple[str, int]]:
    """Remove all hidden images of the pool, or all; each by name with the bytes that were its alone, once it is gone.

    Read-only ones too, as what systemd-importd has downloaded is. One that is busy stays. OSError, of the last one that
    could not be removed, when all others are.
    """
    delete_leftovers()
    failed: OSError | None = None
    for image in discovery.everything():
        if os.path.dirname(image.path) != discovery.POOL or not (everything or image.hidden):
            continue
        try:
            with _locked(image):
                _remove(image, progress)
        except (ImageBusy, NoSuchImage):
            continue
        except OSError as error:
            failed = error
            continue
        yield image.name, image.usage_exclusive
    if failed is not None:
        raise failed


def check_new_name(name: str) -> None:
    """InvalidArgument."""
    if not is_image_name(name) or name == ".host":
        raise InvalidArgument("newName", f"Image name '{name}' is invalid.")


_CHANGED = (*(path for path in discovery.SEARCH_PATH if not path.startswith("/usr/lib/")), *settings.FOLDERS)
"""Directories in which anything is made or removed."""


def has_leftovers() -> bool:
    """Whether there may be something to delete: a look at some names."""
    for path in _CHANGED:
        with contextlib.suppress(OSError):
            if any(os.fsencode(name).startswith(PREFIX) for name in os.listdir(path)):
                return True
    return False


def delete_leftovers() -> None:
    """Delete what killed operations have left, as far as that goes."""
    for path in _CHANGED:
        with contextlib.suppress(OSError), opened(path) as directory:
            if btrfs.is_btrfs(directory):
                subvolumes.delete_leftovers(directory)
            remove_leftovers(directory)


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
    with _there(image), image_locked(image.path), alone(image.path):
        yield


@contextlib.contextmanager
def _kept(image: Image) -> Iterator[None]:
    with _there(image), kept(image.path):
        yield


@contextlib.contextmanager
def _there(image: Image) -> Iterator[None]:
    """Somebody else was faster, and has removed it since it was found."""
    try:
        yield
    except FileNotFoundError as error:
        if error.filename == image.path:
            raise NoSuchImage(f"No image '{image.name}' known") from None
        raise


@contextlib.contextmanager
def _unprotected(image: Image) -> Iterator[None]:
    """What is immutable cannot be renamed: it is not for that moment."""
    if image.type is not ImageType.DIRECTORY or not _is_immutable(image):
        yield
        return
    with opened(image.path) as top, _thawed(image):
        yield
        set_immutable(f"/proc/self/fd/{top}/.", True)


@contextlib.contextmanager
def _thawed(image: Image) -> Iterator[None]:
    """Not immutable from here on, unless this fails and the image is still there."""
    was = image.type is ImageType.DIRECTORY and not os.path.islink(image.path) and _is_immutable(image)
    if was:
        set_immutable(image.path, False)
    try:
        yield
    except BaseException:
        if was:
            with contextlib.suppress(OSError):
                set_immutable(image.path, True)
        raise


def _is_immutable(image: Image) -> bool:
    with opened(image.path) as top:
        return facts_of(top).immutable
