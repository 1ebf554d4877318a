# SPDX-License-Identifier: MIT
"""The processes that read guests' files for this one."""

from pathlib import Path

from resolver.guest import read
from tests.lab.processes import children, is_alive


def reading() -> list[int]:
    return [pid for pid in children() if is_alive(pid) and read.__file__ in command_line(pid)]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
