# SPDX-License-Identifier: MIT
"""A socket to the bus: messages in and out, a few at a time."""

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from urllib.parse import unquote

from dbus_fast import Message

from resolver.dbus.reader import ProtocolError, Reader, Received, close_all

SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"

WAKE_SECONDS = 0.005
"""Spent on reading in one round of the loop, by which time others have their turn; some hundred calls. The last message
may take some 20 ms more (decode.VALUES_MAX)."""

OUTGOING_MAX = 64 * 1024 * 1024
"""Octets that wait for the bus to take them. A list of 10,000 machines has 1 MB; a bus that takes none has hung."""

_LINE_MAX = 16384  # octets of a line of the greeting; the longest has some 40


def unix_addresses(text: str) -> list[str]:
    """The Unix sockets of a bus address (D-Bus specification, Server Addresses), abstract ones with a leading NUL.

    Others are passed over: to reach them, names would have to be looked up.
    """
    found = []
    for address in text.split(";"):
        transport, _, options = address.partition(":")
        values = dict(option.partition("=")[::2] for option in options.split(","))
        if transport == "unix" and values.get("path"):
            found.append(unquote(values["path"]))
        elif transport == "unix" and values.get("abstract"):
            found.append("\0" + unquote(values["abstract"]))
    return found


async def open_socket(address: str) -> socket.socket:
    """Connect and say who we are, by uid (SASL EXTERNAL). OSError or ProtocolError; the caller has the deadline."""
    last: OSError = FileNotFoundError(f"no Unix socket in the bus address {address!r}")
    for path in unix_addresses(address):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            await asyncio.get_running_loop().sock_connect(sock, path)
            await _greet(sock)
            return sock
        except OSError as error:
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
    raise last


async def _greet(sock: socket.socket) -> None:
    for line, answer in ((b"\0AUTH EXTERNAL %s\r\n" % str(os.geteuid()).encode().hex().encode(), b"OK"),
                         (b"NEGOTIATE_UNIX_FD\r\n", b"AGREE_UNIX_FD")):
        await asyncio.get_running_loop().sock_sendall(sock, line)
        said = await _line(sock)
        if said.split(b" ")[0] != answer:
            raise ProtocolError(f"the bus says {said!r} in place of {answer.decode()}")
    await asyncio.get_running_loop().sock_sendall(sock, b"BEGIN\r\n")


async def _line(sock: socket.socket) -> bytes:
    # The bus says nothing unasked before BEGIN, so what is read never reaches beyond the line.
    line = b""
    while not line.endswith(b"\r\n"):
        data = await asyncio.get_running_loop().sock_recv(sock, 1024)
        if not data or len(line) > _LINE_MAX:
            raise ProtocolError("the bus hung up during the greeting")
        line += data
    return line[:-2]


class Transport:
    """A greeted socket on the running loop: `on_message` for each message, `on_lost` once, when it has ended."""

    def __init__(self, sock: socket.socket, on_message: Callable[[Received], None],
                 on_lost: Callable[[Exception], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._reader = Reader(sock)
        self._on_message = on_message
        self._on_lost = on_lost
        self._outgoing: deque[tuple[memoryview, list[int]]] = deque()
        self._waiting = 0  # octets of _outgoing
        self._loop.add_reader(sock, self._on_readable)

    def send(self, message: Message) -> None:
        """Send, or keep it until the bus takes it. The descriptors of the message stay the caller's.

        ValueError or TypeError, and nothing is sent, where the body is not what the signature says.
        """
        data = memoryview(message._marshall(True))  # noqa: SLF001 - there is no other way to a message's octets
        if self._sock.fileno() < 0:
            return  # the bus has gone, and with it whoever waited for this
        self._outgoing.append((data, [os.dup(descriptor) for descriptor in message.unix_fds]))
        self._waiting += len(data)
        if len(self._outgoing) == 1:
            self._write()
        if self._waiting > OUTGOING_MAX:
            self._lose(ProtocolError("the bus takes no more messages"))

    def close(self) -> None:
        """Let go of the socket. Nothing is called any more."""
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._reader.close()
        for _, descriptors in self._outgoing:
            close_all(descriptors)
        self._outgoing.clear()

    def _on_readable(self) -> None:
        try:
            until = self._loop.time() + WAKE_SECONDS
            while self._sock.fileno() >= 0 and self._loop.time() < until:
                received = self._reader.read()
                if received is None:
                    return
                self._on_message(received)
        except (EOFError, OSError, ProtocolError) as error:
            self._lose(error)

    def _write(self) -> None:
        try:
            while self._outgoing:
                data, descriptors = self._outgoing[0]
                passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
                sent = self._sock.sendmsg([data], passed)
                close_all(descriptors)
                self._waiting -= sent
                if sent == len(data):
                    self._outgoing.popleft()
                else:
                    self._outgoing[0] = data[sent:], []
            self._loop.remove_writer(self._sock)
        except BlockingIOError:
            self._loop.add_writer(self._sock, self._write)
        except OSError as error:
            # Not from within send(): its caller has yet to note what it waits for.
            self._loop.call_soon(self._lose, error)

    def _lose(self, error: Exception) -> None:
        if self._sock.fileno() >= 0:
            self.close()
            self._on_lost(error)

