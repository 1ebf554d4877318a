# SPDX-License-Identifier: MIT
"""The program that reads guests' os-release files for the daemon. Its standard input is a socket (SOCK_SEQPACKET).

    request = pid                                   # of the guest's leader, decimal
    answer  = "=" content | "0" | "!" reason        # "0": the guest has no such file

A guest lays out its own files, and can make each step here hang or lie. So this is a process that can be killed; it
holds nothing of the daemon's, and answers one request at a time. It is run by its path with `python -ISB` and imports
little: so it starts in 15 ms, and one that is there answers in a fraction of a millisecond.

What is read is what the guest could have read and written into that file itself, nothing else of the host's:

- Paths are resolved by openat2(2) in the leader's root (RESOLVE_IN_ROOT): neither an absolute link nor `..` leads out.
  Links of /proc, which jump over that rule, are refused (RESOLVE_NO_MAGICLINKS).
- A guest's mounts may show files of the host that it must not read: who has a user namespace can bind-mount
  /etc/shadow over its own os-release, for mount(2) asks for no right to read. So files are opened with the file system
  ids of the leader (setfsuid(2)), and the kernel then takes root's right to read everything away (capabilities(7)).
- A device or FIFO is never opened: O_PATH opens nothing, and what turns out to be a regular file is opened by that.

The daemon holds the leader's pidfd, and drops the answer where the leader has exited meanwhile: then the number may
have been another process's.
"""

import ctypes
import errno
import os
import signal
import stat
import sys

PATHS = b"etc/os-release", b"usr/lib/os-release"
"""The second where the first does not exist (os-release(5))."""

OS_RELEASE_MAX = 65536
"""Bytes. Those of distributions have some 500; what one answer can make the daemon hold and parse is this."""

REQUEST_MAX = 32
"""A number."""

TRIES = 16
"""openat2(2) says EAGAIN where something was renamed or mounted, anywhere, while it went through `..`."""

_SYS_OPENAT2 = 437  # on every architecture but alpha (asm-generic/unistd.h)
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10  # linux/openat2.h
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_NOBODY_ASKED = 2**32 - 1  # (uid_t) -1: setfsuid(2) changes nothing, and tells what there is

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def main() -> None:
    """Answer until the daemon closes its end, or has gone (its pid is the one argument)."""
    try:
        os.setgroups([])  # root's groups are no guest's
    except PermissionError:
        pass  # in a user namespace that has none to give up (user_namespaces(7))
    _end_with(int(sys.argv[1]))
    while request := os.read(0, REQUEST_MAX):
        os.write(0, answer(int(request)))


def _end_with(parent: int) -> None:
    """Also where it hangs in a guest's file when the daemon goes."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before we asked
        os._exit(1)


def answer(pid: int) -> bytes:
    """What is sent for a request. Whatever the guest does, there is one, or none ever."""
    try:
        content = read_os_release(pid)
    except (OSError, ValueError) as error:
        return b"!" + (getattr(error, "strerror", None) or str(error)).encode()
    return b"0" if content is None else b"=" + content


def read_os_release(pid: int) -> bytes | None:
    """The file's content; None where there is no file. OSError; ValueError for what is no such file."""
    uid, gid = _file_system_ids(pid)
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _become(uid, gid)
        try:
            for path in PATHS:
                try:
                    return _content(root, path)
                except (FileNotFoundError, NotADirectoryError):
                    pass
            return None
        finally:
            _become(os.geteuid(), os.getegid())
    finally:
        os.close(root)


def _content(root: int, path: bytes) -> bytes:
    found = _open_in(root, path)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise ValueError("os-release is no regular file")
        file = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    finally:
        os.close(found)
    try:
        content = b""
        while len(content) <= OS_RELEASE_MAX:
            chunk = os.read(file, OS_RELEASE_MAX + 1 - len(content))
            if not chunk:
                return content
            content += chunk
        raise ValueError(f"os-release is longer than {OS_RELEASE_MAX} bytes")
    finally:
        os.close(file)


def _open_in(root: int, path: bytes) -> int:
    """An O_PATH descriptor of what `path` is inside `root`."""
    how = _OpenHow(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    code = errno.EAGAIN
    for _ in range(TRIES):
        fd: int = _libc.syscall(ctypes.c_long(_SYS_OPENAT2), ctypes.c_int(root), ctypes.c_char_p(path),
                                ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)))
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        if code != errno.EAGAIN:
            break
    raise OSError(code, os.strerror(code))


def _file_system_ids(pid: int) -> tuple[int, int]:
    """The leader's ids for access to files, as the host counts them: proc_pid_status(5), the last of four."""
    ids = {}
    with open(f"/proc/{pid}/status", "rb") as status:
        for line in status:
            if line.startswith((b"Uid:", b"Gid:")):
                ids[line[:3]] = int(line.split()[4])
    return ids[b"Uid"], ids[b"Gid"]


def _become(uid: int, gid: int) -> None:
    """For access to files only. The calls return what was before, and no error: so it is asked again."""
    for change, number in ((_libc.setfsgid, gid), (_libc.setfsuid, uid)):
        change(ctypes.c_uint32(number))
        if change(ctypes.c_uint32(_NOBODY_ASKED)) & 0xFFFFFFFF != number:
            raise OSError(errno.EPERM, "cannot take the leader's ids")
    if __name__ == "__main__":
        _end_with(int(sys.argv[1]))  # a change of ids has cleared it (PR_SET_PDEATHSIG(2const))


if __name__ == "__main__":
    main()
