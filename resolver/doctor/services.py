# SPDX-License-Identifier: MIT
"""Our own processes: the daemon at its two sockets, the userdb process, resolved's hook."""

import os
import socket
import struct
import time
from collections.abc import Iterator

from resolver._table import ffi, lib
from resolver.core.users import SERVICE
from resolver.doctor.finding import Finding, Level, ok, service_command
from resolver.doctor.sockets import HOOKS, USERDB, Answer, ask, mend_mute
from resolver.varlink import MACHINE_SOCKET

NSS_SOCKET = "/run/mymachines/nss.sock"

USERDB_SOCKET = f"{USERDB}/{SERVICE}"
HOOK_SOCKET = f"{HOOKS}/{SERVICE}"
RESOLVED = "/run/systemd/resolve/io.systemd.Resolve"

SHIM_SECONDS = 0.25
"""What the shim waits for an answer from nss.sock (ask.c)."""

_TIMEVAL = struct.Struct("ll")


def check_daemon() -> Iterator[Finding]:
    answer = ask(MACHINE_SOCKET, seconds=2.0)
    product = answer.info.get("product")
    if answer.state == "answers" and product == "mymachinesd":
        yield ok(f"mymachinesd {answer.info.get('version', '')}: {answer.who} answers", answer.seconds)
        yield from _check_nss_socket()
        return
    without = "look-ups go on with what was true last, if at all; nothing can be registered"
    if answer.state == "answers":
        yield Finding(Level.BROKEN, f"{MACHINE_SOCKET}: {answer.who} answers, which is {product or 'something else'}",
                      "machines are registered there, and not with mymachinesd",
                      "systemctl enable --now mymachinesd && systemctl restart mymachinesd")
    elif answer.state == "mute":
        yield Finding(Level.BROKEN, f"mymachinesd, {answer.who}, does not answer", without,
                      service_command("restart", "mymachinesd"), answer.seconds)
    elif answer.state == "denied":
        yield Finding(Level.BROKEN, f"{MACHINE_SOCKET} must not be opened by this user",
                      "machines cannot be listed", f"chmod 666 {MACHINE_SOCKET}")
    else:
        ended = "its socket is left" if answer.state == "dead" else "its socket is not there"
        yield Finding(Level.BROKEN, f"mymachinesd does not run: {ended}", without,
                      service_command("start", "mymachinesd"))


def _check_nss_socket() -> Iterator[Finding]:
    """One question, as the shim asks it."""
    question = ffi.new("struct question *", {"layout": lib.PACKET_LAYOUT, "kind": lib.QUESTION_HOST_BY_NAME})
    question.name = b"localhost"    # never a machine's
    started = time.monotonic()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as sock:
            for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                sock.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(0, int(SHIM_SECONDS * 1e6)))
            sock.connect(NSS_SOCKET)
            sock.send(bytes(ffi.buffer(question)))
            whole = len(sock.recv(4096)) >= ffi.sizeof("struct reply_header")
        error = "" if whole else "its answer is none"
    except BlockingIOError:
        error = f"it does not answer within {SHIM_SECONDS} s"
    except OSError as failure:
        error = failure.strerror or str(failure)
    if error:
        yield Finding(Level.WARNING, f"{NSS_SOCKET}: {error}",
                      "processes that cannot use the table get no answers", service_command("restart", "mymachinesd"))
    else:
        yield ok(f"{NSS_SOCKET} answers", time.monotonic() - started)


def check_userdb() -> Iterator[Finding]:
    answer = ask(USERDB_SOCKET, "io.systemd.UserDatabase.GetUserRecord", {"uid": 0, "service": SERVICE})
    if answer.info.get("error") == "io.systemd.UserDatabase.NoRecordFound":     # root is no machine's
        yield ok(f"mymachines-userdb: {answer.who} answers", answer.seconds)
    elif answer.state == "mute":
        yield Finding(Level.BROKEN, f"mymachines-userdb, {answer.who}, does not answer",
                      "each look-up of a user that no module before `systemd` knows waits for it: logins hang",
                      mend_mute(USERDB_SOCKET, answer.pid), answer.seconds)
    elif answer.state == "answers":
        said = answer.info.get("error") or "something that is not there"
        yield Finding(Level.WARNING, f"{USERDB_SOCKET}: {answer.who} says {said}",
                      "userdbctl does not know machines' users", service_command("restart", "mymachines-userdb"))
    else:
        yield Finding(Level.WARNING, f"mymachines-userdb does not run ({USERDB_SOCKET}: {answer.state})",
                      "userdbctl and programs that ask io.systemd.UserDatabase do not know machines' users; NSS does",
                      service_command("restart", "mymachinesd"))


def check_hook() -> Iterator[Finding]:
    """A mute or dead hook is told by the check of all sockets."""
    if ask(RESOLVED).state in ("absent", "dead"):
        yield ok("systemd-resolved does not run: no hook is needed")
        return
    if not os.path.isdir(HOOKS):
        yield Finding(Level.NOTE, "systemd-resolved does not ask hooks; it does from systemd 259 on",
                      "who asks it without NSS (resolvectl, 127.0.0.53) does not learn of machines; NSS does")
        return
    answer: Answer = ask(HOOK_SOCKET)
    if answer.state == "answers":
        yield ok(f"mymachines-resolve-hook: {answer.who} answers", answer.seconds)
    elif answer.state == "absent":
        yield Finding(Level.WARNING, "systemd-resolved runs, and mymachines-resolve-hook does not",
                      "who asks it without NSS (resolvectl, 127.0.0.53) does not learn of machines; NSS does",
                      service_command("start", "mymachines-resolve-hook"))
