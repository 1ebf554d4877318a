# SPDX-License-Identifier: MIT
"""/run/mymachines/nss.sock: answers for processes that cannot use the table. One packet in, one out, and good-bye."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable

NSS_SOCKET = "/run/mymachines/nss.sock"
"""Compiled into the shim too."""

BACKLOG = 128
"""Connections that wait; where it is full the shim is told so at once and the next NSS module answers."""

CONNECTIONS_MAX = 512
"""At once. Each lives for one packet; who opens more keeps nobody waiting, since they are closed unanswered."""

QUESTION_SECONDS = 1.0
"""For the question to come. The shim sends it at once and waits for 250 ms in all."""

ACCEPT_PAUSE_SECONDS = 0.1
"""Without a descriptor to accept with, the waiting connection would wake the loop for ever."""

PACKET_MAX = 4096
"""A question has 100 bytes; what is cut here is no question."""

_log = logging.getLogger(__name__)


class NssServer:
    """Answers by `answer`, which gives None for what is no question."""

    def __init__(self, answer: Callable[[bytes], bytes | None], path: str = NSS_SOCKET) -> None:
        self._answer = answer
        self._path = path
        self._listener: socket.socket | None = None
        self._connections: dict[socket.socket, asyncio.TimerHandle] = {}
        self.questions = 0
        """That were answered."""

    def start(self) -> None:
        """Listen. OSError where the socket cannot be made."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        new = f"{self._path}.new"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
            listener.bind(new)
            os.chmod(new, 0o666)  # noqa: S103 - everybody may ask
            listener.listen(BACKLOG)
            # In place of a dead predecessor's, without a moment in which there is none.
            os.rename(new, self._path)
        except BaseException:
            listener.close()
            raise
        self._listener = listener
        self._listen_on(listener)

    def close(self) -> None:
        """Stop listening and take the socket away."""
        loop = asyncio.get_running_loop()
        if self._listener is not None:
            loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            with contextlib.suppress(OSError):  # gone, or on a file system that is read-only by now
                os.unlink(self._path)
        for connection in list(self._connections):
            self._drop(connection)

    def _listen_on(self, listener: socket.socket) -> None:
        if listener is self._listener:
            asyncio.get_running_loop().add_reader(listener, self._on_connection, listener)

    def _on_connection(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            _log.warning("Cannot accept on %s: %s", self._path, error)
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            loop.call_later(ACCEPT_PAUSE_SECONDS, self._listen_on, listener)
            return
        connection.setblocking(False)
        if len(self._connections) >= CONNECTIONS_MAX:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        self._connections[connection] = loop.call_later(QUESTION_SECONDS, self._drop, connection)
        loop.add_reader(connection, self._on_question, connection)

    def _on_question(self, connection: socket.socket) -> None:
        try:
            reply = self._answer(connection.recv(PACKET_MAX))
            if reply is not None:
                connection.send(reply, socket.MSG_NOSIGNAL)
                self.questions += 1
        except BlockingIOError:
            return
        except OSError:
            pass  # the process has gone
        self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        self._connections.pop(connection).cancel()
        asyncio.get_running_loop().remove_reader(connection)
        connection.close()
