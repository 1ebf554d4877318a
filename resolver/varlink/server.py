# SPDX-License-Identifier: MIT
"""A listening Unix socket and its connections: who may have how many, and for how long.

Where a limit is reached, whoever has the most gives up the connection that has been idle for longest. So a user who
opens thousands takes them from himself, and a client that comes to ask one thing is always served.
"""

import errno
import logging
import os
import select
import socket
from typing import NamedTuple

from resolver.varlink.connection import Connection
from resolver.varlink.loop import EventLoop, Timer
from resolver.varlink.peer import Peer
from resolver.varlink.service import Service

_log = logging.getLogger(__name__)

BACKLOG = 4096
"""Clients waiting for accept(2), net.core.somaxconn's default: connect(2) blocks where it is full, without an end."""

ACCEPT_BATCH = 64
"""Connections to take in one round of the loop, so that a flood of them does not keep others from their answers; and so
many, since who comes behind a flood waits for a round of all that is under way for each batch before him."""

ACCEPT_PAUSE = 0.1
"""Seconds to wait where the system has no descriptor or memory left: accept(2) would fail at once, again and again."""

SWEEP_SECONDS = 1.0
"""How often deadlines are looked at: they are tens of seconds, and an idle server has no connections to look at."""


class Limits(NamedTuple):
    """How much clients may have."""

    connections: int = 4096
    """In all; systemd's own number. Each may hold codec.CALL_MAX bytes of an unfinished message."""

    connections_by_uid: int = 512
    """Of one user, root excepted. A client has one at a time, for less than a millisecond."""

    streams_by_uid: int = 8
    """Calls with `more` that one user, root excepted, has answered at a time; the next wait for their turn. Who listens
    listens once, and is told of each change; a list takes milliseconds. So what a change costs is bounded, whoever
    listens, and an honest caller waits for no more than these in a round of the loop."""

    reserved_for_root: int = 256
    """Of all, so that no number of users keeps root out."""

    input_seconds: float = 30.0
    """For a message to be complete, from connect(2) or from its first byte on: long enough for typing it by hand."""

    output_seconds: float = 30.0
    """For a reply to be taken by who asked for it, and for a stream's turn to come. A pager may be stopped for some
    time, not for ever."""


DEFAULT_LIMITS = Limits()


class Server:
    """Serves one socket; close() closes it and all connections.

    Raises OSError from the constructor where the socket cannot be made.
    """

    def __init__(self, loop: EventLoop, service: Service, listener: socket.socket,
                 limits: Limits = DEFAULT_LIMITS) -> None:
        self._loop = loop
        self._service = service
        self._listener = listener
        self.limits = limits
        """May be changed at any time. Connections that are there stay, until somebody needs their place."""
        self._path: tuple[str, tuple[int, int]] | None = None
        self._by_uid: dict[int, dict[Connection, None]] = {}  # of each user, the longest idle first
        self.refused = 0
        """Connections, for want of a place."""
        self._streams: dict[int, list[Connection]] = {}  # of each user, in the order in which they came
        self._count = 0
        self._root_count = 0
        self._sweep: Timer | None = None
        self._pause: Timer | None = None
        self._clients = select.poll()
        self._clients.register(listener, select.POLLIN)
        listener.setblocking(False)
        loop.add_reader(listener.fileno(), self._on_connection)

    @classmethod
    def at_path(cls, loop: EventLoop, service: Service, path: str, limits: Limits = DEFAULT_LIMITS) -> "Server":
        """Listen at `path`, for everybody, in the place of whatever socket is there."""
        listener = listen(path)
        server = cls(loop, service, listener, limits)
        server._path = path, _file_id(path)
        return server

    @classmethod
    def at_fd(cls, loop: EventLoop, service: Service, fd: int, limits: Limits = DEFAULT_LIMITS) -> "Server":
        """Serve a listening socket that somebody else made, and leaves its path to him (sd_listen_fds(3))."""
        return cls(loop, service, socket.socket(fileno=fd), limits)

    @property
    def connection_count(self) -> int:
        return self._count

    def close(self) -> None:
        """Unlink the path if it is still this socket's, stop listening, close all connections."""
        if self._path is not None:
            path, file_id = self._path
            self._path = None
            try:
                if _file_id(path) == file_id:
                    os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                _log.warning("cannot remove %s: %s", path, error)
        for timer in (self._sweep, self._pause):
            if timer is not None:
                timer.cancel()
        self._sweep = self._pause = None
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
        for connection in self._connections():
            connection.close()

    def _connections(self) -> list[Connection]:
        return [connection for connections in self._by_uid.values() for connection in connections]

    def _on_connection(self) -> None:
        # No more than there are already: of the many who ask one thing, one after the other, each costs one accept(2),
        # and poll(2) is asked whether there is another, for an accept(2) that finds nobody takes eight times as long.
        for taken in range(min(ACCEPT_BATCH, self._count + 1)):
            if taken and not self._clients.poll(0):
                return
            try:
                sock, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._accept_later(error)
                    return
                continue  # the client's own trouble: it is gone already (accept(2) names more)
            self._take(sock)

    def _accept_later(self, error: OSError) -> None:
        _log.warning("cannot accept a connection: %s", error)
        self._loop.remove_reader(self._listener.fileno())
        self._pause = self._loop.call_later(ACCEPT_PAUSE, self._accept_again)

    def _accept_again(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener.fileno(), self._on_connection)

    def _take(self, sock: socket.socket) -> None:
        try:
            peer = Peer(sock)
        except OSError:
            sock.close()
            return
        if not self._make_room(peer.uid):
            self.refused += 1
            _log.info("pid %d, uid %d: refused, too many connections", peer.pid, peer.uid)
            sock.close()
            return
        limits = self.limits
        connection = Connection(self._loop, sock, peer, self._service, limits.input_seconds, limits.output_seconds,
                                self)
        self._by_uid.setdefault(peer.uid, {})[connection] = None
        self._count += 1
        self._root_count += peer.uid == 0
        # Beside others, the call has mostly come by now, and is answered before somebody else wants the place. A client
        # that is alone is not as fast: it is heard in the next round, and to ask before took a tenth of its time.
        if self._count > 1:
            connection.on_readable()
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP_SECONDS, self._on_sweep)

    def _make_room(self, uid: int) -> bool:
        """Whether a connection of that user fits, after one that has to go has gone."""
        limits = self.limits
        if uid == 0:
            return self._count < limits.connections or self._evict(self._greediest())
        if len(self._by_uid.get(uid, ())) >= limits.connections_by_uid:
            return self._evict(uid)
        others = self._count - self._root_count
        return others < limits.connections - limits.reserved_for_root or self._evict(self._greediest())

    def _greediest(self) -> int:
        """The user with the most connections; root only where there is nobody else."""
        return max(self._by_uid, key=lambda uid: (uid != 0, len(self._by_uid[uid])), default=0)

    def _evict(self, uid: int) -> bool:
        idle = next((connection for connection in self._by_uid.get(uid, ()) if not connection.busy), None)
        if idle is None:
            return False
        idle.close()
        return True

    def on_idle(self, connection: Connection) -> None:
        connections = self._by_uid[connection.peer.uid]
        del connections[connection]
        connections[connection] = None

    def on_close(self, connection: Connection) -> None:
        uid = connection.peer.uid
        connections = self._by_uid[uid]
        del connections[connection]
        if not connections:
            del self._by_uid[uid]
        self._count -= 1
        self._root_count -= uid == 0

    def begin_stream(self, connection: Connection) -> bool:
        streams = self._streams.setdefault(connection.peer.uid, [])
        streams.append(connection)
        return connection.peer.uid == 0 or len(streams) <= self.limits.streams_by_uid

    def end_stream(self, connection: Connection) -> None:
        uid, limit = connection.peer.uid, self.limits.streams_by_uid
        streams = self._streams[uid]
        at = streams.index(connection)
        del streams[at]
        if not streams:
            del self._streams[uid]
        elif uid != 0 and at < limit <= len(streams):
            # In the next round: who closes a thousand connections does not start as many streams within one another.
            self._loop.call_soon(streams[limit - 1].go_on)

    def _on_sweep(self) -> None:
        now = self._loop.time()
        for connection in self._connections():
            connection.check(now)
        self._sweep = self._loop.call_later(SWEEP_SECONDS, self._on_sweep) if self._count else None


class _Listener(socket.socket):
    """accept() makes a socket of the same kind, and asks for the kind each time: an enum made of a number, twice."""

    family = socket.AF_UNIX
    type = socket.SOCK_STREAM


def listen(path: str) -> socket.socket:
    """A listening socket at `path`, mode 0666, its parent directories made where they are missing.

    It is ready under another name before it takes the place of what was there: a client finds the old one or the new
    one, and never none. A name with a dot in front, for libnss_systemd asks every other one in its directory.
    """
    directory, name = os.path.split(os.path.abspath(path))
    os.makedirs(directory, mode=0o755, exist_ok=True)
    temporary = os.path.join(directory, f".{name}.{os.getpid()}")
    listener = _Listener(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        _remove(temporary)  # of a process that had our number and was killed in between
        listener.bind(temporary)
        os.chmod(temporary, 0o666)  # noqa: S103 - who may do what is decided for each call
        listener.listen(BACKLOG)
        os.rename(temporary, path)
    except BaseException:
        listener.close()
        _remove(temporary)
        raise
    return listener


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _file_id(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino
