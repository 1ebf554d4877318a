# SPDX-License-Identifier: MIT
"""Runs child.py, and other programs, with a deadline."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

CHILD_SECONDS = 4.0
"""For all steps of a child: milliseconds, and on a busy host a second for Python to start. A user who waits for longer
at each command calls it broken."""

KILL_SECONDS = 1.0
"""For a killed child to go. One that hangs in the kernel is left behind."""

OUTPUT_MAX = 1 << 20
"""Bytes; an answer is a few thousand."""


class Step(NamedTuple):
    """`result` is None where there is an `error`."""

    step: str
    result: object
    error: str | None
    seconds: float


class Late(Exception):
    """It did not end in time; `steps` were done by then."""

    def __init__(self, steps: list[Step]) -> None:
        super().__init__("it does not end")
        self.steps = steps


def ask_child(kind: str, *arguments: str, seconds: float = CHILD_SECONDS) -> list[Step]:
    """The steps that were done. Late where it did not end; where it crashed, there are fewer steps."""
    output, ended = run([sys.executable, "-I", "-m", "resolver.doctor.child", kind, *arguments], seconds)
    steps = [Step(**json.loads(line)) for line in output.split("\n")[:-1]]
    if not ended:
        raise Late(steps)
    return steps


def run(argv: Sequence[str], seconds: float) -> tuple[str, bool]:
    """A program's output, and whether it ended by itself within that time. OSError where it cannot be started.

    It gets a clean environment: what is asked is what any program gets.
    """
    environment = {name: os.environ[name] for name in ("PATH", "DBUS_SYSTEM_BUS_ADDRESS") if name in os.environ}
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               cwd="/", env={"HOME": "/", "LC_ALL": "C.UTF-8", **environment})
    assert process.stdout is not None
    output, deadline = b"", time.monotonic() + seconds
    try:
        while len(output) < OUTPUT_MAX:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                return output.decode(errors="replace"), False
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
                break
            output += chunk
        return output.decode(errors="replace"), process.returncode is not None
    finally:
        process.stdout.close()
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(KILL_SECONDS)
