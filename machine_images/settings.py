# SPDX-License-Identifier: MIT
"""The files that belong to an image: they go along with a clone and a rename, and away with it. Blocking.

An image is never without them under a name that it can be started by: NAME.nspawn may restrict a machine, and .verity
protects it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from machine_images.discovery import POOL, exists
from machine_images.image import Image, ImageType
from machine_images.stat import opened
from resolver.files.copy import copy
from resolver.files.progress import Progress

FOLDERS = ("/etc/systemd/nspawn", "/run/systemd/nspawn")
"""Where NAME.nspawn may be, besides the image's own directory (systemd.nspawn(5))."""

_BESIDE = (".nspawn", ".roothash", ".roothash.p7s", ".verity")
"""In the image's own directory; the others in the place of .raw (systemd-nspawn(1), --root-hash=, --verity-data=)."""


def of(image: Image) -> Iterator[str]:
    """Those that are there."""
    folder = os.path.dirname(image.path)
    endings = _BESIDE if image.type is ImageType.RAW else _BESIDE[:1]
    for path in (*(os.path.join(each, f"{image.name}.nspawn") for each in FOLDERS),
                 *(os.path.join(folder, image.name + ending) for ending in endings)):
        if os.path.lexists(path):
            yield path


@contextmanager
def copied(image: Image, new_name: str, progress: Progress) -> Iterator[None]:
    """For a clone. What is there by such a name stays as it is. Without a clone they go again. OSError."""
    made: list[str] = []
    try:
        for path in of(image):
            folder, file = os.path.split(path)
            target, name = folder if folder in FOLDERS else POOL, new_name + file[len(image.name):]
            with suppress(FileExistsError), opened(folder) as where, opened(target) as there:
                copy(where, os.fsencode(file), there, os.fsencode(name), progress)
                made.append(os.path.join(target, name))
        yield
    except BaseException:
        for path in made if not exists(new_name) else ():
            with suppress(OSError):
                os.unlink(path)
        raise


@contextmanager
def moved(image: Image, new_name: str) -> Iterator[None]:
    """Under both names while the image is renamed. What is there by such a name stays as it is."""
    new = {path: os.path.join(os.path.dirname(path), new_name + os.path.basename(path)[len(image.name):])
           for path in of(image)}
    linked: list[str] = []
    try:
        for old, path in new.items():
            with suppress(OSError):  # one is there, or it cannot have two names here
                os.link(old, path, follow_symlinks=False)
                linked.append(old)
        yield
    except BaseException:
        for old in linked:
            with suppress(OSError):
                os.unlink(new[old])
        raise
    for old, path in new.items():
        with suppress(OSError):  # the image has its new name: what cannot follow stays
            if old in linked:
                os.unlink(old)
            elif not os.path.lexists(path):
                os.rename(old, path)
