# SPDX-License-Identifier: MIT
"""Sockets that look-ups ask: does somebody answer, and who is it? A mute one keeps everybody waiting."""

import os
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from resolver.doctor.finding import Finding, Level, ok
from resolver.host.process import NoSuchProcess, Process
from resolver.varlink.client import Client
from resolver.varlink.errors import VarlinkError

ANSWER_SECONDS = 1.0
"""For a service to answer who it is. It takes a millisecond; one that systemd starts for it may take longer."""

ASKED_AT_ONCE = 16

SOCKETS_MAX = 64
"""Of one folder; there are fewer than ten."""

USERDB = "/run/systemd/userdb"
HOOKS = "/run/systemd/resolve.hook"
MACHINES = "/run/systemd/machine"

MUTE = {
    USERDB: "look-ups of users that no module before `systemd` knows wait for it, up to 45 s: logins hang",
    HOOKS: "systemd-resolved waits for it at each name: DNS hangs on this host",
    MACHINES: "container managers that register with it hang",
}
DEAD = {
    USERDB: "look-ups pass over it",
    HOOKS: "systemd-resolved may fail all look-ups for it",
    MACHINES: "nothing can be registered there",
}
DEAD_LEVELS = {USERDB: Level.NOTE, HOOKS: Level.BROKEN, MACHINES: Level.WARNING}


class Answer(NamedTuple):
    """`state` is answers, mute, dead (nobody listens), absent or denied; pid and uid are those of who listens, or 0."""

    state: str
    seconds: float
    pid: int = 0
    uid: int = 0
    info: dict[str, Any] = {}  # noqa: RUF012 - never changed

    @property
    def who(self) -> str:
        """As text; a user is named where he is not root, as whom nearly all of these run."""
        if not self.pid:
            return "somebody in another pid namespace" if self.state == "answers" else "unknown"
        return f"pid {self.pid} ({program(self.pid)}{f', uid {self.uid}' if self.uid else ''})"


def ask(path: str, method: str = "org.varlink.service.GetInfo", parameters: dict[str, Any] | None = None,
        seconds: float = ANSWER_SECONDS) -> Answer:
    """Ask a Varlink service; an error is an answer too, in `info` as {"error": NAME}."""
    started, pid, uid = time.monotonic(), 0, 0
    info: dict[str, Any] = {}
    try:
        with Client(path, seconds) as client:
            pid, uid = client.peer()
            info = client.call(method, parameters)
        state = "answers"
    except VarlinkError as error:
        state, info = "answers", {"error": error.name}
    except TimeoutError:
        state = "mute"
    except FileNotFoundError:
        state = "absent"
    except PermissionError:
        state = "denied"
    except OSError:
        state = "dead"
    return Answer(state, time.monotonic() - started, pid, uid, info)


def check() -> Iterator[Finding]:
    """Every socket in the folders whose sockets others ask."""
    paths = [(folder, path) for folder in MUTE for path in _sockets(folder)]
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        answers = list(pool.map(lambda item: ask(item[1]), paths))
    for (folder, path), answer in zip(paths, answers, strict=True):
        yield _finding(folder, path, answer)


def _sockets(folder: str) -> list[str]:
    try:
        paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    except FileNotFoundError:
        return []
    # By what it leads to: systemd has links here.
    return [path for path in paths if _is_socket(path)][:SOCKETS_MAX]


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _finding(folder: str, path: str, answer: Answer) -> Finding:
    match answer.state:
        case "answers":
            return ok(f"{path}: {answer.who} answers", answer.seconds)
        case "mute":
            return Finding(Level.BROKEN, f"{path}: {answer.who} does not answer", MUTE[folder],
                           mend_mute(path, answer.pid), answer.seconds)
        case "dead":
            return Finding(DEAD_LEVELS[folder], f"{path}: nobody listens", DEAD[folder], f"rm {path}")
    return Finding(Level.NOTE, f"{path}: it could not be asked ({answer.state})")


def mend_mute(path: str, pid: int) -> str:
    if not pid:
        return f"rm {path}"
    try:
        with Process.open(pid) as process:
            unit = process.unit()
    except (NoSuchProcess, OSError):
        unit = ""
    if unit.endswith(".service"):
        return f"systemctl restart {unit}"
    return f"kill -KILL {pid}; rm -f {path}"


def program(pid: int) -> str:
    """The command's name in the kernel, up to 15 characters."""
    try:
        with Process.open(pid) as process:
            return process.read("comm").strip()
    except (NoSuchProcess, OSError, ValueError):
        return "gone"
