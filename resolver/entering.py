# SPDX-License-Identifier: MIT
"""Into machines: terminals, logins, shells, root directories, mounts and copies, whichever way the request came.

Who may is decided here. What is done there, a worker does (resolver.enter, resolver.guest.copying): this process never
enters a machine, and opens no path of one.
"""

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from resolver.authority import Authority, Subject
from resolver.core.errors import AccessDenied, InvalidArgument, NoSuchMachine, NotSupported
from resolver.core.machine import MachineClass
from resolver.core.registry import Entry
from resolver.guest import copying
from resolver.guest.copying import Copied
from resolver.host.process import Namespace, NoSuchProcess, Process
from resolver.manager import Manager, details
from resolver.worker.run import Result, Workers

SECONDS = 5.0
"""For a terminal, a login, a shell or a mount: it takes 0.1 s, and what a machine holds up is not waited for."""

ANSWER_SECONDS = 0.5
"""Of SECONDS, for the answer to come when the machine's bus has had its time."""

TEXT_MAX = 64 * 1024
"""Octets of a shell's arguments and environment: a request has room for them, escaped, in worker.MESSAGE_MAX."""

_PROGRAM = ("-m", "resolver.enter")

_USER = re.compile(r"[^\W-][^\s:/,\x00-\x1f\x7f]*", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=[^\0]*", re.DOTALL)

_log = logging.getLogger(__name__)


class Terminal(NamedTuple):
    """The master of a pseudo terminal, the receiver's to close, and the terminal's path in the machine."""

    descriptor: int
    path: str


class Entering:
    """For one daemon. Each method finds the machine by name, by a process of its, or by both, as Manager.find()."""

    def __init__(self, manager: Manager, authority: Authority, workers: Workers) -> None:
        self._manager = manager
        self._authority = authority
        self._workers = workers

    # Any MachineError.

    async def open_pty(self, entry: Entry, subject: Subject) -> Terminal:
        """A terminal that nothing runs on."""
        await self._check(entry, subject, "open-pty", {})
        return await self._terminal(entry, {"do": "pty"})

    async def open_login(self, entry: Entry, subject: Subject) -> Terminal:
        """A terminal with a login prompt, for a machine that runs systemd."""
        await self._check(entry, subject, "login", {})
        return await self._terminal(entry, {"do": "login"})

    async def open_shell(self, entry: Entry, user: str, path: str, arguments: Sequence[str],
                         environment: Sequence[str], subject: Subject) -> Terminal:
        """A terminal with a program, for a machine that runs systemd. root where no user is given; the user's own shell
        where no path is. `arguments` begin with the name that the program is told it has."""
        user = user or "root"
        _check_program(user, path, arguments, environment)
        # No user namespace lies between such a machine's root and the host's.
        if not subject.privileged and entry is not self._manager.host and self._shares_users(entry):
            raise AccessDenied("only root may open a shell in a machine that has the host's users")
        program = path or "shell"
        await self._check(entry, subject, "shell", {"user": user, "program": program})
        _log.info("uid %d opens a shell in machine %s: %r as %r", subject.uid, entry.machine.name, program, user)
        return await self._terminal(entry, {"do": "shell", "user": user, "path": path, "arguments": list(arguments),
                                            "environment": list(environment)})

    async def open_root_directory(self, entry: Entry, subject: Subject) -> int:
        """A descriptor of the root directory, the receiver's to close."""
        await self._authority.check(subject, "manage-machines", details(entry, "open-root-directory"))
        return (await self._enter(entry, {"do": "root"})).descriptors[0]

    async def bind_mount(self, entry: Entry, source: str, destination: str, *, read_only: bool, make: bool,
                         subject: Subject) -> None:
        """Mount a directory or file of the host in a container; where no destination is given, at the same path."""
        destination = destination or source
        for field, path in (("source", source), ("destination", destination)):
            _check_path(field, path)
        self._only_containers(entry)
        await self._authority.check(subject, "manage-machines", details(entry, "bind"))
        await self._enter(entry, {"do": "bind", "source": source, "destination": destination, "read_only": read_only,
                                  "make": make})
        _log.info("%r of the host is mounted at %r in machine %s", source, destination, entry.machine.name)

    async def copy_from(self, entry: Entry, source: str, destination: str, *, replace: bool,
                        subject: Subject) -> Copied:
        """Copy a file or tree out of a container. Cancelled, it takes away what it has made."""
        self._only_containers(entry)
        await self._authority.check(subject, "manage-machines", details(entry, "copy"))
        with self._leader_of(entry) as leader:
            return await copying.copy_from(self._workers, leader, source, destination, replace=replace)

    async def copy_to(self, entry: Entry, source: str, destination: str, *, replace: bool,
                      subject: Subject) -> Copied:
        """The same into a container."""
        self._only_containers(entry)
        await self._authority.check(subject, "manage-machines", details(entry, "copy"))
        with self._leader_of(entry) as leader:
            return await copying.copy_to(self._workers, leader, source, destination, replace=replace)

    # Inside.

    async def _check(self, entry: Entry, subject: Subject, action: str, more: Mapping[str, str]) -> None:
        host = "host-" if entry is self._manager.host else ""
        await self._authority.check(subject, f"{host}{action}", {**details(entry, action), **more})

    async def _terminal(self, entry: Entry, request: Mapping[str, Any]) -> Terminal:
        fields, (descriptor,) = await self._enter(entry, request)
        return Terminal(descriptor, fields["path"])

    async def _enter(self, entry: Entry, request: Mapping[str, Any]) -> Result:
        # An answer that says what took so long is better than none: it comes before the worker is killed.
        request = {**request, "deadline": time.monotonic() + SECONDS - ANSWER_SECONDS}
        if entry is self._manager.host:
            return await self._workers.run(_PROGRAM, request, patience=SECONDS)
        self._only_containers(entry)
        with self._leader_of(entry) as leader:
            return await self._workers.run(_PROGRAM, request, [leader.fileno()], patience=SECONDS)

    def _leader_of(self, entry: Entry) -> Process:
        """The leader of a machine with files of its own. Where it has the host's, its terminals, bus and mounts are the
        host's too, and for those others ask as .host."""
        leader = self._manager.leader_of(entry)
        if _shares(leader, "mnt"):
            leader.close()
            raise NotSupported("the machine has the host's files, and none of its own")
        return leader

    def _only_containers(self, entry: Entry) -> None:
        if entry is self._manager.host:
            raise NotSupported("this is the host itself")
        if entry.machine.machine_class is not MachineClass.CONTAINER:
            raise NotSupported("a virtual machine cannot be entered from here")

    def _shares_users(self, entry: Entry) -> bool:
        with self._manager.leader_of(entry) as leader:
            return _shares(leader, "user")


def _shares(leader: Process, kind: Namespace) -> bool:
    try:
        return leader.shares_namespace(kind)
    except NoSuchProcess:
        raise NoSuchMachine("its leader has just exited") from None


def _check_path(field: str, path: str) -> None:
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise InvalidArgument(field, "a path is to be given that begins with / and goes down only")


def _check_program(user: str, path: str, arguments: Sequence[str], environment: Sequence[str]) -> None:
    if not _USER.fullmatch(user) or len(user) > 255:
        raise InvalidArgument("user", f"{user!r} is no user's name")
    if path and (not path.startswith("/") or "\0" in path):
        raise InvalidArgument("path", "a program is named by its whole path")
    if any("\0" in argument for argument in arguments):
        raise InvalidArgument("args", "an argument holds no NUL")
    if not all(_VARIABLE.fullmatch(each) for each in environment):
        raise InvalidArgument("environment", "variables are given as NAME=VALUE")
    if sum(len(os.fsencode(each)) for each in (*arguments, *environment)) > TEXT_MAX:
        raise InvalidArgument("args", f"arguments and environment have more than {TEXT_MAX} octets together")
