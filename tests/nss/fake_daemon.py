# SPDX-License-Identifier: MIT
"""A daemon that says what it is told to, at the shim's socket; and the packets of answer.h, right and wrong."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from resolver._table import ffi, lib

from .tables import Address

SOCKET = Path("/run/mymachines/nss.sock")
V4, V6 = socket.AF_INET, socket.AF_INET6
Talk = Callable[[bytes], bytes | None]


@contextmanager
def daemon(talk: Talk, kind: int = socket.SOCK_SEQPACKET) -> Iterator[list[bytes]]:
    """A daemon that replies to each question by `talk`; None: never. Gives the questions it got."""
    questions: list[bytes] = []
    mute: list[socket.socket] = []
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(str(SOCKET))
    listener.listen(64)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            question = connection.recv(4096)
            questions.append(question)
            reply = talk(question)
            if reply is None:
                mute.append(connection)
                continue
            if reply:
                connection.send(reply)
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield questions
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
        for connection in mute:
            connection.close()
        SOCKET.unlink()


def header(question: bytes, result: int = lib.ANSWER_FOUND, layout: int = 1) -> bytes:
    return struct.pack("=III", layout, struct.unpack_from("=II", question)[1], result)


def host_packet(name: bytes, *addresses: tuple[str, int, int]) -> bytes:
    answer = ffi.new("struct host_answer *", {"name": name, "address_count": len(addresses)})
    for i, (text, scope_id, flags) in enumerate(addresses):
        packed = Address(text).packed
        answer.addresses[i].family = V4 if len(packed) == 4 else V6
        answer.addresses[i].scope_id, answer.addresses[i].flags = scope_id, flags
        ffi.memmove(answer.addresses[i].bytes, packed, len(packed))
    return bytes(ffi.buffer(answer))[: ffi.offsetof("struct host_answer", "addresses") + 28 * len(addresses)]


def id_packet(name: bytes = b"vu-web-1000", host_id: int = (1 << 20) + 1000, machine: bytes = b"web") -> bytes:
    answer = ffi.new("struct id_answer *", {"machine": machine, "name": name, "host_id": host_id, "inside_id": 1000})
    return bytes(ffi.buffer(answer))


WEB_PACKET = host_packet(b"web", ("10.0.0.2", 0, 2), ("fd00::2", 0, 2), ("fe80::2", 7, 1))
