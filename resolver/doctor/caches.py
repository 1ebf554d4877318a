# SPDX-License-Identifier: MIT
"""nscd(8), or nsncd at the same socket: glibc asks there before it reads nsswitch.conf."""

import os
import socket
import struct
from collections.abc import Iterator

from resolver.doctor.finding import Finding, Level, ok
from resolver.doctor.sockets import program

SOCKET = "/var/run/nscd/socket"
"""glibc's path; /var/run is /run."""

CONNECT_SECONDS = 1

_TIMEVAL = struct.Struct("ll")
_UCRED = struct.Struct("iII")


def check() -> Iterator[Finding]:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(CONNECT_SECONDS, 0))
            sock.connect(SOCKET)
            pid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
    except BlockingIOError:
        yield Finding(Level.BROKEN, f"{SOCKET}: nobody takes connections",
                      "each look-up waits for it, up to 5 s", "systemctl restart nscd")
        return
    except OSError:
        yield ok("no nscd answers in between")
        return
    name = program(pid)
    if name == "nsncd":
        yield Finding(Level.NOTE, f"nsncd, pid {pid}, answers in between",
                      "it asks NSS in each program's place, with the module that it has loaded: restart it after an"
                      " upgrade", "systemctl restart nsncd")
        return
    yield Finding(Level.WARNING, f"{name}, pid {pid}, answers in between and keeps answers",
                  "names and users of machines that came or went are wrong until its time is over"
                  " (*-time-to-live in nscd.conf)", _mend())


def _mend() -> str:
    return "systemctl disable --now nscd" if os.path.isdir("/run/systemd/system") else "nscd --shutdown"
