# SPDX-License-Identifier: MIT
"""The files that outlive the daemon, and that libsystemd reads: /run/systemd/machines.

    machines/NAME        public, 0644: what sd-login(3) tells of machines
    machines/unit:UNIT   symbolic link to NAME: sd_pid_get_machine_name(3) finds a process's machine through its unit
    mymachines/NAME      private, 0600 in a directory of 0700: what the public file has no place for, where there is any

A file comes by rename and goes by unlink: that is what sd_login_monitor watches, and no reader sees half of one. The
public file is the registration: it comes last and goes first, so that whoever is killed in between has registered or
has not; tidy() takes away, or makes, what should go with it. The private file is believed only where the public one
tells of the same registration. Nothing is synced: /run is a tmpfs, and nothing here means anything after a boot. Ids
and addresses are not kept; the kernel has them.
"""

import errno
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from resolver.core.frozen import but
from resolver.core.machine import Machine, ProcessId
from resolver.core.names import check_machine_name
from resolver.host import state_format
from resolver.host.process import NoSuchProcess, Process

FILE_MAX = 65536
"""Bytes of one file: a path of 4096 bytes, escaped six-fold, and thousands of interfaces."""

# One name for all: there is one writer, and what a crash leaves behind is overwritten. Readers skip it for the '.#',
# which no host name has (tried with sd_get_machine_names and machined 257).
_TEMPORARY = ".#mymachinesd"
_LINK_PREFIX = "unit:"
_NAME_MAX = 255  # linux/limits.h


class Loaded(NamedTuple):
    """The machines that were found, in the order of their registration, and what was wrong with which files.

    `ours` are the names of those that this daemon registered, as one of their files says.
    """

    machines: list[Machine]
    errors: list[tuple[str, Exception]]
    ours: set[str]


class StateFiles:
    """The state files of all machines. OSError where a directory or file cannot be made."""

    def __init__(self, directory: str | Path = "/run/systemd/machines",
                 private: str | Path = "/run/systemd/mymachines") -> None:
        self._directory = Path(directory)
        self._private = Path(private)
        self._make_directories()

    def _make_directories(self) -> None:
        for path, mode in ((self._directory, 0o755), (self._private, 0o700)):
            path.mkdir(parents=True, exist_ok=True)
            # Not by mkdir's mode: the umask, or who made it before us, had a say in that. And not for nothing: a
            # read-only directory that is as it should be can be read.
            if stat.S_IMODE(os.stat(path).st_mode) != mode:
                os.chmod(path, mode)

    def save(self, machine: Machine, *, linked: bool = True) -> None:
        """Write the machine's files; `linked`, its unit's link too. On OSError (ENOSPC) the public file is what it was,
        and of a new machine nothing is left."""
        check_machine_name(machine.name)  # it becomes a path
        try:
            try:
                self._write(machine, linked)
            except FileNotFoundError:  # somebody has tidied /run
                self._make_directories()
                self._write(machine, linked)
        except OSError:
            if not os.path.lexists(f"{self._directory}/{machine.name}"):  # the last to be made: there was none before
                self._remove_what_goes_with(machine.name, machine.unit)
            raise

    def _write(self, machine: Machine, linked: bool) -> None:
        public = state_format.public_text(machine)
        if not state_format.says_all(public):
            _write(self._private, machine.name, state_format.private_text(machine), 0o600)
        if linked:
            self.link(machine)
        _write(self._directory, machine.name, public, 0o644)

    def link(self, machine: Machine) -> None:
        """Have processes of the machine's unit found to be this machine's. OSError."""
        link = _link_name(machine.unit)
        if link:
            _link(self._directory, link, machine.name)

    def remove(self, name: str, unit: str = "") -> None:
        """Remove the machine's files, as far as they are there; the link only if it is this machine's. On OSError
        (EROFS) all are what they were."""
        check_machine_name(name)
        try:
            os.unlink(f"{self._directory}/{name}")
        except FileNotFoundError:
            pass
        self._remove_what_goes_with(name, unit)

    def _remove_what_goes_with(self, name: str, unit: str) -> None:
        """Never fails: without the public file it means nothing, and tidy() comes."""
        link = _link_name(unit)
        with suppress(OSError):
            if link and os.readlink(f"{self._directory}/{link}") == name:
                os.unlink(f"{self._directory}/{link}")
        with suppress(OSError):
            os.unlink(f"{self._private}/{name}")

    def tidy(self, machines: Iterable[Machine]) -> None:
        """Remove what goes with no public file, and make the links of `machines` that are missing. OSError."""
        found = os.listdir(self._directory)
        links = {name for name in found if name.startswith(_LINK_PREFIX)}
        public = {name for name in found if name not in links and not name.startswith(".")}
        for name in [name for name in links if _leads_to_none_of(f"{self._directory}/{name}", public)]:
            os.unlink(f"{self._directory}/{name}")
            links.remove(name)
        if _TEMPORARY in found:
            os.unlink(f"{self._directory}/{_TEMPORARY}")
        for name in os.listdir(self._private):
            if name not in public:
                os.unlink(self._private / name)
        for machine in machines:
            link = _link_name(machine.unit)
            if link and link not in links:
                self.link(machine)

    def forget(self, name: str) -> bool:
        """Remove whatever there is by this name, and every link to it. Whether there was anything."""
        check_machine_name(name)
        links = [entry.name.removeprefix(_LINK_PREFIX) for entry in self._directory.glob(f"{_LINK_PREFIX}*")
                 if entry.is_symlink() and os.readlink(entry) == name]
        known = bool(links) or any(os.path.lexists(path / name) for path in (self._directory, self._private))
        for unit in ["", *links]:
            self.remove(name, unit)
        return known

    def load(self) -> Loaded:
        """What was saved, by us or by machined. A bad file is told of, and hinders no other.

        The leader of each machine is what Process.from_identity() takes, and refuses where nothing proves that it is
        still the registered process.
        """
        machines: list[Machine] = []
        errors: list[tuple[str, Exception]] = []
        ours: set[str] = set()
        for name in sorted(os.listdir(self._directory)):
            if name.startswith((".", _LINK_PREFIX)):
                continue
            try:
                machine, is_ours, private_error = self._load(name)
            except (OSError, ValueError) as error:
                errors.append((name, error))
                continue
            machines.append(machine)
            if is_ours:
                ours.add(name)
            if private_error is not None:
                errors.append((name, private_error))
        machines.sort(key=lambda machine: machine.monotonic)
        return Loaded(machines, errors, ours)

    def _load(self, name: str) -> tuple[Machine, bool, Exception | None]:
        """The machine, whether it is ours, and what is wrong with its private file."""
        public = _read(f"{self._directory}/{name}")
        if state_format.says_all(public):
            machine = state_format.machine_from_public(public)
            _check_name(name, machine.name)
            return machine, True, None
        said = state_format.registration_of(public)
        _check_name(name, said.name)
        problem: Exception | None = None
        try:
            machine = state_format.machine_from_private(_read(f"{self._private}/{name}"), said.name)
            if (machine.name, machine.leader.pid, machine.monotonic) == said:
                return machine, True, None
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            problem = error
        # machined's, or ours without its better half.
        found = state_format.machine_from_public(public)
        return but(found, leader=_leader_of(found)), False, problem


def _check_name(name: str, said: str) -> None:
    if said != name:
        raise ValueError(f"is of a machine {said}")


def _leads_to_none_of(link: str, names: set[str]) -> bool:
    try:
        return os.readlink(link) not in names
    except OSError:  # EINVAL: no symbolic link, and none of ours
        return False


def _leader_of(machine: Machine) -> ProcessId:
    """The leader that a public file tells of, with all that proves it; with nothing where it may be another process.

    Without LEADER_PIDFDID: the process must have started before the registration. MONOTONIC stands still while the
    host sleeps and start times do not, so the difference of the two clocks is added. It is today's: for the time that
    the host slept since the registration, a process that took over the number would be believed. No file tells better.
    """
    with suppress(NoSuchProcess):
        if machine.leader.pidfd_id is not None:
            with Process.from_identity(machine.leader) as process:
                return process.identity()
        with Process.open(machine.leader.pid) as process:
            slept = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            started = process.start_time() * 1_000_000 // os.sysconf("SC_CLK_TCK")
            if started <= machine.monotonic + slept // 1000:
                return process.identity()
    return ProcessId(machine.leader.pid)


def _link_name(unit: str) -> str:
    """The link's file name, '' where there can be none: libsystemd could not find it either."""
    name = _LINK_PREFIX + unit
    return name if unit and "/" not in unit and "\0" not in unit and len(os.fsencode(name)) <= _NAME_MAX else ""


def _write(directory: Path, name: str, data: bytes, mode: int) -> None:
    if len(data) > FILE_MAX:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
    temporary = f"{directory}/{_TEMPORARY}"
    try:
        fd = _create(temporary, mode)
        try:
            os.fchmod(fd, mode)  # whatever the umask
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view):]
        finally:
            os.close(fd)
        os.rename(temporary, f"{directory}/{name}")
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _create(path: str, mode: int) -> int:
    # O_EXCL follows no symbolic link and opens nobody else's file (open(2)).
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, mode)
    except FileExistsError:  # of one who was killed in the middle
        os.unlink(path)
        return os.open(path, flags, mode)


def _link(directory: Path, link: str, name: str) -> None:
    try:
        os.symlink(name, f"{directory}/{link}")
        return
    except FileExistsError:
        pass
    temporary = f"{directory}/{_TEMPORARY}"
    try:
        os.symlink(name, temporary)
    except FileExistsError:
        os.unlink(temporary)
        os.symlink(name, temporary)
    try:
        os.rename(temporary, f"{directory}/{link}")
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _read(path: str) -> bytes:
    """A regular file's content. O_NONBLOCK: opening a FIFO would wait for a writer."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("is no regular file")
        data = os.read(fd, FILE_MAX + 1)  # of a file, less than was asked for is all that there is (read(2))
        if len(data) > FILE_MAX:
            raise ValueError(f"is longer than {FILE_MAX} bytes")
    finally:
        os.close(fd)
    return data
