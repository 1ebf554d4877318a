# SPDX-License-Identifier: MIT
"""The daemon's side: start a worker, ask it, wait, end it.

A worker may meet what a guest has laid out for it, and hang. So it is waited for with a deadline, and then killed with
its children. One that the kernel does not let die (a file system that does not answer) is left behind, and counts.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from resolver.core import errors
from resolver.core.errors import InvalidArgument, MachineError, NotAvailable
from resolver.host.process import NoSuchProcess, Process
from resolver.worker import packets

WORKERS_MAX = 64
"""At the same time, each with some 12 MB. Beyond, requests are refused: nobody fills the host's memory with them."""

TIDY_SECONDS = 5.0
"""For a worker to tidy up when its work is not wanted any more; then it is killed."""

_ERRORS: Mapping[str, type[MachineError]] = {
    kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MachineError)}

_log = logging.getLogger(__name__)


class Result(NamedTuple):
    """What a worker gave. The descriptors are the receiver's to close."""

    fields: dict[str, Any]
    descriptors: list[int]


class Workers:
    """Starts them for one event loop. To be closed."""

    def __init__(self, maximum: int = WORKERS_MAX, errors: Iterable[type[MachineError]] = ()) -> None:
        """`maximum` run at the same time. `errors`: what they may answer besides those of resolver.core.errors."""
        self._maximum = maximum
        self._errors = {**_ERRORS, **{kind.__name__: kind for kind in errors}}
        self._running: set[_Worker] = set()
        self._ending: set[asyncio.Task[None]] = set()

    async def run(self, program: Sequence[str], request: Mapping[str, Any], descriptors: Sequence[int] = (), *,
                  patience: float, on_progress: Callable[[dict[str, Any]], None] | None = None) -> Result:
        """Have a program of ours do what is asked: `program` is what Python is told to run, ("-m", MODULE).

        `descriptors` go with the request, and stay the caller's.
        Any MachineError, as the worker says; NotAvailable where it says nothing for `patience` seconds, where it ends
        without an answer, or where the most are at work. Cancelled, it has the worker tidy up and end.
        """
        if len(self._running) >= self._maximum:
            raise NotAvailable(f"{self._maximum} requests of this kind are under way, and no more are taken")
        try:
            worker = _Worker(program)
        except OSError as error:
            raise NotAvailable(f"no process can be started for it: {error}") from None
        self._running.add(worker)
        told_to_stop = True
        try:
            worker.send(request, descriptors)
            while True:
                try:
                    async with asyncio.timeout(patience):
                        message, given = await worker.receive()
                except TimeoutError:
                    told_to_stop = False  # it hangs: nothing is to be waited for
                    raise NotAvailable(f"no answer within {patience:g} s") from None
                if "result" in message:
                    return Result(message["result"], given)
                packets.close_all(given)
                if "error" in message:
                    raise self._error(message)
                if on_progress is not None:
                    on_progress(message["progress"])
        except OSError as error:
            raise NotAvailable(str(error)) from None
        finally:
            ending = asyncio.create_task(self._end(worker, told_to_stop))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Wait until all have ended, TIDY_SECONDS and a little at the most. What ran was cancelled before."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=TIDY_SECONDS + 1)

    def _error(self, message: Mapping[str, Any]) -> MachineError:
        kind = self._errors.get(message["error"], NotAvailable)
        text = message["text"]
        if kind is InvalidArgument:
            field = message.get("field", "")
            return InvalidArgument(field, text.removeprefix(f"{field}: "))
        return kind(text)

    async def _end(self, worker: "_Worker", tidily: bool) -> None:
        try:
            await worker.end(tidily)
        finally:
            self._running.discard(worker)


class _Worker:
    """One process, the leader of a process group of its own."""

    def __init__(self, program: Sequence[str]) -> None:
        """OSError where it cannot be started."""
        self._loop = asyncio.get_running_loop()
        self._gone = asyncio.Event()
        self._program = program[-1]
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        try:
            with theirs:
                # -I, and next to no environment: nothing decides which code runs as root.
                pid = os.posix_spawn(
                    sys.executable, [sys.executable, "-IB", *program, str(os.getpid())],
                    {"HOME": "/", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}, setpgroup=0,
                    setsigmask=(), file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)])
            try:
                self._process = Process.open(pid)
            except (OSError, NoSuchProcess) as error:
                os.kill(pid, signal.SIGKILL)  # ours, and not waited for: the number is still its own
                os.waitpid(pid, 0)
                raise OSError(f"the process cannot be held: {error}") from None
        except BaseException:
            self._socket.close()
            raise
        self._loop.add_reader(self._process, self._on_exit)

    def send(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """OSError where the request is too long for one packet, or the process has ended."""
        packets.send(self._socket, request, descriptors)

    async def receive(self) -> tuple[dict[str, Any], list[int]]:
        """The next message, with its descriptors. OSError where the process has ended."""
        while True:
            try:
                received = packets.receive(self._socket)
            except BlockingIOError:
                await self._readable()
                continue
            if received is None:
                raise OSError(f"{self._program} has ended without an answer")
            return received

    async def _readable(self) -> None:
        readable = asyncio.Event()
        self._loop.add_reader(self._socket, readable.set)
        try:
            await readable.wait()
        finally:
            self._loop.remove_reader(self._socket)

    async def end(self, tidily: bool) -> None:
        """Returns when the process has gone, however long the kernel holds it."""
        if tidily:
            # Before it finds its socket closed, and begins to tidy up for that: a signal would stop it then.
            self._signal(signal.SIGTERM)
        self._socket.close()
        if tidily:
            with suppress(TimeoutError):
                async with asyncio.timeout(TIDY_SECONDS):
                    await self._gone.wait()
        self._signal(signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # not reaped yet: the number is its group's alone
        try:
            async with asyncio.timeout(TIDY_SECONDS):
                await self._gone.wait()
        except TimeoutError:
            _log.warning("%s (process %d) was killed and does not end", self._program, self._process.pid)
            await self._gone.wait()
        self._reap()

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            os.waitpid(self._process.pid, os.WNOHANG)
        self._process.close()

    def _signal(self, number: int) -> None:
        with suppress(NoSuchProcess):
            self._process.send_signal(number)

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._process)
        self._gone.set()

