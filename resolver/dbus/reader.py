# SPDX-License-Identifier: MIT
"""From a socket to messages, file descriptors with them.

dbus-fast decodes messages. Its own reading is not used, for three reasons. It goes on for as long as there is something
to read, so whoever floods the bus keeps this loop from everything else. It takes any size in one piece: 32 MB from
anybody, on the system bus of Debian. And where a message cannot be decoded, it gives up the whole connection. Here one
message is read at a time, what is too long is thrown away unread, and what cannot be decoded is told of.
"""

import array
import io
import os
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

from dbus_fast import Message
from dbus_fast._private.unmarshaller import Unmarshaller

MESSAGE_MAX = 1024 * 1024
"""Octets of a message that is read. The longest call there is a use for, a scope's properties, has a few thousand."""

DESCRIPTORS_MAX = 253
"""Of one sendmsg(2), the kernel's own limit (SCM_MAX_FD)."""

_FIXED = 16  # octets before the header's fields: endianness, type, flags, version, length, serial, length of the fields
_INT = array.array("i").itemsize
_ANCILLARY = socket.CMSG_SPACE(DESCRIPTORS_MAX * _INT)
_discarded = bytearray(65536)  # what is thrown away goes here; one for all


class Received(NamedTuple):
    """A message; with a `problem` it has its header alone, and its sender should be told."""

    message: Message
    problem: str = ""


class ProtocolError(Exception):
    """What came is no D-Bus: the connection is of no more use."""


class Reader:
    """Messages from a socket that does not block, one at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = bytearray()
        self._descriptors: list[int] = []
        self._header = 0  # octets, padding included; 0 while it is not known
        self._body = 0  # octets of it that are still to come behind the header

    def read(self) -> Received | None:
        """The next message, None where there is none yet. EOFError, OSError or ProtocolError at the end of it all.

        The descriptors of the message are the caller's to close.
        """
        if not self._fill(_FIXED):
            return None
        if not self._header:
            self._measure()
        too_long = self._header + self._body > MESSAGE_MAX
        if not self._fill(self._header if too_long else self._header + self._body):
            return None
        if too_long and not self._discard():
            return None
        data, descriptors = bytes(self._data), self._descriptors
        self._data, self._descriptors, self._header, length = bytearray(), [], 0, self._header
        if too_long:
            received = _read_header(data, length, f"the message is longer than {MESSAGE_MAX} octets")
        else:
            received = _read_whole(data, length)
        if received is None:
            close_all(descriptors)
            return self.read()
        received.message.unix_fds = descriptors
        return received

    def close(self) -> None:
        """Let go of the descriptors of a message that never came whole."""
        close_all(self._descriptors)
        self._descriptors = []

    def _fill(self, wanted: int) -> bool:
        while len(self._data) < wanted:
            # Exactly what is missing: so descriptors, which come with a message's first octet, are this message's.
            try:
                data, ancillary, _, _ = self._sock.recvmsg(wanted - len(self._data), _ANCILLARY,
                                                           socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return False
            for level, kind, passed in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self._descriptors.extend(array.array("i", passed[:len(passed) - len(passed) % _INT]))
            if not data:
                raise EOFError("the bus hung up")
            self._data += data
        return True

    def _measure(self) -> None:
        order = {ord("l"): "<", ord("B"): ">"}.get(self._data[0])
        if order is None or self._data[3] != 1:
            raise ProtocolError("what came is no message of D-Bus, version 1")
        self._body, _, fields = struct.unpack_from(f"{order}III", self._data, 4)
        self._header = _FIXED + fields + -fields % 8
        if self._header > MESSAGE_MAX:
            raise ProtocolError(f"a message has a header of {self._header} octets")

    def _discard(self) -> bool:
        while self._body:
            try:
                count = self._sock.recv_into(_discarded, min(self._body, len(_discarded)))
            except BlockingIOError:
                return False
            if not count:
                raise EOFError("the bus hung up")
            self._body -= count
        return True


def _read_whole(data: bytes, header: int) -> Received | None:
    try:
        return Received(_decode(data))
    except Exception as error:  # noqa: BLE001 - whatever the sender made the decoder do, it is about this message alone
        return _read_header(data, header, f"the message cannot be read: {error}")


def _read_header(data: bytes, header: int, problem: str) -> Received | None:
    # With a body of no length, wherever it says that there is one.
    try:
        return Received(_decode(data[:4] + bytes(4) + data[8:header]), problem)
    except Exception:  # noqa: BLE001 - as above, and now nobody can be told
        return None


def _decode(data: bytes) -> Message:
    message = Unmarshaller(io.BytesIO(data)).unmarshall()  # type: ignore[arg-type]
    if message is None:
        raise ValueError("it says that it is longer than it is")
    return message


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors that came with a message."""
    for descriptor in descriptors:
        os.close(descriptor)
