# SPDX-License-Identifier: MIT
"""The processes that read guests' files (read.py): a few, each asked one thing at a time, killed at the deadline.

A new process for each request would cost 15 ms, which `machinectl list` pays for each machine; threads cannot be
killed; a fork of the daemon would fork its threads' locks. So a process that has answered is kept for the next one.

Fair: whoever waits is served in turn, and a guest that is slow loses its turn to the next, while it may go on. One
guest is read once at a time, however many ask. So a guest that hangs costs one process, and others 0.25 s of a turn.
"""

import asyncio
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from resolver.core.machine import ProcessId
from resolver.guest import read
from resolver.host.process import NoSuchProcess, Process

DEADLINE_SECONDS = 5.0
"""For an answer, waiting for a turn included. What is right takes a millisecond."""

TURNS = 4
"""Guests read at the same time, as long as each is quick: there is hardly anything to wait for but processors."""

TURN_SECONDS = 0.25
"""A turn's length: ten times what starting a process and reading from a disk take."""

READERS_MAX = 32
"""Processes in all, each with 9 MB, mostly shared. One more than hang; a kernel may hold one for ever (FUSE, NFS)."""

IDLE_SECONDS = 10.0
"""That a process without work stays: machinectl asks for one machine after the other."""

CLOSE_SECONDS = 1.0
"""For killed processes to go, when all ends."""

_ANSWER_MAX = read.OS_RELEASE_MAX + 1

_log = logging.getLogger(__name__)


class Readers:
    """Reads guests' files for one event loop."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(TURNS)
        self._all: set[_Reader] = set()
        self._idle: list[_Reader] = []
        self._idle_timer: asyncio.TimerHandle | None = None
        self._answers: dict[ProcessId, asyncio.Future[bytes]] = {}
        """Of guests that are being read, and of those whose reader cannot be killed: they get no second one."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def read(self, process: Process) -> bytes:
        """The answer in the form of read.py; "!" and why where there is none in time. NoSuchProcess.

        The process is not needed any more when this has begun to wait.
        """
        identity = process.identity()
        answer = self._answers.get(identity)
        if answer is None:
            answer = self._answers[identity] = asyncio.get_running_loop().create_future()
            task = asyncio.create_task(self._answer(process.pid, identity, answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        # One who gives up leaves the others waiting.
        return await asyncio.shield(answer)

    async def _answer(self, pid: int, identity: ProcessId, answer: asyncio.Future[bytes]) -> None:
        reader: _Reader | None = None
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                turn = await _Turn.take(self._turns)
                try:
                    reader = self._take()
                    answer.set_result(await reader.ask(pid))
                finally:
                    turn.end()
            self._put_back(reader)
        except (OSError, TimeoutError) as error:
            answer.set_result(b"!" + (str(error) or f"no answer within {DEADLINE_SECONDS:g} s").encode())
            if reader is not None:
                _log.info("The reader of process %d's os-release is killed: %s", pid, answer.result()[1:].decode())
                reader.kill()
                await reader.gone.wait()
        finally:
            del self._answers[identity]
            if not answer.done():
                answer.set_result(b"!the daemon stops")

    def _take(self) -> "_Reader":
        while self._idle:
            reader = self._idle.pop()
            if reader.alive():
                return reader
            reader.kill()
        if len(self._all) >= READERS_MAX:
            raise OSError(f"{READERS_MAX} guests do not answer, and no more are asked")
        reader = _Reader(self._on_gone)
        self._all.add(reader)
        return reader

    def _put_back(self, reader: "_Reader") -> None:
        self._idle.append(reader)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._idle_timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._stop_idle)

    def _stop_idle(self) -> None:
        while self._idle:
            self._idle.pop().kill()

    def _on_gone(self, reader: "_Reader") -> None:
        self._all.discard(reader)
        if reader in self._idle:
            self._idle.remove(reader)
            reader.kill()

    def close(self) -> None:
        """End all of it. Waits for CLOSE_SECONDS at most."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        for task in self._tasks:
            task.cancel()
        self._idle.clear()
        deadline = time.monotonic() + CLOSE_SECONDS
        for reader in list(self._all):
            reader.kill()
        for reader in list(self._all):
            reader.wait(max(0.0, deadline - time.monotonic()))


class _Turn:
    """One of the TURNS, for TURN_SECONDS at most."""

    def __init__(self, turns: asyncio.Semaphore) -> None:
        self._turns = turns
        self._ended = False
        self._timer = asyncio.get_running_loop().call_later(TURN_SECONDS, self.end)

    @classmethod
    async def take(cls, turns: asyncio.Semaphore) -> "_Turn":
        await turns.acquire()
        return cls(turns)

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self._timer.cancel()
            self._turns.release()


class _Reader:
    """One process. It has gone when the kernel says so, which after a kill need not be soon."""

    def __init__(self, on_gone: Callable[["_Reader"], object]) -> None:
        """OSError where it cannot be started."""
        self.gone = asyncio.Event()
        self._on_gone = on_gone
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        try:
            with theirs:
                # -I, and no environment: nothing decides which code runs as root. Not subprocess.Popen: that one
                # minds a process that is never reaped.
                pid = os.posix_spawn(sys.executable, [sys.executable, "-ISB", read.__file__, str(os.getpid())], {},
                                     setpgroup=0,  # ^C in a terminal is the daemon's
                                     file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)])
            self._process = _hold_child(pid)
        except BaseException:
            self._socket.close()
            raise
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._process, self._on_exit)

    async def ask(self, pid: int) -> bytes:
        """OSError where the process has ended. Whoever cancels this kills the reader: its next answer would be late."""
        self._socket.send(b"%d" % pid)
        answer = await self._loop.sock_recv(self._socket, _ANSWER_MAX)
        if not answer:
            raise OSError("the reader has ended")
        return answer

    def alive(self) -> bool:
        """Not so where somebody else has killed it: the kernel, short of memory."""
        return not self.gone.is_set() and not self._process.exited()

    def kill(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        with suppress(NoSuchProcess, ValueError):  # ValueError: it has gone
            self._process.send_signal(signal.SIGKILL)

    def wait(self, seconds: float) -> None:
        """For the end of a killed one; blocks."""
        if self.gone.is_set():
            return
        poll = select.poll()
        poll.register(self._process.fileno(), select.POLLIN)
        poll.poll(seconds * 1000)
        self._on_exit()

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._process)
        with suppress(ChildProcessError):
            os.waitpid(self._process.pid, os.WNOHANG)
        self._process.close()
        self._on_gone(self)
        self.gone.set()


def _hold_child(pid: int) -> Process:
    try:
        return Process.open(pid)
    except (OSError, NoSuchProcess) as error:
        os.kill(pid, signal.SIGKILL)  # ours, and not waited for: the number is still its own
        os.waitpid(pid, 0)
        raise OSError(f"the reader cannot be held: {error}") from None
