# SPDX-License-Identifier: MIT
"""Where no service manager does it: keeps the userdb process running, and stops it with the daemon.

The userdb process is meant to outlive a killed daemon, since logins ask it. So a daemon that starts takes over the one
that is there, by the identity in its pid file, and starts one only where there is none.
"""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

from resolver.host.process import NoSuchProcess, Process

READY_SECONDS = 10.0
"""For the process to listen. Python starts in a fraction of that, also on a busy machine."""

STOP_SECONDS = 5.0
"""For the process to go after SIGTERM; then it is killed."""

RESTART_FIRST_SECONDS = 0.1
RESTART_LAST_SECONDS = 10.0
"""Pauses before a process that went is started again, doubling: a failure that stays must not fill the log."""

PID_FILE_MAX = 64
"""Two numbers."""

NOTIFY_MAX = 4096
"""sd_notify(3) messages are a few lines."""

_log = logging.getLogger(__name__)


class UserdbKeeper:
    """One userdb process, ours or a predecessor's."""

    def __init__(self, run_directory: str) -> None:
        self._pid_file = os.path.join(run_directory, "userdb.pid")
        self._notify_path = os.path.join(run_directory, "userdb.notify")
        self._process: Process | None = None
        self._gone = asyncio.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Have a process that listens, or have said in the log why not; from then on one that goes is replaced."""
        started = asyncio.Event()
        self._task = asyncio.create_task(self._keep(started))
        await started.wait()

    async def stop(self) -> None:
        """Stop the process in good order: it takes its socket away."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._process is None:
            return
        with suppress(NoSuchProcess):
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._gone.wait(), STOP_SECONDS)
        except TimeoutError:
            _log.error("The userdb process %d does not stop and is killed", self._process.pid)
            with suppress(NoSuchProcess):
                self._process.send_signal(signal.SIGKILL)
            await self._gone.wait()
        self._release()

    async def _keep(self, started: asyncio.Event) -> None:
        pause = RESTART_FIRST_SECONDS
        while True:
            process = self._running()
            if process is not None:
                self._hold(process)
            else:
                await self._spawn()
            started.set()
            if self._process is not None:
                began = time.monotonic()
                await self._gone.wait()
                self._release()
                if time.monotonic() - began > RESTART_LAST_SECONDS:
                    pause = RESTART_FIRST_SECONDS
                _log.warning("The userdb process has gone and is started again")
            await asyncio.sleep(pause)
            pause = min(pause * 2, RESTART_LAST_SECONDS)

    def _running(self) -> Process | None:
        try:
            with open(self._pid_file, encoding="ascii") as file:
                pid, start_time = (int(number) for number in file.read(PID_FILE_MAX).split())
            process = Process.open(pid)
        except (OSError, ValueError, NoSuchProcess):
            return None
        try:
            if process.start_time() == start_time:
                return process
        except NoSuchProcess:
            pass
        process.close()
        return None

    async def _spawn(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._notify_path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as ready:
            ready.bind(self._notify_path)
            try:
                # -I: nothing of the environment or the working directory decides which code runs as root. HOME: where
                # it is not set, Python's site module asks NSS for it. A session of its own: ^C in a terminal is the
                # daemon's, which stops it in order.
                self._child = subprocess.Popen(  # noqa: ASYNC220 - a fork, and waited for by its pidfd
                    [sys.executable, "-I", "-m", "resolver.userdb"], stdin=subprocess.DEVNULL, start_new_session=True,
                    env={"HOME": "/", **os.environ, "NOTIFY_SOCKET": self._notify_path})
                self._hold(Process.open(self._child.pid))
            except (OSError, NoSuchProcess) as error:
                _log.error("The userdb process cannot be started: %s", error)
            else:
                await self._until_ready(ready)
            finally:
                os.unlink(self._notify_path)

    async def _until_ready(self, ready: socket.socket) -> None:
        message = asyncio.create_task(asyncio.get_running_loop().sock_recv(ready, NOTIFY_MAX))
        gone = asyncio.create_task(self._gone.wait())
        try:
            await asyncio.wait([message, gone], timeout=READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not message.done() or b"READY=1" not in message.result():
                _log.error("The userdb process %s", "ended at once" if gone.done() else "is not ready in time")
        finally:
            message.cancel()
            gone.cancel()

    def _hold(self, process: Process) -> None:
        self._process = process
        self._gone.clear()
        asyncio.get_running_loop().add_reader(process, self._on_exit, process)

    def _on_exit(self, process: Process) -> None:
        asyncio.get_running_loop().remove_reader(process)
        self._gone.set()

    def _release(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None
        if self._child is not None:
            self._child.wait()  # it has exited: no waiting
            self._child = None
