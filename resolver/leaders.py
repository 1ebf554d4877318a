# SPDX-License-Identifier: MIT
"""Which process a machine's leader is to be, and what is done to it. NoSuchProcess where it has exited."""

import errno
import os
import re
import resource

from resolver.authority import Subject
from resolver.core.errors import AccessDenied, InvalidArgument, NoSuchMachine, NotAvailable
from resolver.core.machine import ProcessId
from resolver.host.process import NoSuchProcess, Process

KEPT_SHARE = 8
"""One in eight of the descriptors that the daemon may have is for no machine, but for callers, workers and files: with
the 65,536 that its unit gives it, all connections to two sockets, and as many as that again of one."""

# By the kernel's own end of a line alone: the process's name stands before, and may hold all others.
_NSPID = re.compile(r"^NSpid:(.*)$", re.MULTILINE)


def find(wanted: ProcessId | None, subject: Subject) -> Process:
    """The process that a request names, by pid alone or with what makes sure of it; the caller where it names none."""
    if wanted is not None:
        return _named(wanted)
    if subject.pidfd is not None:
        return Process.from_pidfd(os.dup(subject.pidfd))
    return Process.open(subject.pid)


def _named(wanted: ProcessId) -> Process:
    process = Process.open(wanted.pid)
    if wanted == ProcessId(wanted.pid):
        return process  # nothing was said that could be compared
    try:
        now = process.identity()
        for said, true in ((wanted.pidfd_id, now.pidfd_id), (wanted.boot_id, now.boot_id)):
            if said is not None and true is not None and said != true:
                raise NoSuchProcess(wanted.pid, "its number is another process's now")
    except BaseException:
        process.close()
        raise
    return process


def check_room(process: Process) -> None:
    """NotAvailable where a leader that has just been opened takes what is kept.

    The kernel gives the lowest number that is free (open(2)), so as many others are open as this one has.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if process.fileno() >= allowed - allowed // KEPT_SHARE:
        raise NotAvailable(f"{process.fileno()} of {allowed} descriptors are open, and the rest is not for machines")


def check_descriptors(error: OSError) -> None:
    """NotAvailable where it says that there are none at all."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise NotAvailable(f"no descriptor is left: {error}") from None


def check(process: Process, subject: Subject) -> None:
    """InvalidArgument for what can be no machine's leader, AccessDenied for what is not the subject's own."""
    if process.pid in (1, os.getpid()):
        raise InvalidArgument("leader", f"process {process.pid} can be no machine's leader")
    if not subject.privileged and not process.owned_by(subject.uid):
        raise AccessDenied(f"process {process.pid} is not yours")


def rules_pid_namespace(process: Process) -> bool:
    """Whether a leader is pid 1 of a pid namespace of its own. NoSuchMachine where it has just exited."""
    try:
        found = _NSPID.search(process.read("status"))
    except NoSuchProcess:
        raise NoSuchMachine("its leader has just exited") from None
    numbers = [] if found is None else found[1].split()
    return len(numbers) > 1 and numbers[-1] == "1"


def send_signal(process: Process, number: int) -> None:
    """Signal a leader. NoSuchMachine where it has just exited."""
    try:
        process.send_signal(number)
    except NoSuchProcess:
        raise NoSuchMachine("its leader has just exited") from None
