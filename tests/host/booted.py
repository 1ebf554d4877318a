# SPDX-License-Identifier: MIT
"""A Debian 13 host, booted in a container, with the project installed in it as README.md says.

It has systemd 257 as PID 1, a network of its own without a way out, and a control group tree of its own: what it starts
and kills is inside. Nothing of it is registered on this machine.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.lab import PROJECT, wait_for
from tests.lab.processes import children, end

from .groups import Groups
from .root import CACHE, FIRMLY_SET, SOURCES, remove_tree, run_in, step, whole_root

BOOT_SECONDS = 90       # takes two; a machine without a free processor takes longer
POWEROFF_SECONDS = 30
RUN_SECONDS = 20        # of one command, unless the test knows better

NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "*.so", "__pycache__", ".*_cache",
                                    ".hypothesis")
NSSWITCH = """\
passwd: files mymachines systemd
group: files mymachines systemd
shadow: files
hosts: files mymachines dns
"""
USER, USER_ID = "alice", 1000

FOR_PROGRAMS = {"SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0", "COLUMNS": "200"}
"""Systemd's clients write as for a script, and cut nothing."""

AGAINST_MACHINED = "MYMACHINES_TEST_MACHINED" in os.environ
"""To see whether tests expect what clients get of systemd-machined: leave its place to it."""


class BootedHost:
    """A context manager: copies the tree, installs, boots; in the end powers off and removes the copy."""

    KIND = ""
    """Which of a run's hosts; begins with a dot."""

    def __init__(self) -> None:
        self._name = f"{os.getpid()}{self.KIND}"
        self.root = CACHE / f"host-{self._name}"
        self._console = CACHE / f"console{self.KIND}.log"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._groups: Groups | None = None
        self.pid = 0

    def __enter__(self) -> Self:
        base = self.base_tree()
        for old in CACHE.glob("host-*"):
            if not Path("/proc", old.name.removeprefix("host-").partition(".")[0]).exists():
                remove_tree(old)
        try:
            step(["cp", "-a", "--reflink=auto", str(base), str(self.root)])
            self.install()
            self._boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.close()

    def base_tree(self) -> Path:
        return whole_root()

    def install(self) -> None:
        """Into the copy, before it is booted."""
        shutil.copytree(PROJECT, self.root / SOURCES, ignore=NOT_COPIED, symlinks=True)
        run_in(self.root, "make", "--silent", "install", cwd=f"/{SOURCES}")
        run_in(self.root, "useradd", "--create-home", f"--uid={USER_ID}", "--shell=/bin/bash", USER)
        (self.root / "etc/nsswitch.conf").write_text(NSSWITCH)

    def _boot(self) -> None:
        groups = self._groups = Groups(self._name)
        with self._console.open("wb") as console:
            self._nspawn = subprocess.Popen(
                [*groups.enter(), "setpriv", "--pdeathsig=KILL", "systemd-nspawn", "--quiet", "--boot",
                 f"--directory={self.root}",
                 f"--machine=mymachines-test-{self._name}", "--register=no", "--keep-unit", "--private-network",
                 "--capability=all", "--console=pipe"],
                stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, start_new_session=True,
                env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"})
        self.pid = wait_for(self._leader, BOOT_SECONDS, "the host's PID 1")
        wait_for(lambda: self.run(["systemctl", "is-system-running"], check=False).stdout.strip() in (
            "running", "degraded"), BOOT_SECONDS, "the host to be up")

    def _leader(self) -> int:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, f"the host did not boot:\n{self._console.read_text()[-3000:]}"
        for pid in children(self._nspawn.pid):
            words = next((line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                          if line.startswith("NSpid:")), [])
            if len(words) > 2 and words[-1] == "1":
                return pid
        return 0

    def close(self) -> None:
        if self._nspawn is not None:
            if self.pid and self._nspawn.poll() is None:
                os.kill(self.pid, signal.SIGRTMIN + 4)      # systemd(1): power off
                try:
                    self._nspawn.wait(POWEROFF_SECONDS)
                except subprocess.TimeoutExpired:
                    pass
            end(self._nspawn)
        if self._groups is not None:
            self._groups.remove()
        remove_tree(self.root)

    # --- commands ---

    def words(self, argv: Sequence[str | Path] | str, uid: int = 0) -> list[str]:
        """What runs a command inside; a str is a shell script. It dies with who started it."""
        command = ["sh", "-c", argv] if isinstance(argv, str) else list(map(str, argv))
        variables = [f"{key}={value}" for key, value in {**FIRMLY_SET, **FOR_PROGRAMS}.items()]
        drop = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
        return ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
                "setpriv", "--pdeathsig=KILL", *drop, "env", "-i", *variables, *command]

    def run(self, argv: Sequence[str | Path] | str, *, check: bool = True, timeout: float = RUN_SECONDS, uid: int = 0,
            stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs a command inside. AssertionError where it lasts too long, or, with `check`, fails."""
        try:
            done = subprocess.run(self.words(argv, uid), input=stdin, capture_output=True, text=True, errors="replace",
                                  timeout=timeout)
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"{argv!r} took more than {timeout} s: {late.stdout!r} {late.stderr!r}") from None
        if check and done.returncode:
            raise AssertionError(f"{argv!r} ended with {done.returncode}: {done.stdout}{done.stderr}\n{self.log(30)}")
        return done

    def out(self, argv: Sequence[str | Path] | str, **options: Any) -> str:
        """What a command wrote to standard output, without the last line's end."""
        return self.run(argv, **options).stdout.rstrip("\n")

    def unit_run(self, argv: Sequence[str], *, uid: int = 0, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command in a service of its own, as it is with a user's programs."""
        return self.run(["systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--uid={uid}", *argv], check=check)

    def popen(self, argv: Sequence[str | Path] | str, *, uid: int = 0) -> subprocess.Popen[bytes]:
        """A child whose output can be read; who starts it ends it."""
        return subprocess.Popen(self.words(argv, uid), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)

    def log(self, lines: int = 50) -> str:
        """The end of the journal: what a message about a failure needs."""
        return subprocess.run(self.words(["journalctl", "--no-pager", "-b", "-n", str(lines)]), capture_output=True,
                              text=True, errors="replace", timeout=RUN_SECONDS).stdout

    def path(self, inside: str) -> Path:
        """A file of the host, from here. Not for what is mounted there, as /run is."""
        return self.root / inside.lstrip("/")

    def main_pid(self, unit: str = "mymachinesd.service") -> int:
        return int(self.out(["systemctl", "show", "--property=MainPID", "--value", unit]))
