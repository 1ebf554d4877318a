# SPDX-License-Identifier: MIT
"""A process that is held, so that its number cannot come to mean another one.

A pid is free for another process only after its process has exited and was waited for. So whatever was read under
/proc/PID is of the held process if its pidfd says afterwards that it has not exited. Each method here reads first and
checks then; a dirfd of /proc/PID would prove nothing more and cost a second descriptor.
"""

import errno
import fcntl
import os
import select
import signal
import struct
import sys
from collections.abc import Callable
from functools import cache
from types import TracebackType
from typing import Literal, NamedTuple, Self, TypeVar

from resolver.core.idmap import IdMap
from resolver.core.machine import ProcessId
from resolver.host import cgroup

READ_MAX = 65536
"""Bytes of one file of /proc: the longest, a map of 340 extents, has 11 KiB."""

_PAGE = 4096
"""Bytes of a file of /proc to read at a time: most are shorter, and to make room for more takes longer than to read."""

_LINE_MAX = 64
"""Bytes of a line of uid_map and gid_map, which have 33, with room to spare. The kernel gives as many whole lines of
these as there is room for (seq_read_iter() in fs/seq_file.c), and of the other files as many bytes (single_open()): a
read that leaves more room is the last."""

_NS_GET_OWNER_UID = 0xB704  # linux/nsfs.h, _IO(0xb7, 4)

Namespace = Literal["user", "net", "mnt", "pid", "uts", "ipc", "cgroup"]
_T = TypeVar("_T")


class NoSuchProcess(Exception):
    """The process is gone, is a zombie, is not the one that was meant, or the number was never a process's."""

    def __init__(self, pid: int, why: str = "no such process") -> None:
        super().__init__(f"process {pid}: {why}")
        self.pid = pid


@cache
def boot_id() -> str:
    """This boot's id, 32 hexadecimal digits (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
        return f.read().strip().replace("-", "")


@cache
def have_pidfd_ids() -> bool:
    """Whether a pidfd's inode number tells processes apart, never used twice in a boot: pidfs, Linux 6.9.

    Before, all pidfds shared one inode with every eventfd. So the devices are compared: the name in /proc/self/fd is
    the same in both cases, and fstatfs(2) is out of Python's reach. A 32-bit kernel's inode number is half the id.
    """
    if sys.maxsize < 2**32:
        return False
    fds = [os.pidfd_open(os.getpid()), os.eventfd(0, os.EFD_CLOEXEC)]
    try:
        pidfd, anonymous = (os.fstat(fd).st_dev for fd in fds)
        return pidfd != anonymous
    finally:
        for fd in fds:
            os.close(fd)


class IdMaps(NamedTuple):
    """Which ids of a process's user namespace are which of the host. Both maps are empty in the host's own namespace.

    `pending`: the namespace is another one, and has a map that is yet to be written. There is no event for that; the
    caller reads again.
    """

    uid: IdMap
    gid: IdMap
    pending: bool


class Facts(NamedTuple):
    """What a registration asks of its leader."""

    identity: ProcessId
    id_maps: IdMaps
    unit: str


class Process:
    """A process by its pidfd. To be closed; `with` does."""

    __slots__ = ("_fd", "pid")

    def __init__(self, fd: int, pid: int) -> None:
        """For the constructors below, which know that `fd` is a pidfd of `pid`. Owns the descriptor."""
        self._fd = fd
        self.pid = pid

    @classmethod
    def open(cls, pid: int) -> Self:
        """Hold the process that has this number now. NoSuchProcess for a zombie, a thread's id, or no number of one."""
        if not 0 < pid < 2**31:
            raise NoSuchProcess(pid)
        try:
            fd = os.pidfd_open(pid)
        except OSError as error:
            # ESRCH: no such number; EINVAL, ENOENT in later kernels: a thread's. What else there is, such as EMFILE,
            # says nothing about the process.
            if error.errno in (errno.ESRCH, errno.EINVAL, errno.ENOENT):
                raise NoSuchProcess(pid) from None
            raise
        return cls._holding(fd, pid)

    @classmethod
    def from_pidfd(cls, fd: int) -> Self:
        """Hold the process of a pidfd that came from elsewhere. The descriptor is ours from here on, error or not.

        ValueError for what is no pidfd of a process; NoSuchProcess where it has exited or is not in our pid namespace.
        """
        try:
            pid = _pid_of(fd)
        except BaseException:
            os.close(fd)
            raise
        return cls._holding(fd, pid)

    @classmethod
    def _holding(cls, fd: int, pid: int) -> Self:
        process = cls(fd, pid)
        if process.exited():  # also a zombie that nobody has waited for yet
            process.close()
            raise NoSuchProcess(pid)
        return process

    @classmethod
    def from_identity(cls, identity: ProcessId) -> Self:
        """Hold this very process. NoSuchProcess where it is gone, or nothing proves the number is still its own."""
        if identity.boot_id is not None and identity.boot_id != boot_id():
            raise NoSuchProcess(identity.pid, "was of another boot")
        process = cls.open(identity.pid)
        try:
            if identity.pidfd_id is not None and have_pidfd_ids():
                same = identity.pidfd_id == os.fstat(process.fileno()).st_ino
            else:
                same = identity.boot_id is not None and identity.start_time == process.start_time()
            if not same:
                raise NoSuchProcess(identity.pid, "its number is another process's now")
        except BaseException:
            process.close()
            raise
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the process. May be called again; anything else then raises ValueError."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def fileno(self) -> int:
        """The pidfd. It becomes readable when the process exits, while it is a zombie too (pidfd_open(2))."""
        if self._fd < 0:
            raise ValueError("the process was closed")
        return self._fd

    def exited(self) -> bool:
        """Whether all threads of the process have exited. Does not wait."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def identity(self) -> ProcessId:
        """What tells this process from others: its pidfd's id, or its start time where the kernel has no such ids."""
        return self._verified(self._identity)

    def _identity(self) -> ProcessId:
        if have_pidfd_ids():
            return ProcessId(self.pid, os.fstat(self.fileno()).st_ino, boot_id=boot_id())
        return ProcessId(self.pid, start_time=self._start_time(), boot_id=boot_id())

    def facts(self) -> Facts:
        """As identity(), id_maps() and unit(), in one pass."""
        return self._verified(lambda: Facts(self._identity(), self._id_maps(), self._unit()))

    def read(self, name: str) -> str:
        """A small file of /proc/PID. NoSuchProcess where the process has exited, ValueError beyond READ_MAX.

        Only for files that the kernel fills by itself: cmdline, environ and the like read the process's memory, and a
        guest can make that wait for ever.
        """
        return self._verified(lambda: self._read(name))

    def _read(self, name: str) -> str:
        fd = os.open(f"/proc/{self.pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            data, more = b"", True
            while more:
                chunk = os.read(fd, _PAGE)
                data += chunk
                if len(data) > READ_MAX:
                    raise ValueError(f"/proc/{self.pid}/{name} is longer than {READ_MAX} bytes")
                more = len(chunk) > _PAGE - _LINE_MAX
        finally:
            os.close(fd)
        return data.decode(errors="surrogateescape")

    def start_time(self) -> int:
        """Clock ticks from boot (CLOCK_BOOTTIME) to the process's start: field 22 of proc_pid_stat(5)."""
        return self._verified(self._start_time)

    def _start_time(self) -> int:
        # The command, field 2, may hold blanks and parentheses; the last ')' ends it.
        return int(self._read("stat").rpartition(")")[2].split()[19])

    def owner(self) -> int:
        """The owner of /proc/PID: the effective uid, or root where the process is not dumpable (proc(5)).

        So a set-uid program is never its caller's, whatever its real uid says.
        """
        return self._verified(lambda: os.stat(f"/proc/{self.pid}").st_uid)

    def owned_by(self, uid: int) -> bool:
        """Whether the process is in this user's power: it is theirs, or lies in a user namespace that they made."""
        if self.owner() == uid:
            return True
        return not self.shares_namespace("user") and self._verified(self._user_namespace_owner) == uid

    def _user_namespace_owner(self) -> int:
        with open(f"/proc/{self.pid}/ns/user", "rb", buffering=0) as f:
            (uid,) = struct.unpack("=I", fcntl.ioctl(f, _NS_GET_OWNER_UID, bytes(4)))
            return int(uid)

    def namespace(self, kind: Namespace) -> tuple[int, int]:
        """Device and inode of one of its namespaces; namespaces are equal exactly where these are (namespaces(7))."""
        return self._verified(lambda: _namespace(self.pid, kind))

    def shares_namespace(self, kind: Namespace) -> bool:
        """Whether the process lives in our namespace of this kind, the host's."""
        return self._verified(lambda: _shares_namespace(self.pid, kind))

    def open_namespace(self, kind: Namespace) -> int:
        """A new descriptor of one of its namespaces, for setns(2) and ioctl_ns(2); the caller closes it."""
        return self._open(f"ns/{kind}", os.O_RDONLY)

    def open_root(self) -> int:
        """A descriptor of its root directory, which stands for that place alone (O_PATH); the caller closes it."""
        return self._open("root", os.O_PATH | os.O_DIRECTORY)

    def _open(self, name: str, flags: int) -> int:
        fd = self._reading(lambda: os.open(f"/proc/{self.pid}/{name}", flags | os.O_CLOEXEC))
        if self.exited():
            os.close(fd)
            raise NoSuchProcess(self.pid)
        return fd

    def id_maps(self) -> IdMaps:
        """Its maps as they are now, which are written once each."""
        return self._verified(self._id_maps)

    def _id_maps(self) -> IdMaps:
        uids = self._read("uid_map")
        # A namespace of its own may map every id to itself, as ours does: then the namespaces are compared.
        if uids == _own_uid_map() and _shares_namespace(self.pid, "user"):
            return IdMaps(IdMap(), IdMap(), pending=False)
        gids = self._read("gid_map")
        uid_map = IdMap.parse(uids)
        gid_map = uid_map if gids == uids else IdMap.parse(gids)  # mostly one and the same
        return IdMaps(uid_map, gid_map, pending=not (uids.strip() and gids.strip()))

    def group_path(self) -> str:
        """Its control group, in the hierarchy that systemd uses, '' for none."""
        return self._verified(self._group_path)

    def _group_path(self) -> str:
        return cgroup.group_path(self._read("cgroup"), cgroup.hierarchy().unified)

    def unit(self) -> str:
        """The systemd unit of its control group, '' for none."""
        return self._verified(self._unit)

    def _unit(self) -> str:
        return cgroup.unit_name(self._group_path())

    def send_signal(self, number: int) -> None:
        """Signal this process and no other. NoSuchProcess where it has exited."""
        try:
            signal.pidfd_send_signal(self.fileno(), number)
        except ProcessLookupError:
            raise NoSuchProcess(self.pid) from None

    def _verified(self, read: Callable[[], _T]) -> _T:
        """What `read` got from /proc/PID, if PID is still this process; NoSuchProcess otherwise."""
        value = self._reading(read)
        if self.exited():
            raise NoSuchProcess(self.pid)
        return value

    def _reading(self, read: Callable[[], _T]) -> _T:
        try:
            return read()
        except (FileNotFoundError, ProcessLookupError):
            raise NoSuchProcess(self.pid) from None


def _namespace(pid: int | str, kind: Namespace) -> tuple[int, int]:
    status = os.stat(f"/proc/{pid}/ns/{kind}")
    return status.st_dev, status.st_ino


def _shares_namespace(pid: int, kind: Namespace) -> bool:
    """By the link, KIND:[INODE] (namespaces(7)): the kernel makes no inode to say so, which is half of what stat(2)
    takes."""
    return os.readlink(f"/proc/{pid}/ns/{kind}") == f"{kind}:[{own_namespace(kind)[1]}]"


@cache
def _own_uid_map() -> str:
    """Ours, written before we were started. A process of our namespace has the same text (user_namespaces(7))."""
    with open("/proc/self/uid_map", encoding="ascii") as f:
        return f.read()


@cache
def own_namespace(kind: Namespace) -> tuple[int, int]:
    """The host's. This process never leaves it; where a child of it does, it is still the host's that is meant."""
    return _namespace("self", kind)


def _pid_of(fd: int) -> int:
    """The number of a pidfd's process, from its fdinfo (pidfd_open(2))."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as f:
        pid = next((int(line.partition(":")[2]) for line in f if line.startswith("Pid:")), None)
    if pid is None:
        raise ValueError("the descriptor is no pidfd")
    # PIDFD_THREAD (linux/pidfd.h, Linux 6.9): it would tell of a thread's end.
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_EXCL:
        raise ValueError("the descriptor is a thread's pidfd")
    if pid <= 0:  # -1: it was waited for; 0: it has no number in our pid namespace
        raise NoSuchProcess(pid, "has exited, or lives outside of this pid namespace")
    return pid
