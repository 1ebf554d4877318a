# SPDX-License-Identifier: MIT
"""What the two processes of a copy say to each other, as packets of a socket pair (SOCK_SEQPACKET).

    packet  = head, name, target, attribute...; a descriptor with it where the entry has one
            | ATTRIBUTES, attribute...          # of the next entry, which has more than fit in one packet
            | NOTE, a JSON object
    reader -> writer: entries (files/entries.py), {"end": true}; or {"error": ...}
    writer -> reader: {"avoid": [[device, inode]...]} on the first entry; {"progress": ...}, any number of times;
                      {"done": true} on the end; or {"error": ...}

The process inside a machine's user namespace has the rights of the machine's root, so little is believed: names are one
component, and what comes as a regular file is looked at.
"""

import array
import errno
import json
import os
import select
import socket
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from resolver.files.entries import Entry, Kind

PACKET_MAX = 160 * 1024
"""Bytes. The kernel takes some 200 KiB in one packet (net.core.wmem_default); an attribute has 64 KiB at the most."""

ATTRIBUTES_MAX = 2**20
"""Bytes of one entry's attributes, names too. Most file systems hold 64 KiB; what a guest makes (FUSE) claims more."""

_ATTRIBUTES, _NOTE = 32, 33

_HEAD = struct.Struct("=B3IqIqI4QQHH")
"""Kind; mode, uid, gid; the two times, in seconds and nanoseconds; size, device, links; identity; lengths."""
_ATTRIBUTE = struct.Struct("=HI")

Note = dict[str, Any]


class Channel:
    """One end of it. To be closed."""

    def __init__(self, connection: socket.socket, on_note: Callable[[Note], None] | None = None) -> None:
        """Notes that come while this sends are for `on_note`; it may raise what it likes."""
        self._connection = connection
        self._on_note = on_note
        self._attributes: dict[bytes, bytes] = {}
        """Of an entry that is still to come."""
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self._connection.close()

    def send_entry(self, entry: Entry) -> None:
        """OSError. Waits while the other side is busy."""
        *first, last = encode(entry)
        for packet in first:
            self._send(packet, ())
        self._send(last, (entry.descriptor,) if entry.descriptor >= 0 else ())

    def send_note(self, note: Mapping[str, Any]) -> None:
        self._send(bytes((_NOTE,)) + json.dumps(note).encode(), ())

    def _send(self, packet: bytes, descriptors: tuple[int, ...]) -> None:
        # Both sides may have something to say, and neither may wait for the other's room without hearing it.
        # Not socket.send_fds(): Python 3.11's does not pass its flags on.
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        while True:
            self._hear(0)
            try:
                self._connection.sendmsg([packet], rights, socket.MSG_DONTWAIT)
                return
            except BlockingIOError:
                poll = select.poll()
                hearing = select.POLLIN if self._on_note is not None else 0
                poll.register(self._connection, select.POLLOUT | hearing)
                poll.poll()

    def hear(self) -> None:
        """Wait for a note, and have it heard. OSError where the other side has ended."""
        self._hear(None)

    def _hear(self, timeout: int | None) -> None:
        if self._on_note is not None and self._poll.poll(timeout):
            received = self.receive()
            if not isinstance(received, dict):
                raise BrokenPipeError(errno.EPIPE, "the other process of the copy has ended")
            self._on_note(received)

    def receive(self) -> Entry | Note | None:
        """None where the other side has ended. A descriptor is the receiver's. ValueError for what is none of these."""
        while True:
            data, fds = self._packet()
            try:
                if not data:
                    return None
                received = self._read(data, fds)
            except BaseException:
                _close(fds)
                raise
            if received is not None:
                return received

    def _packet(self) -> tuple[bytes, list[int]]:
        size = socket.CMSG_SPACE(array.array("i").itemsize)
        data, ancillary, flags, _ = self._connection.recvmsg(PACKET_MAX, size, socket.MSG_CMSG_CLOEXEC)
        received = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                received.frombytes(content[:len(content) - len(content) % received.itemsize])
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            _close(list(received))
            raise ValueError("a packet is too long")
        return data, list(received)

    def _read(self, data: bytes, fds: list[int]) -> Entry | Note | None:
        if data[0] == _NOTE:
            note = json.loads(data[1:])
            if not isinstance(note, dict):
                raise ValueError("a note is no object")
            return note
        if data[0] == _ATTRIBUTES:
            self._attributes |= _attributes(memoryview(data)[1:])
            if sum(map(len, self._attributes.values())) > 2 * ATTRIBUTES_MAX:
                raise ValueError("too many attributes")
            return None
        entry = decode(data)
        entry.attributes |= self._attributes
        self._attributes = {}
        if fds:
            entry.descriptor = fds[0]
        if entry.kind is Kind.FILE and not (fds and stat.S_ISREG(os.fstat(fds[0]).st_mode)):
            raise ValueError("a file is none")
        return entry


def encode(entry: Entry) -> Iterator[bytes]:
    """The packets of an entry. OSError where its attributes are too many."""
    packed = [_ATTRIBUTE.pack(len(name), len(value)) + name + value for name, value in entry.attributes.items()]
    if sum(map(len, packed)) > ATTRIBUTES_MAX:
        raise OSError(errno.E2BIG, f"its extended attributes have more than {ATTRIBUTES_MAX} bytes", entry.name)
    head = b"".join((_HEAD.pack(
        entry.kind, entry.mode, entry.uid, entry.gid, *divmod(entry.access_time, 10**9),
        *divmod(entry.modification_time, 10**9), entry.size, entry.device, entry.links, *entry.identity,
        len(entry.name), len(entry.target)), entry.name, entry.target))
    while packed and len(head) + sum(map(len, packed)) > PACKET_MAX:
        some = bytes((_ATTRIBUTES,))
        while packed and len(some) + len(packed[-1]) <= PACKET_MAX:
            some += packed.pop()
        yield some
    yield head + b"".join(packed)


def decode(data: bytes) -> Entry:
    """An entry of what encode() gave last. ValueError."""
    if len(data) < _HEAD.size:
        raise ValueError("a packet is too short")
    (number, mode, uid, gid, access, access_ns, modification, modification_ns, size, device, links, dev, inode,
     name_length, target_length) = _HEAD.unpack_from(data)
    name = data[_HEAD.size:_HEAD.size + name_length]
    rest = _HEAD.size + name_length
    kind = Kind(number)
    if b"/" in name or b"\0" in name or name == b".." or bool(name) == (kind is Kind.LEAVE):
        raise ValueError("a name is none")
    return Entry(kind, name, mode, uid, gid, access * 10**9 + access_ns, modification * 10**9 + modification_ns, size,
                 device, links, (dev, inode), data[rest:rest + target_length],
                 _attributes(memoryview(data)[rest + target_length:]))


def _attributes(data: memoryview) -> dict[bytes, bytes]:
    values = {}
    while data:
        if len(data) < _ATTRIBUTE.size:
            raise ValueError("an attribute is cut")
        name_length, length = _ATTRIBUTE.unpack_from(data)
        middle, end = _ATTRIBUTE.size + name_length, _ATTRIBUTE.size + name_length + length
        if len(data) < end:
            raise ValueError("an attribute is cut")
        values[bytes(data[_ATTRIBUTE.size:middle])] = bytes(data[middle:end])
        data = data[end:]
    return values


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
