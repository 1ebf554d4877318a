# SPDX-License-Identifier: MIT
"""A server for tests, and a client that sends and expects exactly what a test says."""

import array
import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from typing import Any, Self

from resolver.core.errors import InvalidArgument, NoSuchMachine
from resolver.varlink.call import Call, Pause, Reply
from resolver.varlink.interface import Interface
from resolver.varlink.loop import EpollLoop
from resolver.varlink.server import Limits, Server
from resolver.varlink.service import Service

PATIENCE = 10.0
"""Seconds that a test waits for what takes milliseconds."""

INTERFACE = Interface("""
interface org.example.test

method Echo(text: string) -> (text: string)
method Count(to: int, pad: ?int) -> (number: int, pad: ?string)
method CountThenFail(to: int) -> (number: int)
method Subscribe() -> (number: int)
method Follow() -> (number: int)
method Note(text: string) -> ()
method Descriptor(count: int) -> (descriptor: int)
method Who() -> (uid: int, pid: int, same: bool)
method Big(size: int) -> (pad: string)
method Bug(errno: ?int) -> ()
method Unlike() -> (number: int)
method Nothing() -> (number: int)
method Missing() -> ()
method NoMachine() -> ()
method Refuse(field: string) -> ()

method SlowEcho(text: string, wait: bool) -> (text: string)
method SlowCount(to: int) -> (number: int)
method SlowFail() -> ()
method Tick() -> (number: int)
""")


class Handlers:
    """Answers at once, as functions and generators."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.ended = threading.Event()
        self.yielded = 0
        self.paused: set[Callable[[], object]] = set()

    def do_echo(self, call: Call) -> dict[str, Any]:
        return {"text": call.parameters["text"]}

    def do_count(self, call: Call) -> Iterator[dict[str, Any]]:
        try:
            for number in range(call.parameters["to"]):
                self.yielded += 1
                yield {"number": number, "pad": "x" * call.parameters.get("pad", 0)}
        finally:
            self.ended.set()

    def do_count_then_fail(self, call: Call) -> Iterator[dict[str, Any]]:
        for number in range(call.parameters["to"]):
            yield {"number": number}
        raise NoSuchMachine("none left")

    def do_subscribe(self, _call: Call) -> Iterator[Reply]:
        yield Reply({"number": 0}, continues=True)
        yield Reply({"number": 1}, continues=True)

    def do_follow(self, _call: Call) -> Iterator[Reply | Pause]:
        """One reply at once, one each time that what is in `paused` is called."""
        pause = Pause(self.paused.add, self.paused.discard)
        for number in count():
            yield Reply({"number": number}, continues=True)
            yield pause

    def do_note(self, call: Call) -> None:
        self.notes.append(call.parameters["text"])

    def do_descriptor(self, call: Call) -> Reply:
        """As many files as asked for, each a pipe's reading end with a byte in it."""
        return Reply({"descriptor": 0}, tuple(_pipe_with(b"%d" % n) for n in range(call.parameters["count"])))

    def do_who(self, call: Call) -> dict[str, Any]:
        pidfd = call.caller.pidfd
        same = pidfd is not None and f"Pid:\t{call.caller.pid}\n" in _read(f"/proc/self/fdinfo/{pidfd}")
        return {"uid": call.caller.uid, "pid": call.caller.pid, "same": same}

    def do_big(self, call: Call) -> dict[str, Any]:
        return {"pad": "x" * call.parameters["size"]}

    def do_bug(self, call: Call) -> None:
        number = call.parameters.get("errno")
        raise OSError(number, "on purpose") if number else ZeroDivisionError("on purpose")

    def do_unlike(self, _call: Call) -> dict[str, Any]:
        return {"number": "one"}

    def do_nothing(self, _call: Call) -> Iterator[dict[str, Any]]:
        yield from ()

    def do_no_machine(self, _call: Call) -> None:
        raise NoSuchMachine("nobody by that name")

    def do_refuse(self, call: Call) -> None:
        raise InvalidArgument(call.parameters["field"], "on purpose")


class SlowHandlers(Handlers):
    """Some that await: for asyncio alone."""

    def __init__(self) -> None:
        super().__init__()
        self.proceed = threading.Event()
        self.waiting = threading.Event()

    async def _until_told(self) -> None:
        self.waiting.set()
        while not self.proceed.is_set():  # noqa: ASYNC110 - it is set by another thread
            await asyncio.sleep(0.001)

    async def do_slow_echo(self, call: Call) -> dict[str, Any]:
        if call.parameters["wait"]:
            await self._until_told()
        await asyncio.sleep(0)
        self.notes.append(call.parameters["text"])
        return {"text": call.parameters["text"]}

    async def do_slow_count(self, call: Call) -> AsyncIterator[dict[str, Any]]:
        for number in range(call.parameters["to"]):
            await asyncio.sleep(0)
            yield {"number": number}

    async def do_slow_fail(self, _call: Call) -> dict[str, Any]:
        await asyncio.sleep(0)
        raise NoSuchMachine("nobody")

    async def do_tick(self, _call: Call) -> AsyncIterator[Reply]:
        """One reply at once, the next when told, then none ever."""
        try:
            yield Reply({"number": 0}, continues=True)
            await self._until_told()
            yield Reply({"number": 1}, continues=True)
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended.set()


class Running:
    """A server on a thread of its own, until stop()."""

    def __init__(self, loop_kind: str, path: str, limits: Limits = Limits(), listener_fd: int | None = None) -> None:  # noqa: B008
        self.path = path
        self.handlers = SlowHandlers() if loop_kind == "asyncio" else Handlers()
        self._limits = limits
        self._listener_fd = listener_fd
        self._stop, self._stop_write = os.pipe()
        self._wake = os.eventfd(0)
        self._callbacks: list[Callable[[], object]] = []
        self._started = threading.Event()
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(loop_kind,))
        self._thread.start()
        assert self._started.wait(PATIENCE)
        if self._errors:
            self.stop()

    def stop(self) -> None:
        """Raises what went wrong on the thread, if anything did."""
        if self._stop_write >= 0:
            os.close(self._stop_write)
            self._stop_write = -1
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive()
            os.close(self._stop)
            os.close(self._wake)
        if self._errors:
            raise self._errors.pop()

    def in_loop(self, callback: Callable[[], object]) -> None:
        """Have the server's thread call it."""
        self._callbacks.append(callback)
        os.eventfd_write(self._wake, 1)

    def call(self, method: str, parameters: dict[str, Any] | None = None, **flags: bool) -> dict[str, Any]:
        """One call on a connection of its own; the whole reply."""
        with Dialogue(self.path) as client:
            client.send_call(method, parameters, **flags)
            reply: dict[str, Any] = client.receive()
            return reply

    def _run(self, loop_kind: str) -> None:
        try:
            if loop_kind == "asyncio":
                asyncio.run(self._run_asyncio())
            else:
                self._run_epoll()
        except BaseException as error:  # noqa: BLE001 - stop() raises it
            self._errors.append(error)
        finally:
            self._started.set()

    def _serve(self, loop: Any) -> Server:
        service = Service("vendor", "product", "1", "https://example.org", [INTERFACE], {INTERFACE.name: self.handlers})
        if self._listener_fd is not None:
            self.server = Server.at_fd(loop, service, self._listener_fd, self._limits)
        else:
            self.server = Server.at_path(loop, service, self.path, self._limits)
        loop.add_reader(self._wake, self._call_back)
        self._started.set()
        return self.server

    def _call_back(self) -> None:
        os.eventfd_read(self._wake)
        self._callbacks.pop()()

    def _run_epoll(self) -> None:
        loop = EpollLoop()
        try:
            server = self._serve(loop)
            loop.add_reader(self._stop, loop.stop)
            loop.run()
            server.close()
        finally:
            loop.close()

    async def _run_asyncio(self) -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        errors: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _loop, context: errors.append(context))
        server = self._serve(loop)
        loop.add_reader(self._stop, stop.set)
        await stop.wait()
        loop.remove_reader(self._stop)
        loop.remove_reader(self._wake)
        server.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            _done, pending = await asyncio.wait(left, timeout=PATIENCE)
            assert not pending, pending
        assert not errors, errors


class Dialogue:
    """A connection on which a test says each byte."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        try:
            self.sock.connect(path)
        except BaseException:
            self.sock.close()
            raise
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_call(self, method: str, parameters: dict[str, Any] | None = None, **flags: bool) -> None:
        self.send(message(method, parameters, **flags))

    def receive(self) -> Any:
        """The next message; EOFError where the server has closed."""
        while b"\0" not in self._buffer:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self._buffer += data
        first, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(first)

    def receive_fds(self) -> tuple[Any, list[int]]:
        data, fds, _flags, _address = socket.recv_fds(self.sock, 65536, 64)
        self._buffer += data
        return self.receive(), fds

    def closed_after(self) -> float:
        """Seconds until the server closes without saying anything."""
        begin = time.monotonic()
        try:
            assert self.sock.recv(1) == b""
        except ConnectionResetError:
            pass  # closed with something unread
        return time.monotonic() - begin


def message(method: str, parameters: dict[str, Any] | None = None, **flags: bool) -> bytes:
    name = method if "." in method else f"{INTERFACE.name}.{method}"
    return json.dumps({"method": name, "parameters": parameters or {}, **flags}).encode() + b"\0"


def rights(fds: list[int]) -> list[tuple[int, int, bytes]]:
    """The control message that passes descriptors (unix(7))."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())]


def _pipe_with(data: bytes) -> int:
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return reading


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()
