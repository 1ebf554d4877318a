# SPDX-License-Identifier: MIT
"""One client's connection: its calls are answered in order, one at a time.

    reading --a call is complete--> busy --its last reply has left--> reading, or busy with the next call

Busy, nothing is read: what a client has sent too much waits in the kernel, and the client with it. A reply that the
socket does not take at once is kept, and the handler is not asked for the next before it has gone. So a connection
holds one unfinished message and one reply. Calls that came together are answered a round of the loop apart, so that
the client that sends a thousand of them waits, and not all others.

A call that has arrived is carried out even if the caller is gone by then: a oneway caller closes at once. What yields
reply after reply ends with its caller.
"""

import array
import logging
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from types import CoroutineType, ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from resolver.varlink.call import Call, Pause, Reply, as_reply
from resolver.varlink.codec import Decoder, ProtocolError, parse_call
from resolver.varlink.errors import VarlinkError
from resolver.varlink.loop import EventLoop
from resolver.varlink.peer import Peer, hung_up
from resolver.varlink.replies import Continued, Replies
from resolver.varlink.service import Service

if TYPE_CHECKING:
    from asyncio import Task

_log = logging.getLogger(__name__)

READ_SIZE = 16 * 1024
"""Bytes to read at once: several times the usual call. A longer one takes some more turns."""


class Owner(Protocol):
    """Who has the connections."""

    def on_idle(self, connection: "Connection", /) -> None:
        """It has been served, and waits for the next call."""

    def on_close(self, connection: "Connection", /) -> None: ...

    def begin_stream(self, connection: "Connection", /) -> bool:
        """Whether its user may have one more reply after reply now; else go_on() is called when he may."""

    def end_stream(self, connection: "Connection", /) -> None:
        """The one that has begun, or waits to."""


class Connection:
    """`deadline` is a time of the loop's clock, or None; the connection's owner calls check() about each second. The
    socket is left as accept(2) gives it, and each read and write says that it does not wait: a system call less."""

    def __init__(self, loop: EventLoop, sock: socket.socket, peer: Peer, service: Service, input_seconds: float,
                 output_seconds: float, owner: Owner) -> None:
        self.peer = peer
        self.busy = False
        self.closed = False
        self.deadline: float | None = loop.time() + input_seconds
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._service = service
        self._input_seconds = input_seconds
        self._output_seconds = output_seconds
        self._owner = owner
        self._decoder = Decoder()
        self._reading = True
        self._call: Call | None = None
        self._question: bytes | None = None  # the call's bytes, where its reply may be kept for who asks the same
        self._waiting: Any = None  # what a handler would yield, when it is this user's turn
        self._streams = False
        self._stream: tuple[Iterator[Any], Replies] | None = None
        self._pause: Pause | None = None
        self._task: Task[None] | None = None
        self._output: deque[tuple[bytes | memoryview, tuple[int, ...]]] = deque()
        self._when_sent: Callable[[], object] | None = None
        loop.add_reader(self._fd, self.on_readable)

    def check(self, now: float) -> None:
        """Close where a deadline has passed, or where nobody is left to read what a handler still yields."""
        if self.deadline is not None and self.deadline <= now:
            _log.info("closing the connection of pid %d, uid %d: %s", self.peer.pid, self.peer.uid, self._why_late())
            self.close()
        elif self._is_given_up():
            self.close()

    def _why_late(self) -> str:
        if self._waiting is not None:
            return "others of this user listen, too many of them"
        return "it does not read its replies" if self._output else "its message does not end"

    def _is_given_up(self) -> bool:
        call = self._call if self.busy else None
        return call is not None and self._service.ends_with_caller(call) and hung_up(self._sock)

    def close(self) -> None:
        """At once; a handler that yields or awaits is stopped."""
        if self.closed:
            return
        self.closed = True
        if self._reading:
            self._loop.remove_reader(self._fd)
        if self._output:
            self._loop.remove_writer(self._fd)
            for _, fds in self._output:
                _close_all(fds)
            self._output.clear()
        if self._stream is not None:
            self._stop_stream()
        if self._task is not None:
            self._task.cancel()
        self._end_stream()
        self.peer.close()
        self._sock.close()
        self._owner.on_close(self)

    def on_readable(self) -> None:
        """Read once, and answer the first call where that completes it."""
        if self.busy:
            self._loop.remove_reader(self._fd)
            self._reading = False
            return
        try:
            # Without a buffer for control messages, the kernel drops descriptors that come along before they are ours:
            # they take none of our numbers, and no close(2) of ours can block on a hostile file system's flush.
            data = self._sock.recv(READ_SIZE, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if not data:
            if self._decoder.unfinished:
                _log.info("pid %d, uid %d: closed in the middle of a message", self.peer.pid, self.peer.uid)
            self.close()
            return
        known = self._service.known
        if known is not None and not self._decoder.unfinished:
            if (reply := known.get(data)) is not None:
                self._answer(reply)
                return
            if data.find(b"\0") == len(data) - 1:
                self._question = data
        self._decoder.feed(data)
        self._next_call()

    def _answer(self, reply: bytes) -> None:
        """Send what was known, the shortest way: a client that is still falling asleep wakes ten microseconds sooner
        than one that sleeps. What does not leave at once, or fails, goes the way of all replies.
        """
        try:
            sent = self._sock.send(reply, socket.MSG_DONTWAIT)
        except OSError:
            sent = 0
        self.deadline = None
        if sent == len(reply):
            self._owner.on_idle(self)
            return
        self.busy = True
        if self._send(memoryview(reply)[sent:], (), self._finish):
            self._finish()

    def _keep(self, reply: bytes) -> None:
        if self._service.known is not None and self._question is not None:
            self._service.known.keep(self._question, reply)

    def _next_call(self) -> None:
        if self.closed:
            return
        try:
            message = self._decoder.next_message()
            if message is None:
                self._read_on()
                return
            call = parse_call(message, self.peer)
        except ProtocolError as error:
            _log.info("pid %d, uid %d: protocol error: %s", self.peer.pid, self.peer.uid, error)
            self.close()
            return
        self.busy = True
        self.deadline = None
        self._call = call
        try:
            result = self._service.start(call)
        except Exception as error:  # noqa: BLE001 - whatever a handler does, its caller gets a reply
            self.fail(error)
            return
        if call.more and isinstance(result, (Iterator, AsyncIterator)):
            self._streams = True
            if not self._owner.begin_stream(self):
                self._waiting = result
                self.deadline = self._loop.time() + self._output_seconds
                return
        self._take_result(call, result)

    def go_on(self) -> None:
        """It is this one's turn to stream, if it is still there."""
        if self._waiting is None:
            return
        result, self._waiting, self.deadline = self._waiting, None, None
        self._take_result(self._current_call(), result)

    def _end_stream(self) -> None:
        if self._streams:
            self._streams, self._waiting = False, None
            self._owner.end_stream(self)

    def _take_result(self, call: Call, result: Any) -> None:
        if result is None or isinstance(result, (dict, Reply)):
            self.reply(as_reply(result))
        elif isinstance(result, CoroutineType):  # most are: abstract classes, as below, take longer to tell
            self._task = _tasks().start(_tasks().single(self, call, result))
        elif isinstance(result, Iterator):
            self._stream = (result, Replies(call))
            self._next_reply()
        else:
            replies = _tasks().stream if isinstance(result, AsyncIterator) else _tasks().single
            self._task = _tasks().start(replies(self, call, result))

    def _read_on(self) -> None:
        self.busy = False
        if self._decoder.unfinished:
            # Counted from the message's first bytes on: who sends one byte a minute does not gain time by each.
            self.deadline = self.deadline or self._loop.time() + self._input_seconds
        if not self._reading:
            self._loop.add_reader(self._fd, self.on_readable)
            self._reading = True

    def reply(self, reply: Reply) -> None:
        """Send the last, or only, reply of the call, and go on."""
        if self.send(reply, False, self._finish):
            self._finish()

    def fail(self, error: Exception) -> None:
        """Send the error that is the last reply of the call, and go on."""
        call = self._current_call()
        data = self._service.encode_error(call, error)
        if isinstance(error, VarlinkError) and not call.oneway:
            self._keep(data)
        if call.oneway or self._send(data, (), self._finish):
            self._finish()

    def send(self, reply: Reply, continues: bool, when_sent: Callable[[], object]) -> bool:
        """Send a reply. False where it has to wait: `when_sent` is called when it has left, if ever.

        A reply that the interface does not allow becomes an error reply.
        """
        call = self._current_call()
        try:
            data = self._service.encode_reply(call, reply, continues)
        except Exception as error:
            # What the interface does not allow, or what JSON cannot say: the handler is wrong.
            _close_all(reply.fds)
            if continues:
                raise
            data, reply, self._question = self._service.encode_error(call, error), Reply({}), None
        if call.oneway:
            _close_all(reply.fds)
            return True
        if not (continues or call.more or reply.fds):
            self._keep(data)
        return self._send(data, reply.fds, when_sent)

    def _current_call(self) -> Call:
        assert self._call is not None
        return self._call

    def _finish(self) -> None:
        if self.closed:
            return
        self._call = self._task = self._question = None
        if self._stream is not None:
            self._stop_stream()
        self._end_stream()
        if self._decoder.waiting:
            self._loop.call_soon(self._next_call)
        else:
            self._read_on()
            self._owner.on_idle(self)

    def _next_reply(self) -> None:
        """Let the generator yield once, and send what can be sent by then."""
        if self._stream is None or self.closed:
            return
        iterator, replies = self._stream
        last, self._pause = False, None
        try:
            try:
                item = next(iterator)
                if isinstance(item, Pause):
                    self._pause = item
                    item.call_once(self._next_reply)
                    return
                ready = replies.next(item)
            except StopIteration:
                ready, last = replies.end(), True
        except Exception as error:  # noqa: BLE001 - as above
            self._fail_stream(replies, error)
            return
        if last and not ready:
            self.close()
        elif last:
            self.reply(ready[0][0])
        else:
            self._send_ready(ready)

    def _send_ready(self, ready: list[Continued]) -> None:
        sent = True
        try:
            for reply, continues in ready:
                sent = self.send(reply, continues, self._next_reply)
        except Exception as error:  # noqa: BLE001 - as above
            self.fail(error)
            return
        if sent:
            self._loop.call_soon(self._next_reply)

    def _fail_stream(self, replies: Replies, error: Exception) -> None:
        try:
            for reply, continues in replies.failed():
                self.send(reply, continues, _nothing)
        except Exception as worse:  # noqa: BLE001 - as above
            error = worse
        self.fail(error)

    def _stop_stream(self) -> None:
        assert self._stream is not None
        (iterator, _), self._stream = self._stream, None
        if self._pause is not None:
            self._pause.forget(self._next_reply)
            self._pause = None
        close = getattr(iterator, "close", None)
        if close is not None:
            try:
                close()
            except Exception:  # noqa: BLE001 - the connection goes on
                _log.exception("a generator does not close")

    def _send(self, data: bytes | memoryview, fds: tuple[int, ...], when_sent: Callable[[], object]) -> bool:
        if self.closed:
            _close_all(fds)
            return False
        if not self._output:
            try:
                sent = self._write(data, fds)
            except OSError as error:
                _log.debug("pid %d, uid %d: %s", self.peer.pid, self.peer.uid, error)
                _close_all(fds)
                self.close()
                return False
            if sent:
                _close_all(fds)
                if sent == len(data):
                    return True
                data, fds = memoryview(data)[sent:], ()
            self._loop.add_writer(self._fd, self._on_writable)
            self.deadline = self._loop.time() + self._output_seconds
        self._output.append((data, fds))
        self._when_sent = when_sent
        return False

    def _write(self, data: bytes | memoryview, fds: tuple[int, ...]) -> int:
        try:
            if fds:
                rights = array.array("i", fds)
                return self._sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)],
                                          socket.MSG_DONTWAIT)
            return self._sock.send(data, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return 0

    def _on_writable(self) -> None:
        data, fds = self._output[0]
        try:
            sent = self._write(data, fds)
        except OSError:
            self.close()
            return
        if sent:
            _close_all(fds)
            self._output.popleft()
            if sent < len(data):
                self._output.appendleft((memoryview(data)[sent:], ()))
        if not self._output:
            self.deadline = None
            self._loop.remove_writer(self._fd)
            when_sent, self._when_sent = self._when_sent, None
            if when_sent is not None:
                when_sent()


@cache
def _tasks() -> ModuleType:
    """Imported late: a process whose handlers all answer at once has no need of asyncio."""
    from resolver.varlink import tasks

    return tasks


def _close_all(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


def _nothing() -> None:
    pass
