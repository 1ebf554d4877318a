# SPDX-License-Identifier: MIT
"""The side of the process that does the work: its `main` is main(handle).

It is started with nothing of the daemon's but the socket, standard error and what came with the request.
"""

import ctypes
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from resolver.core.errors import InvalidArgument, MachineError, NotAvailable
from resolver.worker import packets

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

Answer = tuple[Mapping[str, Any], Sequence[int]]
"""The result, and the descriptors that go with it."""


class Stopped(BaseException):
    """Nobody wants the answer any more: raised wherever the work is, so that it tidies up. Not to be swallowed."""


class Asker:
    """Who asked."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def tell(self, progress: Mapping[str, Any]) -> None:
        """How far the work has come; it also shows that it goes on."""
        self.send({"progress": progress})

    def send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        packets.send(self._connection, message, descriptors)


Handler = Callable[[Mapping[str, Any], Sequence[int], Asker], Answer]
"""Does the work. It may raise any MachineError, and OSError, which is told as NotAvailable."""


def main(handle: Handler) -> NoReturn:
    """Serve the one request, and end. The first argument is the pid of who started this."""
    die_with_parent(int(sys.argv[1]))
    try:
        signal.signal(signal.SIGTERM, _stop)
        connection = socket.socket(fileno=os.dup(0))
        received = packets.receive(connection)
        if received is not None:
            _work(handle, *received, Asker(connection))
    except (Stopped, BrokenPipeError):  # nobody waits for the answer any more
        pass
    sys.exit(0)


def _work(handle: Handler, request: Mapping[str, Any], descriptors: Sequence[int], asker: Asker) -> None:
    given: Sequence[int] = ()
    try:
        result, given = handle(request, descriptors, asker)
        answer: dict[str, Any] = {"result": result}
    except BrokenPipeError:
        raise
    except InvalidArgument as error:
        answer = {"error": "InvalidArgument", "field": error.field, "text": str(error)}
    except MachineError as error:
        answer = {"error": type(error).__name__, "text": str(error)}
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        answer = {"error": NotAvailable.__name__, "text": f"{where}{error.strerror or error}"}
    except Exception:  # noqa: BLE001 - a fault of ours: the log has it
        traceback.print_exc()
        answer = {"error": NotAvailable.__name__, "text": "this failed; the daemon's log says why"}
    asker.send(answer, given)


def die_with_parent(parent: int) -> None:
    """Be killed when the process that started this one ends (PR_SET_PDEATHSIG, prctl(2)). Also for a child's child."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)  # it has ended already


def _stop(_number: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: what tidies up is not interrupted
    raise Stopped
