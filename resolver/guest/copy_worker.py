# SPDX-License-Identifier: MIT
"""The program that copies between the host and a machine, for one request (worker/). Two processes:

    outer   root of the host: reads or writes the host's tree
    inner   root of the machine, where that has a user namespace of its own: writes or reads the machine's

So a machine's ids are its own in both directions, for the kernel translates them as for any process; what is read in
the machine is what its root can read, and nothing else of the host, though it may have mounted all of that into its
tree; and what is written is what its root could write. The inner one stays in the host's mount and pid namespaces: it
works below a descriptor of the machine's root, and resolves paths there by openat2(2).

    request  {"direction": "from" | "to", "machine": path, "host": path, "replace": bool}, with the leader's pidfd
    result   {"files": n, "bytes": n, "changes": n, "changed": [path...]}

Set-user-id bits and file capabilities are kept, as `cp -a` keeps them: a tree that comes from a machine is no more to
be trusted than the machine.
"""

import ctypes
import os
import select
import signal
import socket
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from resolver.core.errors import NoSuchMachine
from resolver.core.idmap import NOBODY
from resolver.files.entries import Entry
from resolver.files.failures import failure
from resolver.files.kernel import setns
from resolver.files.paths import open_in, split
from resolver.files.progress import Progress
from resolver.files.read import Reader
from resolver.files.write import Writer
from resolver.guest.copy_packets import Channel
from resolver.guest.copy_streams import (
    Check,
    Rules,
    Sending,
    changes_of,
    counts_of,
    receive_tree,
    tell_error,
    tell_progress,
)
from resolver.host.process import NoSuchProcess, Process
from resolver.worker.serve import Answer, Asker, Stopped, die_with_parent, main

TIDY_SECONDS = 4.0
"""For the inner process to take away what it has made. The daemon waits for 5 s, then kills them both."""

IN_MACHINE = b"machine:"
"""What paths of the machine begin with, in errors."""

_CLONE_NEWUSER = 0x10000000  # linux/sched.h
_PR_SET_DUMPABLE = 4  # linux/prctl.h


def handle(request: Mapping[str, Any], descriptors: Sequence[int], asker: Asker) -> Answer:
    """The request, as above."""
    progress = Progress(lambda progress: asker.tell(counts_of(progress)))
    try:
        with Process.from_pidfd(descriptors[0]) as leader:
            _Copy(leader, request, progress).run()
    except NoSuchProcess as error:
        raise NoSuchMachine(str(error)) from None
    except OSError as error:
        raise failure(error, progress) from None
    return counts_of(progress) | changes_of(progress), ()


class _Copy:
    """One request."""

    def __init__(self, leader: Process, request: Mapping[str, Any], progress: Progress) -> None:
        """OSError, NoSuchProcess."""
        self._into = request["direction"] == "to"
        self._machine_path = os.fsencode(request["machine"])
        self._replace = bool(request["replace"])
        self._progress = progress
        self._root = leader.open_root()
        self._namespace = None if leader.shares_namespace("user") else leader.open_namespace("user")
        self._rules = Rules(None if self._namespace is None else leader.id_maps()[:2])
        self._where, self._name = split(os.fsencode(request["host"]))
        self._directory = os.open(self._where, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def run(self) -> None:
        """OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        outer = os.getpid()
        inner = os.fork()
        if inner == 0:
            self._run_inner(theirs, outer)
        theirs.close()
        try:
            if self._into:
                self._send(ours, self._rules.check_device)
            else:
                self._receive(ours, self._rules.check_from)
        finally:
            # While the connection is up: its end is an error over there, and a signal that came when it has begun to
            # tidy up for that would stop it.
            _end(inner, TIDY_SECONDS if self._into else 0)
            ours.close()

    def _send(self, connection: socket.socket, check: Check) -> None:
        sending = Sending(self._progress)
        reader = Reader(self._directory, self._name, self._progress, where=self._where, look_at=self._look_at)
        sending.send(Channel(connection, sending.on_note), reader, check)

    def _receive(self, connection: socket.socket, check: Check) -> None:
        writer = Writer(self._directory, self._name, self._progress, replace=self._replace, where=self._where)
        try:
            receive_tree(Channel(connection), writer, self._progress, check)
        except BaseException:
            writer.discard()
            raise

    @property
    def _look_at(self) -> int | None:
        return None if self._into or self._namespace is None else NOBODY

    # --- the inner process ---

    def _run_inner(self, connection: socket.socket, outer: int) -> NoReturn:
        try:
            die_with_parent(outer)
            _close_all_but(connection.fileno(), self._root, self._namespace)
            if self._namespace is not None:
                _become_root_of(self._namespace)
                die_with_parent(outer)  # a change of ids has cleared it (PR_SET_PDEATHSIG(2const))
            self._progress = Progress(lambda progress: tell_progress(Channel(connection), progress))
            try:
                self._work(connection)
            except OSError as error:
                tell_error(Channel(connection), error, self._progress)
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1):  # what is still to come is not wanted, and must be no error over there
                    pass
        except Stopped:
            pass
        except Exception:  # noqa: BLE001 - a fault of ours: the log has it
            traceback.print_exc()
        finally:
            os._exit(0)

    def _work(self, connection: socket.socket) -> None:
        where, self._name = split(self._machine_path)
        self._where = IN_MACHINE + where
        try:
            self._directory = open_in(self._root, where, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._where) from None
        if self._into:
            self._receive(connection, _as_it_comes)
        else:
            self._send(connection, _as_it_comes)


def _as_it_comes(_: Entry) -> None:
    """The outer process checks."""


def _close_all_but(*kept: int | None) -> None:
    """Also the socket to the daemon: it tells by its end that the worker has."""
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    last = 2
    for fd in sorted(fd for fd in kept if fd is not None):
        os.closerange(last + 1, fd)
        last = fd
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))


def _become_root_of(namespace: int) -> None:
    """All that the machine's root may, and nothing else. OSError where it has no root."""
    os.setgroups([])  # root's groups are no guest's
    setns(namespace, _CLONE_NEWUSER)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # Its memory is the host's (ptrace(2), proc(5)): no process of the machine's may look into it.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)


def _end(inner: int, seconds: float) -> None:
    """It has `seconds` to tidy up."""
    pidfd = os.pidfd_open(inner)
    try:
        if seconds:
            os.kill(inner, signal.SIGTERM)  # ours, and not waited for: the number is still its own
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(seconds * 1000)
        os.kill(inner, signal.SIGKILL)
        os.waitpid(inner, 0)
    finally:
        os.close(pidfd)


if __name__ == "__main__":
    main(handle)
