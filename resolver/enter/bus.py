# SPDX-License-Identifier: MIT
"""The machine's own system bus: connecting as its root, and calls that wait.

Who listens there is not trusted: it may say nothing, say it slowly, say too much or nonsense. All of it together has
one deadline, and each message and their sum a length.
"""

import os
import socket
import stat
import struct
import time
from collections.abc import Sequence
from typing import Any, Self

from dbus_fast import Message, MessageFlag, MessageType

from resolver.core.errors import NoIPC, NotAvailable
from resolver.dbus import decode
from resolver.enter.identity import as_root_of
from resolver.enter.place import Place
from resolver.files.paths import open_in, shown

SOCKET = b"/run/dbus/system_bus_socket"

MESSAGE_MAX = 256 * 1024
"""Octets of one message. What we ask for is answered in hundreds."""

READ_MAX = 4 * 1024 * 1024
"""Octets in all: signals that go to everybody may come between."""

LINE_MAX = 512
"""Octets of a line of the greeting; the longest has some 40."""

_PEERCRED = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid
BUS, BUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"


class CallFailed(NotAvailable):
    """An error reply; `name` is the error's."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


def connect(place: Place) -> socket.socket:
    """A connection to the machine's system bus, made by its root. NoIPC, NotAvailable, OSError."""
    of_host = None if place.is_host else _identity(os.fsdecode(SOCKET))
    try:
        _, (descriptor,) = as_root_of(place, lambda: ({}, [_connect(place, of_host)]))
    except (FileNotFoundError, ConnectionRefusedError):
        raise NoIPC("there is no system bus in the machine") from None
    connected = socket.socket(fileno=descriptor)
    try:
        _check_listener(place, connected)
    except BaseException:
        connected.close()
        raise
    return connected


def _connect(place: Place, of_host: tuple[int, int] | None) -> int:
    found = open_in(place.root, SOCKET, os.O_PATH)
    status = os.fstat(found)
    if not stat.S_ISSOCK(status.st_mode):
        raise NotAvailable(f"{SOCKET.decode()} in the machine is no socket")
    if (status.st_dev, status.st_ino) == of_host:
        raise NotAvailable("the machine has the host's system bus, and none of its own")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    # By its descriptor: nothing is looked up again. Not blocking: a full backlog is no reason to wait.
    try:
        connection.connect(f"/proc/self/fd/{found}")
    except BlockingIOError:
        raise NotAvailable("the machine's system bus takes no connections") from None
    connection.setblocking(True)
    return connection.detach()


def _identity(path: str) -> tuple[int, int] | None:
    """Device and inode; None where there is nothing."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _check_listener(place: Place, connected: socket.socket) -> None:
    """Who listens there is a process of the machine's: its file system alone does not tell where a socket leads."""
    pid, _, _ = _PEERCRED.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
    for kind, own in (("pid", place.pid_namespace), ("user", place.user_namespace)):
        if own is not None and not _is_in(pid, kind, own):
            raise NotAvailable("who answers at the machine's system bus is no process of the machine")


def _is_in(pid: int, kind: str, namespace: int) -> bool:
    if pid <= 0:
        return False
    try:
        theirs = os.stat(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return False  # it has ended
    ours = os.fstat(namespace)
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


class Bus:
    """Calls over a connection, one at a time. Everything raises NotAvailable once `deadline` (time.monotonic()) has
    come, or where what comes back is no D-Bus. To be closed."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._serial = 0
        self._read = 0
        try:
            self._greet()
            self.call(BUS, BUS_PATH, BUS, "Hello")
        except BaseException:
            connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def call(self, destination: str, path: str, interface: str, member: str, signature: str = "",
             body: Sequence[Any] = (), descriptors: Sequence[int] = ()) -> list[Any]:
        """What the reply holds; `descriptors` are sent along, and stay the caller's. CallFailed for an error reply."""
        self._serial += 1
        message = Message(destination=destination, path=path, interface=interface, member=member, signature=signature,
                          body=list(body), serial=self._serial, flags=MessageFlag.NONE,
                          unix_fds=list(descriptors))
        self._send(bytes(message._marshall(True)), descriptors)  # noqa: SLF001 - there is no other way to a message's octets
        while True:
            reply = self._receive()
            if reply.reply_serial == self._serial:
                if reply.message_type is MessageType.ERROR:
                    text = str(reply.body[0]) if reply.signature.startswith("s") else ""
                    # What the machine wrote is for somebody's terminal.
                    raise CallFailed(reply.error_name or "", shown((text or reply.error_name or "").encode()))
                return reply.body

    # Inside.

    def _greet(self) -> None:
        """As root of the machine (SASL EXTERNAL, D-Bus specification, Authentication Protocol)."""
        self._send(b"\0AUTH EXTERNAL 30\r\n")
        if not self._line().startswith(b"OK "):
            raise NotAvailable("the machine's system bus does not let its root in")
        self._send(b"NEGOTIATE_UNIX_FD\r\n")
        if not self._line().startswith(b"AGREE_UNIX_FD"):
            raise NotAvailable("the machine's system bus passes no descriptors")
        self._send(b"BEGIN\r\n")

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\r\n"):
            if len(line) > LINE_MAX:
                raise NotAvailable("the machine's system bus does not speak D-Bus")
            line += self._take(1)  # a bus says nothing unasked: what follows would be the next answer's
        return line

    def _receive(self) -> Message:
        try:
            fixed = self._take(decode.FIXED)
            header, body = decode.measure(fixed)
            if header + body > MESSAGE_MAX:
                raise ValueError("a message is too long")
            return decode.decode(fixed + self._take(header + body - decode.FIXED))
        except ValueError as error:
            raise NotAvailable(f"the machine's system bus does not speak D-Bus: {error}") from None

    def _take(self, count: int) -> bytes:
        self._read += count
        if self._read > READ_MAX:
            raise NotAvailable("the machine's system bus says too much")
        data = bytearray()
        while len(data) < count:
            self._connection.settimeout(self._left())
            try:
                chunk = self._connection.recv(count - len(data))
            except TimeoutError:
                raise NotAvailable("the machine's system bus does not answer") from None
            if not chunk:
                raise NotAvailable("the machine's system bus has hung up")
            data += chunk
        return bytes(data)

    def _send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        self._connection.settimeout(self._left())
        try:
            if descriptors:
                data = data[socket.send_fds(self._connection, [data], descriptors):]
            self._connection.sendall(data)
        except TimeoutError:
            raise NotAvailable("the machine's system bus does not listen") from None
        except OSError as error:
            raise NotAvailable(f"the machine's system bus has hung up: {error.strerror}") from None

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise NotAvailable("the machine's system bus does not answer")
        return left
