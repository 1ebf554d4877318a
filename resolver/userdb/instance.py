# SPDX-License-Identifier: MIT
"""One instance at a time, by a locked file that the kernel unlocks whatever way the process ends."""

import fcntl
import os


class AlreadyRunning(Exception):
    """The lock is another process's. The text says whose."""


def lock(path: str) -> int:
    """Lock the file at `path` and write `PID START-TIME` to it; gives its descriptor, to be kept open.

    START-TIME is field 22 of /proc/PID/stat, in clock ticks since boot (proc_pid_stat(5)): with it, nobody takes
    another process for this one. Mode 0600, for who can open the file can lock it (flock(2)).
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o755, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 64, 0).split()
        os.close(fd)
        pid = holder[0].decode(errors="replace") if holder else "unknown"
        raise AlreadyRunning(f"already running as pid {pid} ({path} is locked)") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()} {_start_time()}\n".encode(), 0)
    return fd


def _start_time() -> int:
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        # The second field is the program's name in parentheses and may hold anything, these too.
        return int(file.read().rpartition(")")[2].split()[19])
