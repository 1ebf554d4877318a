# SPDX-License-Identifier: MIT
"""The locks on images that systemd-nspawn, systemd-machined and systemd-importd take, so that all keep out of each
other's way: open file description locks (fcntl(2), F_OFD_SETLK) on files that are removed again.

    .#NAME.lck beside the image                               the path
    /run/systemd/nspawn/locks/inode-DEVICE:INODE              the same image by whatever path;
                              block-MAJOR:MINOR               where that is a block device
    /run/systemd/nspawn/locks/name-NAME                       a name that is to be an image's

Whoever changes an image holds them, and a container that runs from it. Nobody waits: who does not get a lock says that
the image is busy.
"""

import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from machine_images.image import ImageBusy

LOCKS = "/run/systemd/nspawn/locks"

_FLOCK = struct.Struct("hhqqi4x")  # struct flock: l_type, l_whence, l_start, l_len, l_pid
_F_OFD_SETLK = 37  # linux/fcntl.h
_TRIES = 16  # somebody else has just removed the file that we have locked


@contextmanager
def image_locked(path: str) -> Iterator[None]:
    """ImageBusy where somebody has a lock that this one is against. FileNotFoundError where there is no image."""
    status = os.stat(path)
    directory, name = os.path.split(path)
    with ExitStack() as stack:
        os.makedirs(LOCKS, mode=0o755, exist_ok=True)
        stack.enter_context(_locked(os.path.join(directory, f".#{name}.lck")))
        stack.enter_context(_locked(os.path.join(LOCKS, _any_path(status))))
        yield


def _any_path(status: os.stat_result) -> str:
    if stat.S_ISBLK(status.st_mode):
        return f"block-{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return f"inode-{status.st_dev}:{status.st_ino}"


@contextmanager
def name_locked(name: str) -> Iterator[None]:
    """A name that is not an image's yet. ImageBusy."""
    os.makedirs(LOCKS, mode=0o755, exist_ok=True)
    with _locked(os.path.join(LOCKS, f"name-{name}")):
        yield


@contextmanager
def kept(path: str) -> Iterator[None]:
    """Keep an image from being changed by us, while it may be started: what is read from it. OSError.

    Others know nothing of this lock (flock(2), on the image itself). A machine that runs from it could hold one, but
    then nobody changes the image either.
    """
    with _flocked(path, fcntl.LOCK_SH, must=False):
        yield


@contextmanager
def alone(path: str) -> Iterator[None]:
    """Whoever has it kept() is against it: ImageBusy. OSError."""
    with _flocked(path, fcntl.LOCK_EX, must=True):
        yield


@contextmanager
def _flocked(path: str, kind: int, *, must: bool) -> Iterator[None]:
    status = os.stat(path)
    if stat.S_ISBLK(status.st_mode):  # others' locks on it mean other things: it is neither cloned nor removed
        yield
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        if must:
            os.close(descriptor)
            raise ImageBusy("it is being cloned") from None
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _locked(path: str) -> Iterator[None]:
    descriptor = _take(path)
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(path)
        os.close(descriptor)


def _take(path: str) -> int:
    for _ in range(_TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC, 0o600)
        try:
            _set(descriptor, fcntl.F_WRLCK)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise ImageBusy("A machine runs from it, or it is being changed: Device or resource busy") from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # whoever held it has removed it between
    raise ImageBusy("It is taken up again and again: Device or resource busy")


def _set(descriptor: int, kind: int) -> None:
    fcntl.fcntl(descriptor, _F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
