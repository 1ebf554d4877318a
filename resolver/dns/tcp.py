# SPDX-License-Identifier: MIT
"""One TCP socket and its connections (RFC 7766): queries one behind the other, answered as they are ready.

Where there are too many connections, whoever has the most gives up the one that has been idle for longest. So
thousands of idle ones are their owner's trouble, and a client that comes to ask is served. Whoever has sent a thousand
queries ahead has a few of them answered in each round of the loop, and all others their turn in between.
"""

import errno
import logging
import socket
from collections import deque

from dns.rcode import Rcode

from resolver.dns.forward import Forwarder
from resolver.dns.options import Listen
from resolver.dns.responder import Responder
from resolver.dns.udp import bind
from resolver.dns.wire import Query
from resolver.varlink.loop import EventLoop, Timer

BACKLOG = 1024
CONNECTIONS_MAX = 1024
"""Of one address of ours. Each may hold MESSAGE_MAX of queries and OUTPUT_MAX of answers: 70 MB at worst."""

CONNECTIONS_BY_SOURCE = 128
"""Of one client's address. RFC 7766 section 6.2.2 wants clients to have one; behind one address may be a whole host."""

ANSWERS_AT_ONCE = 4
"""Of one connection: some 100 us. Those that have more queries wait in a queue."""

QUEUED_A_ROUND = 4
"""Connections out of that queue that are served in one round of the loop: who comes to ask one thing waits for no more
than these, however many there are."""

MESSAGE_MAX = 4096
"""Bytes of a query: the longest name, and more options than any client has. Longer ones end the connection."""

OUTPUT_MAX = 64 * 1024
"""Bytes of answers that a client has not taken; as long as there are more, its queries are not read."""

FORWARDED_MAX = 16
"""Of one connection, under way; the next are not read meanwhile."""

IDLE_SECONDS = 10.0
"""RFC 7766 section 6.2.3 wants some seconds; also what one message may take, from its first byte to its last, and an
answer to be read."""

SWEEP_SECONDS = 1.0
ACCEPT_BATCH = 16
ACCEPT_PAUSE = 0.1

_log = logging.getLogger(__name__)


class TcpSocket:
    """OSError from the constructor where the address cannot be had."""

    def __init__(self, loop: EventLoop, listen: Listen, responder: Responder, forwarder: Forwarder | None) -> None:
        self._loop = loop
        self._responder = responder
        self._forwarder = forwarder
        self._socket = bind(listen, socket.SOCK_STREAM)
        self._socket.listen(BACKLOG)
        self._by_source: dict[bytes, dict[Connection, None]] = {}   # of each, the longest idle first
        self.connection_count = 0
        self._queue: deque[Connection] = deque()
        self._sweep: Timer | None = None
        self._pause: Timer | None = None
        loop.add_reader(self._socket.fileno(), self._on_connection)

    @property
    def port(self) -> int:
        """The one that the kernel chose where it was asked to."""
        port: int = self._socket.getsockname()[1]
        return port

    def close(self) -> None:
        for timer in (self._sweep, self._pause):
            if timer is not None:
                timer.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        for connection in self._connections():
            connection.close()

    def on_idle(self, connection: "Connection") -> None:
        connections = self._by_source[connection.source]
        del connections[connection]
        connections[connection] = None

    def on_close(self, connection: "Connection") -> None:
        connections = self._by_source[connection.source]
        del connections[connection]
        if not connections:
            del self._by_source[connection.source]
        self.connection_count -= 1

    def serve_later(self, connection: "Connection") -> None:
        """Have its next_round() called, behind all others that wait for theirs."""
        if not self._queue:
            self._loop.call_soon(self._serve_queue)
        self._queue.append(connection)

    def _serve_queue(self) -> None:
        # Those that are served now and have still more go to the end.
        served = [self._queue.popleft() for _ in range(min(len(self._queue), QUEUED_A_ROUND))]
        if self._queue:
            self._loop.call_soon(self._serve_queue)
        for connection in served:
            connection.next_round()

    def _connections(self) -> list["Connection"]:
        return [connection for connections in self._by_source.values() for connection in connections]

    def _on_connection(self) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                accepted, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    _log.warning("cannot accept a connection: %s", error)
                    self._loop.remove_reader(self._socket.fileno())
                    self._pause = self._loop.call_later(ACCEPT_PAUSE, self._accept_again)
                    return
                continue
            accepted.setblocking(False)
            self._take(accepted, address[0].partition("%")[0])

    def _accept_again(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket.fileno(), self._on_connection)

    def _take(self, accepted: socket.socket, host: str) -> None:
        packed = socket.inet_pton(accepted.family, host)
        source = bytes(10) + b"\xff\xff" + packed if len(packed) == 4 else packed
        if len(self._by_source.get(source, ())) >= CONNECTIONS_BY_SOURCE:
            next(iter(self._by_source[source])).close()
        elif self.connection_count >= CONNECTIONS_MAX:
            greediest = max(self._by_source.values(), key=len)
            next(iter(greediest)).close()
        connection = Connection(self._loop, accepted, source, self._responder, self._forwarder, self)
        self._by_source.setdefault(source, {})[connection] = None
        self.connection_count += 1
        if self._sweep is None:
            self._sweep = self._loop.call_later(SWEEP_SECONDS, self._on_sweep)

    def _on_sweep(self) -> None:
        now = self._loop.time()
        for connection in self._connections():
            if connection.deadline <= now:
                connection.close()
        self._sweep = self._loop.call_later(SWEEP_SECONDS, self._on_sweep) if self.connection_count else None


class Connection:
    """`deadline` is when it is closed, by the loop's clock, unless it goes on before."""

    def __init__(self, loop: EventLoop, accepted: socket.socket, source: bytes, responder: Responder,
                 forwarder: Forwarder | None, owner: TcpSocket) -> None:
        self.source = source
        self.deadline = loop.time() + IDLE_SECONDS
        self._loop = loop
        self._socket = accepted
        self._responder = responder
        self._forwarder = forwarder
        self._owner = owner
        self._input = bytearray()
        self._output = bytearray()
        self._forwarded = 0
        self._waiting = False   # in the owner's queue
        self._reading = False
        self._writing = False
        self._ended = False     # the client has sent its last
        self._closed = False
        self._read(True)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._read(False)
        self._write(False)
        self._socket.close()
        self._owner.on_close(self)

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(MESSAGE_MAX)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        self._input += data
        if not data:
            self._ended = True
            self._input.clear()
        self._go_on()

    def next_round(self) -> None:
        self._waiting = False
        if not self._closed:
            self._go_on()

    def _go_on(self) -> None:
        """Answer what is complete, as far as there is room and time; then see what to wait for."""
        if self._waiting:
            return
        answered = 0
        while (len(self._input) >= 2 and len(self._output) < OUTPUT_MAX and self._forwarded < FORWARDED_MAX):
            length = int.from_bytes(self._input[:2])
            if not 0 < length <= MESSAGE_MAX:
                self.close()
                return
            if len(self._input) < 2 + length:
                break
            if answered == ANSWERS_AT_ONCE:
                self._waiting = True
                self._owner.serve_later(self)
                break
            answered += 1
            packet = bytes(self._input[2:2 + length])
            del self._input[:2 + length]
            self.deadline = self._loop.time() + IDLE_SECONDS
            self._owner.on_idle(self)
            outcome = self._responder.respond_message(packet)
            if not isinstance(outcome, bytes):
                self._forward(outcome)
            elif outcome:
                self._output += len(outcome).to_bytes(2) + outcome
            else:
                self.close()    # what asks for no answer has no business here
                return
        self._flush()

    def _forward(self, query: Query) -> None:
        def on_answer(answer: bytes | None) -> None:
            if self._closed:
                return
            self._forwarded -= 1
            answer = self._responder.fail(query, Rcode.SERVFAIL) if answer is None else answer
            self._output += len(answer).to_bytes(2) + answer
            self.deadline = self._loop.time() + IDLE_SECONDS
            self._go_on()

        if self._forwarder is None or not self._forwarder.serves(self.source):
            refused = self._responder.fail(query, Rcode.REFUSED)
            self._output += len(refused).to_bytes(2) + refused
            return
        self._forwarded += 1
        if not self._forwarder.ask(query, True, on_answer):
            self._forwarded -= 1
            failed = self._responder.fail(query, Rcode.SERVFAIL)
            self._output += len(failed).to_bytes(2) + failed

    def _flush(self) -> None:
        if self._output:
            try:
                del self._output[:self._socket.send(self._output)]
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                self.close()
                return
        if self._ended and not self._output and not self._forwarded and not self._waiting:
            self.close()
            return
        self._write(bool(self._output))
        self._read(not self._ended and not self._waiting and len(self._output) < OUTPUT_MAX
                   and self._forwarded < FORWARDED_MAX)

    def _read(self, wanted: bool) -> None:
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._loop.add_reader(self._socket.fileno(), self._on_readable)
            else:
                self._loop.remove_reader(self._socket.fileno())

    def _write(self, wanted: bool) -> None:
        if wanted != self._writing:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self._socket.fileno(), self._go_on)
            else:
                self._loop.remove_writer(self._socket.fileno())
