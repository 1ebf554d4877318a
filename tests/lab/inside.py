# SPDX-License-Identifier: MIT
"""What makes the namespaces: a program of its own, started by host.py and container.py.

    inside.py host          becomes the holder of a test host, in namespaces of its own
    inside.py container     makes a container's namespaces and stays as the parent of its leader

The first line of standard input is a JSON object with what is wanted. Standard output speaks a line at a time:
`map PID` asks the caller to write PID's id maps and to answer with an empty line, `leader PID` names the container's,
`cache HEX` is a linker cache to use again, `ready` is the last line. Whatever fails ends the program with
`unavailable REASON`. Both end with their standard input and with their parent, whatever happens to that.

A separate program, because a process that may have threads must not fork and unshare. It imports nothing of the lab:
it starts in 20 ms, and Python 3.11 has no os.unshare() yet.
"""

import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# <linux/sched.h>, <linux/mount.h>, <linux/prctl.h>, <linux/sockios.h>
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG = 1
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

# The leader: a shell that waits for the end of its standard input, so for the end of whoever started it. As process 1
# of a pid namespace it would ignore SIGTERM without the trap.
LEADER = ["/bin/sh", "-c", "trap 'exit 0' TERM INT HUP; read -r _"]

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    check(libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    arguments = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
    check(libc.mount(*arguments), f"mount on {target}")


def die_with_parent(parent: int) -> None:
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")
    if os.getppid() != parent:      # it died before we asked
        os._exit(1)


def say(line: str) -> None:
    print(line, flush=True)


def ask_for_maps() -> None:
    say(f"map {os.getpid()}")
    if not sys.stdin.readline():
        sys.exit(1)


def become(uid: int, gid: int) -> None:
    try:
        os.setgroups([])
    except PermissionError:     # /proc/PID/setgroups says deny: a map of one's own id alone
        pass
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def settle_addresses_at_once() -> None:
    """Link-local IPv6 addresses of links to come are usable at once, without duplicate address detection."""
    try:
        Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
    except OSError:     # no IPv6, or /proc/sys is read-only: the address is tentative for a second or two
        pass


def bring_up_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = fcntl.ioctl(s, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", request)[1]
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def stage() -> None:
    """A tmpfs on /run for what the mounts to come are made of. The host's own /run hides it."""
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")


def place(files: dict[str, bytes]) -> None:
    """Puts private files over the machine's. These need not exist: a fresh machine may have no /etc/hosts."""
    missing = [target for target in files if not os.path.exists(target)]
    for number, folder in enumerate({os.path.dirname(target) for target in missing}):
        upper, work = Path(f"/run/upper-{number}"), Path(f"/run/work-{number}")
        upper.mkdir(mode=os.stat(folder).st_mode & 0o777)
        work.mkdir()
        mount("overlay", folder, "overlay", 0, f"lowerdir={folder},upperdir={upper},workdir={work}")
    for target in missing:
        Path(target).touch()
    for number, (target, text) in enumerate(files.items()):
        source = Path(f"/run/file-{number}")
        source.write_bytes(text)
        source.chmod(0o644)
        mount(str(source), target, "", MS_BIND)


def make_linker_cache(folders: list[str]) -> bytes:
    """The dynamic linker's cache with these folders before the machine's own."""
    conf, cache = Path("/run/ld.so.conf"), Path("/run/ld.so.cache")
    # ldconfig also writes an auxiliary cache, which is the machine's
    auxiliary = "/var/cache/ldconfig"
    if os.path.isdir(auxiliary):
        mount("tmpfs", auxiliary, "tmpfs")
    conf.write_text("".join(f"{folder}\n" for folder in folders) + "include /etc/ld.so.conf\n")
    ldconfig = ["/sbin/ldconfig", "-X", "-f", str(conf), "-C", str(cache)]
    subprocess.run(ldconfig, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if os.path.isdir(auxiliary):
        check(libc.umount2(auxiliary.encode(), 0), f"umount of {auxiliary}")
    return cache.read_bytes()


def refuse_a_chroot() -> None:
    """The kernel makes no user namespace in one, and "/" is no mount there whose propagation could be stopped."""
    if not any(line.split()[4] == "/" for line in Path("/proc/self/mountinfo").read_text().splitlines()):
        raise OSError(errno.EPERM, "this is a chroot: the kernel makes no user namespaces there")


def be_host(spec: dict[str, Any]) -> None:
    refuse_a_chroot()
    if spec["user_namespace"]:
        unshare(CLONE_NEWUSER)
        ask_for_maps()
        become(0, 0)
    unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS)
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    socket.sethostname(spec["hostname"])
    settle_addresses_at_once()
    bring_up_loopback()
    stage()
    cache = spec["linker_cache"]
    if cache is None:
        cache = make_linker_cache(spec["shim_folders"]).hex()
        say(f"cache {cache}")
    files = {target: text.encode() for target, text in spec["files"].items()}
    place(files | {"/etc/ld.so.cache": bytes.fromhex(cache)})
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, f"mode=755,size={spec['run_size']}")
    die_with_parent(spec["parent"])     # again: a change of user clears it
    say("ready")
    os.execv("/bin/cat", ["cat"])       # ends with its standard input; a few hundred kB instead of Python's 10 MB


def be_container(spec: dict[str, Any]) -> None:
    if spec["user_namespace"]:
        unshare(CLONE_NEWUSER)
        ask_for_maps()
        become(*spec["become"])
    flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC
    unshare(flags | (CLONE_NEWNET if spec["network_namespace"] else 0))
    leader = os.fork()
    if leader == 0:
        # os.getppid() is 0 across pid namespaces
        check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")
        mount("none", "/", "", MS_REC | MS_PRIVATE)
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")   # the host's sockets are not for guests
        socket.sethostname(spec["hostname"])
        if spec["network_namespace"]:
            settle_addresses_at_once()
            bring_up_loopback()
        os.chdir("/")
        say("ready")
        os.execve(LEADER[0], LEADER, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "container": "lab"})
    die_with_parent(spec["parent"])
    say(f"leader {leader}")
    os.waitpid(leader, 0)


def main() -> None:
    kind: Callable[[dict[str, Any]], None] = {"host": be_host, "container": be_container}[sys.argv[1]]
    spec = json.loads(sys.stdin.readline())
    try:
        die_with_parent(spec["parent"])
        kind(spec)
    except (OSError, subprocess.CalledProcessError) as error:
        say(f"unavailable {error}")
        os._exit(1)


if __name__ == "__main__":
    main()
