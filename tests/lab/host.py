# SPDX-License-Identifier: MIT
"""A host of its own for a test: what a look-up touches is private, all else is the machine's.

Private: every mount; /run (an empty tmpfs), /etc/nsswitch.conf, /etc/hosts, the dynamic linker's cache; the network,
with nothing but loopback; the host name. Not private: processes and the rest of the file system. So every program of
the machine, unmodified and set-uid ones too, finds build/libnss_mymachines.so.2 as if it were installed.

Root makes it directly. Anybody else gets it inside a user namespace, with subordinate ids where newuidmap grants some.
"""

import itertools
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from .daemon import START_TIMEOUT, Daemon
from .processes import adopt_orphans, describe, end, kill_all, members, namespace
from .waiting import Lines, Unavailable, wait_for

if TYPE_CHECKING:
    from .container import Container

PROJECT = Path(__file__).parents[2]
BUILD = PROJECT / "build"
INSIDE = Path(__file__).with_name("inside.py")

SETUP_TIMEOUT = 20.0    # seconds; takes 50 ms, and half a second where the linker's cache is made first
RUN_TIMEOUT = 20.0      # of one command, unless the caller knows better
STRAY_TIMEOUT = 5.0     # that a killed daemon's helpers have until they count as left behind

FIRST_CONTAINER_ID = 1587085312     # where systemd-nspawn might have put it; a multiple of 65536, above its minimum
CONTAINER_IDS = 65536

# In its command line. Logins ask the userdb process: a daemon that is killed must not take it along.
OUTLIVES_ITS_DAEMON = "resolver.userdb"

HOSTS = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"

_linker_caches: dict[tuple[str, ...], str] = {}     # by shim folders: made once, it takes a third of a second


def nsswitch(passwd: str, group: str, hosts: str) -> str:
    return f"passwd: {passwd}\ngroup: {group}\nshadow: files\nhosts: {hosts}\nnetworks: files\nprotocols: files\n"


class TestHost:
    """A context manager; see the module. Not for use by several threads: it ends with the thread that entered it."""

    __test__ = False    # pytest: no test class

    def __init__(
        self,
        *,
        passwd: str = "files mymachines systemd",
        group: str | None = None,
        hosts: str = "files mymachines",
        shim_folders: Sequence[Path] = (BUILD,),
        hostname: str = "labhost",
        run_size: str = "64m",
        files: Mapping[str, str] | None = None,
    ) -> None:
        """`shim_folders` come before the machine's in the linker's cache; `files` are put over others: path -> text."""
        self._files = {"/etc/nsswitch.conf": nsswitch(passwd, group or passwd, hosts), "/etc/hosts": HOSTS}
        self._files.update(files or {})
        self._shim_folders = tuple(str(folder) for folder in shim_folders)
        self._hostname = hostname
        self._run_size = run_size
        self._children: list[subprocess.Popen[bytes]] = []
        self._daemons: list[Daemon] = []
        self._killed = False    # a daemon that is forgotten by now
        self._containers: list[Container] = []
        self._numbers = itertools.count(1)
        self._holder: subprocess.Popen[bytes] | None = None
        self._namespaces: dict[str, int] = {}   # and a descriptor of each: the kernel gives their numbers anew
        self.user_namespace = os.geteuid() != 0
        self.spare_ids = (0, 0) if self.user_namespace else (FIRST_CONTAINER_ID, 1 << 29)   # first, count

    # --- life ---

    def __enter__(self) -> Self:
        for program in ("nsenter", "setpriv", "ip", "ldconfig"):
            if not shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"):
                raise Unavailable(f"{program} is not installed")
        spec = {
            "user_namespace": self.user_namespace, "run_size": self._run_size,
            "hostname": self._hostname, "files": self._files, "shim_folders": self._shim_folders,
            "linker_cache": _linker_caches.get(self._shim_folders),
        }
        adopt_orphans()
        self._holder = start_inside([], "host", spec)
        try:
            for key, value in read_inside(self._holder, until={"ready"}):
                if key == "map":
                    self._write_own_maps(int(value))
                    answer(self._holder)
                elif key == "cache":
                    _linker_caches[self._shim_folders] = value
            self.track(self.pid, "mnt", "net")
        except BaseException:
            end(self._holder)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, _value: object, _trace: TracebackType | None) -> None:
        self.close(complain=kind is None)

    def close(self, *, complain: bool = True) -> None:
        """Ends all that runs here. AssertionError where a daemon did not end well, or something else runs on.

        Something else: neither the lab nor a test started it. What is meant to outlive a killed daemon may.
        """
        if self._holder is None:
            return
        troubles: list[str] = []
        with ExitStack() as last_first:     # each step is taken, whatever becomes of the others
            last_first.callback(end, self._holder)
            for child in self._children:
                last_first.callback(end, child)
            for daemon in self._daemons:
                last_first.callback(lambda daemon=daemon: troubles.append(daemon.close()))  # type: ignore[misc]
            for container in self._containers:
                last_first.callback(container.close)
        self._holder = None
        if self._killed or any(daemon.process.returncode == -signal.SIGKILL for daemon in self._daemons):
            kill_all(pid for pid in members(self._namespaces) if OUTLIVES_ITS_DAEMON in describe(pid))
        try:
            wait_for(lambda: not members(self._namespaces), STRAY_TIMEOUT)
        except AssertionError:
            strays = members(self._namespaces)
            troubles.append("left behind on the test host: " + ", ".join(map(describe, strays)))
            kill_all(strays)
        for descriptor in self._namespaces.values():
            os.close(descriptor)
        self._namespaces.clear()
        if complain and any(troubles):
            raise AssertionError("; ".join(filter(None, troubles)))

    @property
    def pid(self) -> int:
        """Of the process that holds the namespaces."""
        assert self._holder is not None, "not entered, or closed"
        return self._holder.pid

    def track(self, pid: int, *kinds: str) -> None:
        """Nothing may survive this host in these namespaces of `pid` either. They stay as long as the host."""
        for kind in kinds:
            name = namespace(pid, kind)
            if name not in self._namespaces and name != namespace("self", kind):
                self._namespaces[name] = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)

    def _write_own_maps(self, pid: int) -> None:
        """Of an unprivileged user's host: oneself as root, and what /etc/subuid grants as the containers' ids."""
        uid_grant, gid_grant = subordinate_ids("/etc/subuid"), subordinate_ids("/etc/subgid")
        count = min(uid_grant[1], gid_grant[1])
        if count and shutil.which("newuidmap") and shutil.which("newgidmap"):
            grants = ("newuidmap", os.getuid(), uid_grant[0]), ("newgidmap", os.getgid(), gid_grant[0])
            for program, own, first in grants:
                extents = [0, own, 1, FIRST_CONTAINER_ID, first, count]
                done = subprocess.run([program, str(pid), *map(str, extents)], capture_output=True, text=True)
                if done.returncode:
                    raise Unavailable(f"{program}: {done.stderr.strip()}")
            self.spare_ids = (FIRST_CONTAINER_ID, count)
        else:
            Path(f"/proc/{pid}/setgroups").write_text("deny")
            Path(f"/proc/{pid}/uid_map").write_text(f"0 {os.getuid()} 1")
            Path(f"/proc/{pid}/gid_map").write_text(f"0 {os.getgid()} 1")

    # --- commands ---

    def enter(self, *, uid: int | None = None, gid: int | None = None, cwd: str | Path | None = None) -> list[str]:
        """The words before a command that runs it here. It ends with the thread that started it."""
        words = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--uts"]
        words += ["--user", "--preserve-credentials"] if self.user_namespace else []
        words += ["--", "setpriv", "--pdeathsig", "KILL"]
        if uid is not None:
            words += [f"--reuid={uid}", f"--regid={uid if gid is None else gid}", "--clear-groups"]
        return words + (["env", f"--chdir={cwd}"] if cwd else [])

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        timeout: float = RUN_TIMEOUT,
        check: bool = False,
        input: str | None = None,  # noqa: A002 - subprocess.run()'s name for it
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        uid: int | None = None,
        gid: int | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """subprocess.run() on this host, output captured as text. `check`: AssertionError with the output."""
        return run([*self.enter(uid=uid, gid=gid, cwd=cwd), *map(str, argv)], timeout, check, input, env)

    def popen(self, argv: Sequence[str | Path], *, uid: int | None = None, gid: int | None = None,
              cwd: str | Path | None = None, stdin: int | IO[Any] | None = subprocess.DEVNULL,
              stdout: int | IO[Any] | None = None, stderr: int | IO[Any] | None = None,
              env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A child that runs here, of which `pid` is the command's own. It is killed with the host."""
        words = [*self.enter(uid=uid, gid=gid, cwd=cwd), *map(str, argv)]
        child = subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=stderr, env=env)
        self._children.append(child)
        return child

    def python(self, code: str, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs `code` in a new interpreter here; arguments in sys.argv[1:]. Output and options as for `run`."""
        return self.run([sys.executable, "-c", code, *args], **options)

    # --- what a test puts here ---

    def start_daemon(self, argv: Sequence[str] | None = None, *args: str, env: Mapping[str, str] | None = None,
                     ready_timeout: float = START_TIMEOUT) -> Daemon:
        """Starts mymachinesd, or `argv`, and returns when it said READY=1."""
        words = [*(argv or command("mymachinesd")), *args]
        daemon = Daemon(self.popen, words, os.environ if env is None else env, ready_timeout=ready_timeout)
        self._daemons.append(daemon)
        return daemon

    def forget_daemon(self, daemon: Daemon) -> None:
        """Of a daemon that was killed and closed, nothing is kept: for tests that kill a thousand."""
        assert daemon.process.returncode == -signal.SIGKILL
        self._daemons.remove(daemon)
        self._children.remove(daemon.process)
        self._killed = True

    def container(self, name: str, **options: Any) -> "Container":
        """A container, started; options as Container's. It ends with the host, or before."""
        from .container import Container

        container = Container(self, name, **options)
        self._containers.append(container)
        return container.start()

    def next_number(self) -> int:
        """1, 2, ...: keeps the networks and ids of this host's containers apart."""
        return next(self._numbers)


def command(name: str) -> list[str]:
    """How to start one of the project's commands: as installed beside this interpreter, else from the checkout."""
    installed = Path(sys.executable).with_name(name)
    if installed.exists():
        return [str(installed)]
    module, function = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"][name].split(":")
    code = f"import sys; sys.path.insert(0, {str(PROJECT)!r}); from {module} import {function}; sys.exit({function}())"
    return [sys.executable, "-c", code]


def run(argv: Sequence[str], timeout: float, check: bool, text: str | None,
        env: Mapping[str, str] | None) -> subprocess.CompletedProcess[str]:
    stdin = None if text is not None else subprocess.DEVNULL
    try:
        done = subprocess.run(argv, input=text, stdin=stdin, capture_output=True, text=True, errors="replace",
                              timeout=timeout, env=env)
    except subprocess.TimeoutExpired as late:
        wrote = f"it wrote {late.stdout!r}, {late.stderr!r}"
        raise AssertionError(f"{argv!r} took more than {timeout} s; {wrote}") from None
    if check and done.returncode:
        raise AssertionError(f"{argv!r} ended with {done.returncode}: {done.stderr or done.stdout}")
    return done


def subordinate_ids(path: str) -> tuple[int, int]:
    """The longest range of subuid(5) that is the caller's: first and count, count 0 where there is none."""
    try:
        lines = Path(path).read_text().splitlines()
        owners = {str(os.getuid()), pwd.getpwuid(os.getuid()).pw_name}
    except (OSError, KeyError):
        return 0, 0
    grants = [line.split(":") for line in lines if line.count(":") == 2]
    ranges = [(int(first), int(count)) for owner, first, count in grants if owner in owners]
    return max(ranges, key=lambda grant: grant[1], default=(0, 0))


# --- the dialogue with inside.py ---

def start_inside(prefix: Sequence[str], kind: str, spec: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    argv = [*prefix, sys.executable, "-ISB", str(INSIDE), kind]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    answer(process, json.dumps({**spec, "parent": os.getpid()}))
    return process


def answer(process: subprocess.Popen[bytes], line: str = "") -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n".encode())
    process.stdin.flush()


def read_inside(process: subprocess.Popen[bytes], until: set[str]) -> Iterator[tuple[str, str]]:
    """What it says, as (key, value), until each of `until` was said. Raises Unavailable where it says so."""
    lines = Lines(process)
    while until:
        try:
            key, _, value = lines.next(SETUP_TIMEOUT).partition(" ")
        except EOFError:
            raise Unavailable(f"{INSIDE.name} ended with {process.wait(SETUP_TIMEOUT)}") from None
        if key == "unavailable":
            raise Unavailable(value)
        until = until - {key}
        yield key, value
