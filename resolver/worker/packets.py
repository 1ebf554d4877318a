# SPDX-License-Identifier: MIT
"""Messages of a worker and of who asks it, as packets."""

import array
import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from resolver.worker import DESCRIPTORS_MAX, MESSAGE_MAX

Message = Mapping[str, Any]


def send(connection: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """OSError where it is too long for one packet, or nobody is there any more."""
    socket.send_fds(connection, [json.dumps(message).encode()], list(descriptors))


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """A message, and the descriptors that came with it; None where the other side has ended. OSError."""
    # Not socket.recv_fds(): Python 3.11's does not pass its flags on, and leaves descriptors to programs that are run.
    size = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)
    data, ancillary, flags, _ = connection.recvmsg(MESSAGE_MAX, size, socket.MSG_CMSG_CLOEXEC)
    received = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received.frombytes(content[:len(content) - len(content) % received.itemsize])
    descriptors = list(received)
    if not data or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(descriptors)
        return None
    return json.loads(data), descriptors


def close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
