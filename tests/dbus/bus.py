# SPDX-License-Identifier: MIT
"""A bus of the test's own: a real dbus-daemon on a socket of its own, where everybody may do everything."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tests.lab import Unavailable
from tests.lab.waiting import wait_for

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/> <allow own="*"/> <allow send_destination="*"/> <allow receive_sender="*"/>
  </policy>
</busconfig>
"""


class Bus:
    """A context manager that starts it. Its folder is short, for a socket's path has 107 octets, and everybody's."""

    def __init__(self) -> None:
        if shutil.which("dbus-daemon") is None:
            raise Unavailable("no dbus-daemon")
        self.folder = Path(tempfile.mkdtemp(prefix="mymachines-bus-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.socket = self.folder / "bus"
        self.address = f"unix:path={self.socket}"
        self._config = self.folder / "bus.conf"
        self._config.write_text(CONFIG.format(socket=self.socket))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Starts it."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["dbus-daemon", f"--config-file={self._config}", "--nofork", "--nopidfile", "--nosyslog"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self._answers, what="dbus-daemon")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.socket.unlink(missing_ok=True)

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def busctl(self, *arguments: str, uid: int | None = None) -> "subprocess.CompletedProcess[str]":
        """busctl on this bus; as another user where root says which."""
        if shutil.which("busctl") is None:
            raise Unavailable("no busctl")
        prefix = [] if uid is None else ["setpriv", f"--reuid={uid}", "--clear-groups"]
        return subprocess.run([*prefix, "busctl", f"--address={self.address}", *arguments], capture_output=True,
                              text=True, timeout=20, env={**os.environ, "PAGER": "cat"}, cwd="/")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(self.socket))
            except OSError:
                return False
            return True
