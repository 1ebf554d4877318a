# SPDX-License-Identifier: MIT
"""A daemon under test: started, awaited as a service manager does (sd_notify(3)), stopped, killed, frozen."""

import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .processes import children, end, kill_all
from .waiting import wait_for

START_TIMEOUT = 20.0    # seconds; a start takes a fraction of one, but test machines are slow and shared
STOP_TIMEOUT = 10.0

Popen = Callable[..., "subprocess.Popen[bytes]"]


class Daemon:
    """Runs until `stop`, `kill9` or `close`. `popen` starts it; its output is kept for the messages of assertions."""

    def __init__(self, popen: Popen, argv: Sequence[str], env: Mapping[str, str], *, ready_timeout: float) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the daemon
        try:
            # a path, not an abstract name: those belong to a network namespace, and the daemon's is another
            with tempfile.TemporaryDirectory(prefix="lab-") as folder, \
                    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                path = str(Path(folder) / "notify")
                notify.bind(path)
                os.chmod(path, 0o666)
                os.chmod(folder, 0o711)
                self.process = popen(argv, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                                     env={**env, "NOTIFY_SOCKET": path})
                self._await_ready(notify, ready_timeout)
        except BaseException:
            if hasattr(self, "process"):
                end(self.process)
            self._log.close()
            raise

    def _await_ready(self, notify: socket.socket, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        pidfd = os.pidfd_open(self.process.pid)
        try:
            while True:
                left = max(0.0, deadline - time.monotonic())
                events = select.select([notify.fileno(), pidfd], [], [], left)[0]
                if notify.fileno() in events:
                    if b"READY=1" in notify.recv(65536).split(b"\n"):
                        return
                elif events:
                    raise AssertionError(f"the daemon ended with {self.process.wait()} instead of ready\n{self.log}")
                else:
                    raise AssertionError(f"the daemon was not ready within {timeout} s\n{self.log}")
        finally:
            os.close(pidfd)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """All that it wrote so far."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def expect_log(self, text: str, timeout: float = 10) -> None:
        wait_for(lambda: text in self.log, timeout, f"{text!r} in the daemon's log:\n{self.log}")

    def assert_alive(self) -> None:
        assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}\n{self.log}"

    def stop(self, timeout: float = STOP_TIMEOUT) -> int:
        """SIGTERM, as systemctl stop; returns the exit status."""
        self.process.terminate()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the daemon did not stop within {timeout} s\n{self.log}") from None

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def kill9(self) -> None:
        """SIGKILL. Its userdb process lives on, as it should."""
        self.process.kill()
        self.process.wait(STOP_TIMEOUT)

    def sigstop(self) -> None:
        """Frozen when this returns."""
        self.process.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self.pid}/stat")
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", what="the daemon to be stopped")

    def sigcont(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> str:
        """Ends it. Returns what was wrong with its end, now or earlier; nothing where all was well."""
        trouble = ""
        if self.process.poll() is None:
            self.sigcont()
            helpers = children(self.pid)
            try:
                self.stop()
            except AssertionError as error:
                trouble = str(error)
                end(self.process)
                kill_all(helpers)
        if not trouble and self.process.returncode not in (0, -signal.SIGKILL):
            trouble = f"the daemon ended with {self.process.returncode}\n{self.log}"
        self._log.close()
        return trouble
