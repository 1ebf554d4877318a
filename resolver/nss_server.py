# SPDX-License-Identifier: MIT
"""/run/mymachines/nss.sock: answers for processes that cannot use the table. One packet in, one out, and good-bye.

Where a limit is reached, whoever has the most connections gives up the oldest, which has asked nothing yet: who is
honest asks with the next system call. So thousands that say nothing are their owner's trouble.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable

from resolver.varlink.peer import Peer

NSS_SOCKET = "/run/mymachines/nss.sock"
"""Compiled into the shim too."""

BACKLOG = 1024
"""Connections that wait. To work off as many takes less than the 250 ms that the shim waits (four times as many took
700 on a busy machine). Where it is full the shim is told so at once and the next NSS module answers."""

ACCEPT_BATCH = 16
"""Connections to take in one round of the loop: a flood of them does not keep the daemon from all else."""

CONNECTIONS_MAX = 512
"""At once, of all users. Each lives for one packet."""

CONNECTIONS_BY_UID = 64
"""Of one user, root excepted: as many processes and threads as look something up at the same time, each for less than
a millisecond. A user who takes all of his leaves room for seven more like him."""

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
        self._by_uid: dict[int, dict[socket.socket, asyncio.TimerHandle]] = {}  # of each user, the oldest first
        self._count = 0
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
        for uid, connections in list(self._by_uid.items()):
            for connection in list(connections):
                self._drop(uid, connection)

    def _listen_on(self, listener: socket.socket) -> None:
        if listener is self._listener:
            asyncio.get_running_loop().add_reader(listener, self._on_connection, listener)

    def _on_connection(self, listener: socket.socket) -> None:
        for _ in range(ACCEPT_BATCH):
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
            self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            uid = Peer(connection).uid
        except OSError:
            connection.close()
            return
        self._make_room(uid)
        loop = asyncio.get_running_loop()
        self._by_uid.setdefault(uid, {})[connection] = loop.call_later(QUESTION_SECONDS, self._drop, uid, connection)
        self._count += 1
        loop.add_reader(connection, self._on_question, uid, connection)
        # It has often been asked by now: a round of the loop less.
        self._on_question(uid, connection)

    def _make_room(self, uid: int) -> None:
        if uid != 0 and len(self._by_uid.get(uid, ())) >= CONNECTIONS_BY_UID:
            self._drop_oldest(uid)
        elif self._count >= CONNECTIONS_MAX:
            # Root only where there is nobody else.
            self._drop_oldest(max(self._by_uid, key=lambda each: (each != 0, len(self._by_uid[each]))))

    def _drop_oldest(self, uid: int) -> None:
        self._drop(uid, next(iter(self._by_uid[uid])))

    def _on_question(self, uid: int, connection: socket.socket) -> None:
        try:
            reply = self._answer(connection.recv(PACKET_MAX))
            if reply is not None:
                connection.send(reply, socket.MSG_NOSIGNAL)
                self.questions += 1
        except BlockingIOError:
            return
        except OSError:
            pass  # the process has gone
        self._drop(uid, connection)

    def _drop(self, uid: int, connection: socket.socket) -> None:
        connections = self._by_uid[uid]
        connections.pop(connection).cancel()
        if not connections:
            del self._by_uid[uid]
        self._count -= 1
        asyncio.get_running_loop().remove_reader(connection)
        connection.close()
