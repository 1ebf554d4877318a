# SPDX-License-Identifier: MIT
"""From a socket to messages, file descriptors with them.

dbus-fast's own connection is not used, for three reasons. It goes on reading for as long as there is something to read,
so whoever floods the bus keeps this loop from everything else. It takes any size in one piece: 32 MB from anybody, on
the system bus of Debian. And where a message cannot be decoded, it gives up the whole connection. Here one message is
read at a time, what is too long is thrown away unread, and what cannot be decoded is told of.
"""

import array
import os
import socket
from collections.abc import Iterable
from typing import NamedTuple

from dbus_fast import Message

from resolver.dbus.decode import FIXED, decode, measure

MESSAGE_MAX = 1024 * 1024
"""Octets of a message that is read. The longest call there is a use for, a scope's properties, has a few thousand."""

DESCRIPTORS_MAX = 253
"""Of one sendmsg(2), the kernel's own limit (SCM_MAX_FD)."""

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
        self._total = 0  # octets of the message; 0 while that is not known
        self._wanted = 0  # octets to keep: of the message, or of the header alone
        self._unwanted = 0  # octets to throw away behind these

    def read(self) -> Received | None:
        """The next message, None where there is none yet. EOFError, OSError or ProtocolError at the end of it all.

        The descriptors of the message are the caller's to close.
        """
        if not self._fill(FIXED):
            return None
        if not self._total:
            self._measure()
        if not self._fill(self._wanted) or not self._discard():
            return None
        data, descriptors, too_long = bytes(self._data), self._descriptors, self._wanted < self._total
        self._data, self._descriptors, self._total = bytearray(), [], 0
        if too_long:
            received = _read_header(data, f"the message is longer than {MESSAGE_MAX} octets")
        else:
            received = _read_whole(data)
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
        try:
            header, body = measure(self._data)
        except ValueError as error:
            raise ProtocolError(str(error)) from None
        if header > MESSAGE_MAX:
            raise ProtocolError(f"a message has a header of {header} octets")
        self._total = header + body
        self._wanted = self._total if self._total <= MESSAGE_MAX else header
        self._unwanted = self._total - self._wanted

    def _discard(self) -> bool:
        while self._unwanted:
            try:
                count = self._sock.recv_into(_discarded, min(self._unwanted, len(_discarded)))
            except BlockingIOError:
                return False
            if not count:
                raise EOFError("the bus hung up")
            self._unwanted -= count
        return True


def _read_whole(data: bytes) -> Received | None:
    try:
        return Received(decode(data))
    except ValueError as error:
        return _read_header(data, f"the message cannot be read: {error}")


def _read_header(data: bytes, problem: str) -> Received | None:
    """None where there is nobody to tell: the header says too little, or is of a later version's message."""
    try:
        return Received(decode(data, header_only=True), problem)
    except ValueError:
        return None


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors that came with a message."""
    for descriptor in descriptors:
        os.close(descriptor)
