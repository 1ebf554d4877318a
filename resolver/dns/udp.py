# SPDX-License-Identifier: MIT
"""One UDP socket: datagrams by the dozen, each answered from what is known before anything is parsed."""

import errno
import logging
import socket
from typing import Any

from dns.rcode import Rcode

from resolver._table import ffi, lib
from resolver.dns.forward import Forwarder
from resolver.dns.limiter import Limiter, Verdict
from resolver.dns.options import Listen
from resolver.dns.responder import Responder
from resolver.dns.wire import Query, truncated
from resolver.varlink.loop import EventLoop

ROUNDS = 4
"""Batches taken in one turn of the loop, so that a flood does not keep TCP's clients from theirs."""

BUFFER_SIZE = 4 * 1024 * 1024
"""Of the socket, each way: some thousands of queries may wait while Python makes room or the host is busy."""

_SO_RCVBUFFORCE, _SO_SNDBUFFORCE = 33, 32   # asm-generic/socket.h: beyond net.core.rmem_max, for who may
_IP_PMTUDISC_OMIT = 5                       # linux/in.h, in6.h: datagrams of ours fit; no forged "too big" changes that
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER = 10, 23
_IP_PKTINFO, _IP_FREEBIND, _IPV6_FREEBIND = 8, 15, 78

_log = logging.getLogger(__name__)


class UdpSocket:
    """OSError from the constructor where the address cannot be had."""

    def __init__(self, loop: EventLoop, listen: Listen, responder: Responder, limiter: Limiter,
                 forwarder: Forwarder | None) -> None:
        self._loop = loop
        self._responder = responder
        self._limiter = limiter
        self._forwarder = forwarder
        self._socket = bind(listen, socket.SOCK_DGRAM)
        if listen.family == socket.AF_INET:
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_OMIT)
        else:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _IP_PMTUDISC_OMIT)
        for force, usual in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, force, BUFFER_SIZE)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, usual, BUFFER_SIZE)
        self._fd = self._socket.fileno()
        self._batch = ffi.new("struct datagrams *")
        self._data: Any = ffi.buffer(self._batch.data)
        self._sources: Any = ffi.buffer(self._batch.source)
        loop.add_reader(self._fd, self._on_readable)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        self._socket.close()

    def _on_readable(self) -> None:
        for _ in range(ROUNDS):
            count = lib.datagrams_receive(self._fd, self._batch)
            if count <= 0:
                if count not in (0, -errno.ECONNREFUSED):   # an ICMP message about an answer of before
                    _log.warning("cannot receive: %s", errno.errorcode.get(-count, count))
                return
            self._responder.refresh()
            self._limiter.tick(self._loop.time())
            self._answer(count)
            lib.datagrams_send(self._fd, self._batch, count)
            if count < lib.DATAGRAMS_MAX:
                return

    def _answer(self, count: int) -> None:
        """Put each answer in its question's place; the id stays where it is."""
        known, data, sources = self._responder.known, self._data, self._sources
        size, charge, lengths = lib.DATAGRAM_SIZE, self._limiter.charge, self._batch.length
        for number, length in enumerate(ffi.unpack(lengths, count)):
            start = number * size + 2
            asked = data[start:start + length - 2] if length > 2 else b""
            answer = known.get(asked)
            if answer is None:
                answer = self._work_out(number, data[start - 2:start - 2 + length])
            source = sources[number * 16:number * 16 + 16]
            verdict = charge(source, len(answer) - len(asked))
            if verdict is not Verdict.ANSWER:
                answer = truncated(b"\0\0" + answer)[2:] if verdict is Verdict.TRUNCATE else b""
            data[start:start + len(answer)] = answer
            lengths[number] = len(answer) + 2 if answer else 0

    def _work_out(self, number: int, packet: bytes) -> bytes:
        """What follows the id in the response; empty where none is sent, or not now."""
        outcome = self._responder.respond_datagram(packet)
        if isinstance(outcome, bytes):
            return outcome[2:]
        source = bytes(self._sources[number * 16:number * 16 + 16])
        if self._forwarder is None or not self._forwarder.serves(source):
            return self._responder.fail(outcome, Rcode.REFUSED)[2:]
        self._forward(self._forwarder, outcome, source, bytes(ffi.buffer(self._batch.peer[number:number + 1])))
        return b""

    def _forward(self, forwarder: Forwarder, query: Query, source: bytes, peer: bytes) -> None:
        def on_answer(answer: bytes | None) -> None:
            if self._socket.fileno() < 0:
                return
            answer = self._responder.fail(query, Rcode.SERVFAIL) if answer is None else answer
            self._limiter.tick(self._loop.time())
            verdict = self._limiter.charge(source, len(answer) - len(query.packet))
            if verdict is Verdict.DROP:
                return
            if verdict is Verdict.TRUNCATE or len(answer) > query.udp_size:
                answer = truncated(answer)
            lib.datagram_send(self._fd, ffi.from_buffer("struct datagram_peer *", peer), answer, len(answer))

        if not forwarder.ask(query, False, on_answer):
            on_answer(None)


def bind(listen: Listen, kind: socket.SocketKind) -> socket.socket:
    """A socket at that address, which need not be there yet: a bridge often comes later than its server."""
    bound = socket.socket(listen.family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listen.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            bound.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        bound.bind(listen.address)
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"{listen}: {error.strerror}") from None
    return bound
