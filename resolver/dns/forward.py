# SPDX-License-Identifier: MIT
"""What is not ours is asked of another server: by UDP what came by UDP, by TCP what came by TCP.

Each query has a socket of its own, hence a port of its own, and a random id: who wants to slip in an answer has to
guess both (RFC 5452). Nothing is kept: this is no cache.
"""

import ipaddress
import secrets
import socket
from collections.abc import Callable, Sequence

from resolver.dns.options import Listen, Network
from resolver.dns.wire import HEADER_SIZE, QR, TCP_SIZE, Query
from resolver.varlink.loop import EventLoop, Timer

PENDING_MAX = 512
"""Queries under way, each with a socket. Beyond, askers are told so (SERVFAIL) and ask again."""

ATTEMPT_SECONDS = 1.5
"""For one server's answer, then the next is asked: a stub resolver waits 5 s in all (resolv.conf(5))."""

ATTEMPTS = 3

_MAPPED = bytes(10) + b"\xff\xff"

OnAnswer = Callable[[bytes | None], None]
"""Given the response, with the query's id, or None where no server gave any."""


class Forwarder:
    """Asks `servers`, the first first, for clients in `networks`."""

    def __init__(self, loop: EventLoop, servers: Sequence[Listen], networks: Sequence[Network]) -> None:
        self._loop = loop
        self._servers = servers
        self._networks = [(network.version == 4, int(network.network_address), int(network.netmask))
                          for network in networks]
        self._pending: set[_Exchange] = set()

    def serves(self, source: bytes) -> bool:
        """Whether somebody at that address (16 bytes, IPv4 mapped) is served."""
        mapped = source.startswith(_MAPPED)
        number = int(ipaddress.ip_address(source[12:] if mapped else source))
        return any(mapped == ipv4 and number & mask == first for ipv4, first, mask in self._networks)

    def ask(self, query: Query, stream: bool, on_answer: OnAnswer) -> bool:
        """False where too many are being asked already; else `on_answer` is called once, later, unless closed."""
        if len(self._pending) >= PENDING_MAX:
            return False
        exchange = _Exchange(self._loop, self._servers, query, stream, on_answer, self._pending.discard)
        self._pending.add(exchange)
        exchange.start()
        return True

    def close(self) -> None:
        for exchange in list(self._pending):
            exchange.cancel()
        self._pending.clear()


class _Exchange:
    """One query, until a server has answered or none has."""

    def __init__(self, loop: EventLoop, servers: Sequence[Listen], query: Query, stream: bool, on_answer: OnAnswer,
                 on_end: Callable[["_Exchange"], None]) -> None:
        self._loop = loop
        self._servers = servers
        self._query = query
        self._stream = stream
        self._on_answer = on_answer
        self._on_end = on_end
        self._attempt = 0
        self._socket: socket.socket | None = None
        self._timer: Timer | None = None
        self._id = b""
        self._output = b""
        self._input = bytearray()

    def start(self) -> None:
        # Not at once: the caller has not finished with this query.
        self._timer = self._loop.call_later(0, self._try_next)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._drop_socket()

    def _try_next(self) -> None:
        self._drop_socket()
        if self._attempt == ATTEMPTS:
            self._end(None)
            return
        server = self._servers[self._attempt % len(self._servers)]
        self._attempt += 1
        self._id = secrets.token_bytes(2)
        self._input.clear()
        packet = self._id + self._query.packet[2:]
        kind = socket.SOCK_STREAM if self._stream else socket.SOCK_DGRAM
        self._timer = self._loop.call_later(ATTEMPT_SECONDS, self._try_next)
        try:
            self._socket = socket.socket(server.family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            error = self._socket.connect_ex(server.address)     # an address: nothing is looked up
            if self._stream:
                self._output = len(packet).to_bytes(2) + packet
                self._loop.add_writer(self._socket.fileno(), self._on_writable)
            else:
                if error:
                    return  # the timer goes on
                self._socket.send(packet)
            self._loop.add_reader(self._socket.fileno(), self._on_readable)
        except OSError:
            self._fail_soon()

    def _fail_soon(self) -> None:
        """Ask the next at once: this one has said that it is not there."""
        if self._timer is not None:
            self._timer.cancel()
        self._drop_socket()
        self._timer = self._loop.call_later(0, self._try_next)

    def _on_writable(self) -> None:
        assert self._socket is not None
        try:
            self._output = self._output[self._socket.send(self._output):]
        except BlockingIOError:
            return
        except OSError:
            self._fail_soon()
            return
        if not self._output:
            self._loop.remove_writer(self._socket.fileno())

    def _on_readable(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(TCP_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._fail_soon()
            return
        if not self._stream:
            self._take(data)
        elif not data:
            self._fail_soon()
        else:
            self._input += data
            end = 2 + int.from_bytes(self._input[:2])
            if len(self._input) >= max(end, 3):
                self._take(bytes(self._input[2:end]))

    def _take(self, answer: bytes) -> None:
        question = self._query.question
        fits = (len(answer) >= HEADER_SIZE and answer[:2] == self._id and answer[2] & QR >> 8
                and answer[HEADER_SIZE:HEADER_SIZE + len(question)].lower() == question.lower())
        if fits:
            self._end(self._query.packet[:2] + answer[2:])
        elif self._stream:
            self._fail_soon()

    def _end(self, answer: bytes | None) -> None:
        self.cancel()
        self._on_end(self)
        self._on_answer(answer)

    def _drop_socket(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._socket = None
