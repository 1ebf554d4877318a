# SPDX-License-Identifier: MIT
"""Containers that are entered by the real worker, a process of its own for each request."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from resolver.entering import ANSWER_SECONDS, SECONDS
from resolver.worker.run import Result, Workers
from tests.lab import Container, TestHost, Unavailable

PROGRAM = ("-m", "resolver.enter")

SYSTEM_PYTHON = "/usr/bin/python3"

OWN_TERMINALS = "mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts /dev/pts"
OWN_RUN = "mount -t tmpfs tmpfs /run && mkdir /run/dbus"

FAKE_BUS = """
# What answers in a hostile machine: says what its first argument says, and no more.
import os, socket, sys, time
kind, path = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(1 if kind != "full" else 0)
print("listening", flush=True)
if kind == "full":
    held = socket.socket(socket.AF_UNIX); held.connect(path)
    other = socket.socket(socket.AF_UNIX); other.setblocking(False)
    try: other.connect(path)
    except BlockingIOError: pass
    time.sleep(60)
connection, _ = listener.accept()
if kind == "silent":
    time.sleep(60)
elif kind == "hangup":
    connection.close(); time.sleep(60)
elif kind == "slow":
    while True:
        connection.send(b"O"); time.sleep(1)
elif kind == "endless line":
    while True:
        connection.send(b"x" * 4096)
elif kind == "refuses":
    connection.recv(100); connection.send(b"REJECTED EXTERNAL\\r\\n"); time.sleep(60)
connection.recv(100); connection.send(b"OK 0123456789abcdef0123456789abcdef\\r\\n"); connection.recv(100)
connection.send(b"AGREE_UNIX_FD\\r\\n"); connection.recv(100)
if kind == "nonsense":
    connection.send(os.urandom(65536)); time.sleep(60)
elif kind == "huge message":
    connection.send(b"l\\2\\0\\1" + b"\\xff\\xff\\xff\\x07" + b"\\1\\0\\0\\0" + b"\\0\\0\\0\\0"); time.sleep(60)
elif kind == "rude":
    import struct
    text = b"\\33[2J" * 20000
    fields = b"\\4\\1s\\0" + struct.pack("<I", 3) + b"x.y\\0" + bytes(4) + b"\\5\\1u\\0" + struct.pack("<I", 1)
    fields += b"\\10\\1g\\0\\1s\\0"
    body = struct.pack("<I", len(text)) + text + b"\\0"
    message = b"l\\3\\1\\1" + struct.pack("<III", len(body), 1, len(fields)) + fields
    connection.send(message + bytes(-len(message) % 8) + body); time.sleep(60)
elif kind == "flood of signals":
    import struct
    def field(code, kind, text):
        data = bytes((code, 1)) + kind + b"\\0" + struct.pack("<I", len(text)) + text + b"\\0"
        return data + bytes(-len(data) % 8)
    fields = field(1, b"o", b"/x") + field(2, b"s", b"x.y") + field(3, b"s", b"Signal")
    message = b"l\\4\\1\\1" + struct.pack("<III", 0, 1, len(fields.rstrip(b"\\0")) + 1) + fields
    message += bytes(-len(message) % 8)
    while True:
        connection.send(message * 100)
"""


def enter(container: Container | None, do: str, **fields: Any) -> Result:
    """Any MachineError, as the worker says."""

    async def main() -> Result:
        workers = Workers()
        pidfd = None if container is None else os.pidfd_open(container.leader)
        try:
            request = {"do": do, "deadline": time.monotonic() + SECONDS - ANSWER_SECONDS, **fields}
            return await workers.run(PROGRAM, request, [] if pidfd is None else [pidfd], patience=SECONDS)
        finally:
            if pidfd is not None:
                os.close(pidfd)
            await workers.close()

    return asyncio.run(main())


def shell(container: Container, **fields: Any) -> Result:
    return enter(container, "shell", user="root", path="", arguments=[], environment=[], **fields)


@contextmanager
def fake_bus(container: Container, kind: str, path: str = "/run/dbus/system_bus_socket") -> Iterator[None]:
    """A process of the container that behaves so."""
    if not os.access(SYSTEM_PYTHON, os.X_OK):
        raise Unavailable(f"there is no {SYSTEM_PYTHON}, and our own interpreter may lie where only root can read it")
    process = container.popen([SYSTEM_PYTHON, "-c", FAKE_BUS, kind, path], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        yield
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def guest(host: TestHost, *scripts: str, **options: Any) -> Container:
    """A container in which these have been run."""
    container = host.container(f"guest{host.next_number()}", link=False, **options)
    for script in scripts:
        container.exec(["sh", "-ec", script], check=True)
    return container


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """What is promised to the caller, and the time that a busy machine takes for starting a process."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < seconds + 5, f"{took:.1f} s"

