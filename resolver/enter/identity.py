# SPDX-License-Identifier: MIT
"""Work done as the machine's root: by a child of this process that has joined the machine's user namespace.

Such a child can do what the machine's root can, and nothing of what the host's root could: the kernel itself sees to it
that a socket is connected, a terminal made or a directory created in that name.
"""

import ctypes
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from resolver.core.errors import NotAvailable
from resolver.enter.place import Place
from resolver.files.kernel import setns
from resolver.worker import packets

Work = Callable[[], tuple[Mapping[str, Any], Sequence[int]]]
"""What it gives: a JSON object, and descriptors. It may raise NotAvailable and OSError."""

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000  # linux/sched.h
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4  # linux/prctl.h

_libc = ctypes.CDLL(None, use_errno=True)


def as_root_of(place: Place, work: Work) -> tuple[dict[str, Any], list[int]]:
    """Have a child do the work as the machine's root; what it gave. NotAvailable, OSError, as it raised.

    The child has no number in the machine's pid namespace: where the machine has the host's users, its root could
    otherwise look through the child's /proc/PID/root, which is the host's.
    """
    return in_child(lambda: become_root(place), work)


def in_mounts_of(place: Place, work: Callable[[], None]) -> None:
    """Have a child do the work in the machine's mount namespace, with all rights of the host's root. OSError.

    Only what was opened before is to be used there: every path is the machine's.
    """
    def enter() -> None:
        if place.mount_namespace is not None:
            setns(place.mount_namespace, _CLONE_NEWNS)

    def do() -> tuple[Mapping[str, Any], Sequence[int]]:
        work()
        return {}, ()

    in_child(enter, do)


def in_child(enter: Callable[[], None], work: Work) -> tuple[dict[str, Any], list[int]]:
    """Have a child of this process do `enter` and then the work; what that gave. NotAvailable, OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            child = os.fork()
            if child == 0:
                _child(enter, work, theirs)
        try:
            received = packets.receive(ours)
        finally:
            os.kill(child, signal.SIGKILL)  # not waited for yet: the number is its own
            os.waitpid(child, 0)
    if received is None:
        raise NotAvailable("the machine cannot be entered: what was to do it has ended")
    answer, descriptors = received
    if "errno" in answer:
        raise OSError(answer["errno"], os.strerror(answer["errno"]), answer["path"])
    if "error" in answer:
        raise NotAvailable(answer["error"])
    return answer["done"], descriptors


def _child(enter: Callable[[], None], work: Work, connection: socket.socket) -> NoReturn:
    try:
        _die_with_parent()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        answer, given = _try(enter, work)
        with suppress(OSError):
            packets.send(connection, answer, given)
    finally:
        os._exit(0)


def _try(enter: Callable[[], None], work: Work) -> tuple[Mapping[str, Any], Sequence[int]]:
    try:
        enter()
        done, given = work()
        return {"done": done}, given
    except OSError as error:
        path = error.filename
        return {"errno": error.errno or 0, "path": os.fsdecode(path) if isinstance(path, (bytes, str)) else ""}, ()
    except NotAvailable as error:
        return {"error": str(error)}, ()


def become_root(place: Place) -> None:
    """Of the machine's user namespace. Nobody in there can trace this process or see its descriptors."""
    _libc.prctl(_PR_SET_DUMPABLE, 0)
    if place.user_namespace is None:
        return
    setns(place.user_namespace, _CLONE_NEWUSER)
    try:
        os.setgroups([])
    except PermissionError:
        pass  # a namespace whose maker could not do it either (user_namespaces(7), setgroups)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    _libc.prctl(_PR_SET_DUMPABLE, 0)
    _die_with_parent()  # a change of ids has cleared it (PR_SET_PDEATHSIG(2const))


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
