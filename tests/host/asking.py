# SPDX-License-Identifier: MIT
"""A client that shows the descriptors it gets, as neither varlinkctl nor busctl of systemd 257 does: one call.

The second half is a program that runs in the booted host, with the interpreter of the installed daemon:

    standard input   {"varlink": method, "parameters": {...}} or {"dbus": method, "signature": "", "arguments": [...]},
                     and for a terminal "dialogue": [pattern to read for, what to type then]...
    standard output  {"error": name, "text": message, "reply": values, "descriptors": [facts...]}
"""

import asyncio
import errno
import fcntl
import json
import os
import re
import select
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .booted import BootedHost

PYTHON = "/usr/local/lib/mymachines/bin/python"
PROGRAM = "/usr/src/mymachines/tests/host/asking.py"
SOCKET = "/run/systemd/machine/io.systemd.Machine"
MANAGER = ("org.freedesktop.machine1", "/org/freedesktop/machine1", "org.freedesktop.machine1.Manager")

CALL_SECONDS = 15.0     # longer than what any call here may take
READ_SECONDS = 10.0     # for a shell's prompt, and its answer
TIOCGPTN, TIOCGPTPEER = 0x80045430, 0x5441     # <asm-generic/ioctls.h>


class Answer(NamedTuple):
    """The error's full name, empty where there is none; else what came back."""

    error: str
    text: str
    reply: Any
    descriptors: list[dict[str, Any]]
    seconds: float


def ask(host: "BootedHost", request: Mapping[str, object], uid: int = 0) -> Answer:
    done = host.out([PYTHON, "-I", PROGRAM], stdin=json.dumps(request), uid=uid, timeout=CALL_SECONDS + READ_SECONDS)
    return Answer(**json.loads(done))


def varlink(host: "BootedHost", method: str, parameters: Mapping[str, object], uid: int = 0, **more: object) -> Answer:
    return ask(host, {"varlink": method, "parameters": parameters, **more}, uid)


def dbus(host: "BootedHost", method: str, signature: str, *arguments: object, uid: int = 0, **more: object) -> Answer:
    """A method of the manager's."""
    return ask(host, {"dbus": method, "signature": signature, "arguments": arguments, **more}, uid)


# --- inside ---


def call_varlink(method: str, parameters: object) -> tuple[str, str, object, Sequence[int]]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(CALL_SECONDS)
        connection.connect(SOCKET)
        message = {"method": f"io.systemd.Machine.{method}", "parameters": parameters}
        connection.sendall(json.dumps(message).encode() + b"\0")
        data, descriptors = b"", []
        while not data.endswith(b"\0"):
            chunk, new, _, _ = socket.recv_fds(connection, 65536, 8)
            assert chunk, "the connection was closed"
            data += chunk
            descriptors += new
    reply = json.loads(data[:-1])
    return reply.get("error", ""), json.dumps(reply["parameters"]), reply["parameters"], descriptors


async def call_dbus(method: str, signature: str, arguments: Sequence[Any]) -> tuple[str, str, object, Sequence[int]]:
    from dbus_fast import BusType, Message
    from dbus_fast.aio import MessageBus

    bus = await MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True).connect()
    try:
        name, path, interface = MANAGER
        reply = await asyncio.wait_for(bus.call(Message(name, path, interface, method, signature=signature,
                                                        body=list(arguments))), CALL_SECONDS)
        assert reply is not None
        return reply.error_name or "", str(reply.body[0] if reply.error_name else ""), reply.body, reply.unix_fds
    finally:
        bus.disconnect()


def facts(descriptor: int) -> dict[str, object]:
    """What a client can tell of a descriptor that it got."""
    status = os.fstat(descriptor)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    found: dict[str, object] = {"device": status.st_dev, "inode": status.st_ino, "mode": status.st_mode,
                                "access": flags & os.O_ACCMODE}
    if os.isatty(descriptor):
        found["number"] = struct.unpack("i", fcntl.ioctl(descriptor, TIOCGPTN, b"\0" * 4))[0]
        peer = fcntl.ioctl(descriptor, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        found["peer device"], found["peer"] = os.fstat(peer).st_dev, os.fstat(peer).st_rdev
        os.close(peer)
    elif not flags & os.O_PATH:
        found["names"] = sorted(os.listdir(descriptor))
    return found


def converse(terminal: int, dialogue: Sequence[Sequence[str]]) -> None:
    """For each: reads until a pattern is there, then types."""
    seen = ""
    deadline = time.monotonic() + READ_SECONDS
    for pattern, typed in dialogue:
        while not (found := re.search(pattern, seen)):
            ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no {pattern!r}: {seen!r}"
            try:
                seen += os.read(terminal, 65536).decode(errors="replace")
            except OSError as error:
                if error.errno != errno.EIO:    # what a login program begins with: it hangs up, to be alone there
                    raise
                assert time.monotonic() < deadline, f"no {pattern!r}: {seen!r}"
                time.sleep(0.02)
        seen = seen[found.end():]
        os.write(terminal, typed.encode())


def main() -> None:
    request = json.load(sys.stdin)
    started = time.monotonic()
    if "varlink" in request:
        error, text, reply, descriptors = call_varlink(request["varlink"], request["parameters"])
    else:
        error, text, reply, descriptors = asyncio.run(call_dbus(request["dbus"], request["signature"],
                                                                request["arguments"]))
    seconds = time.monotonic() - started
    if "dialogue" in request:
        converse(descriptors[0], request["dialogue"])
    found = [facts(descriptor) for descriptor in descriptors]
    json.dump({"error": error, "text": text, "reply": reply, "descriptors": found, "seconds": seconds}, sys.stdout)


if __name__ == "__main__":
    main()
