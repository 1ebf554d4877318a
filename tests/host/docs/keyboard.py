# SPDX-License-Identifier: MIT
"""Does what a page says: types its commands into one shell, writes its files, and compares what it shows."""

import re
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import IO

from tests.host.booted import BootedHost
from tests.host.docs.pages import Step, Written, actions
from tests.lab import wait_for

STEP_SECONDS = 120.0
"""For one command, and for what it shows to come true: a page says "a moment later" where it takes one."""

SHELL = """
sudo() { "$@"; }
PATH=/usr/local/sbin:/usr/local/bin:$PATH
cd /usr/src/mymachines
while IFS= read -r file; do
    . "$file" >/run/typed.out 2>&1
    echo $? >/run/typed.new
    mv /run/typed.new /run/typed.status
done
"""
"""A person is not root and has sudo; here it is the other way round. Everything else is typed as it stands."""


Doing = Generator[Step | Written, None, None]


def typed(host: BootedHost, page: Path, words: Mapping[str, str] | None = None) -> Doing:
    """Does a page's actions; gives each when it is done and its output is right. Files are as before in the end.

    `words`: what the reader types for words that stand for something of his own.
    """
    before: dict[str, bytes | None] = {}
    shell = host.popen(["bash", "-c", SHELL])
    assert shell.stdin is not None
    try:
        for action in actions(page):
            if isinstance(action, Written):
                file = host.path(action.path)
                before.setdefault(action.path, file.read_bytes() if file.exists() else None)
                _write(host, action)
            else:
                for word, meant in (words or {}).items():
                    action.command = re.sub(rf"\b{word}\b", meant, action.command)
                _type_until_right(host, shell.stdin, page, action)
            yield action
    finally:
        shell.stdin.close()
        shell.wait(STEP_SECONDS)
        if shell.stdout is not None:
            shell.stdout.close()
        host.run("rm -f /run/typed.*")
        _restore(host, before)


def _write(host: BootedHost, action: Written) -> None:
    folder = str(Path(action.path).parent)
    host.run(f"mkdir -p {folder}; cat {'>' if action.whole else '>>'}{action.path}; chmod {action.mode} {action.path}",
             stdin=action.text)


def _restore(host: BootedHost, files: Mapping[str, bytes | None]) -> None:
    for path, content in files.items():
        if content is None:
            host.path(path).unlink(missing_ok=True)
        else:
            host.path(path).write_bytes(content)


def _type_until_right(host: BootedHost, keyboard: IO[bytes], page: Path, step: Step) -> None:
    deadline = time.monotonic() + STEP_SECONDS
    while True:
        status, output = _type(host, keyboard, step, deadline)
        if re.match(step.pattern(), output) if step.output else status == 0:
            return
        if time.monotonic() > deadline or not step.output:
            raise AssertionError(f"{page.name}:{step.line}: {step.command}\nended with {status}:\n{output}")
        # What is shown is not there yet; to type it again takes a moment, and that is pause enough.


def _type(host: BootedHost, keyboard: IO[bytes], step: Step, deadline: float) -> tuple[int, str]:
    host.run("rm -f /run/typed.status && cat >/run/typed.command", stdin=step.command + "\n")
    keyboard.write(b"/run/typed.command\n")
    keyboard.flush()
    status = wait_for(lambda: host.out(["cat", "/run/typed.status"], check=False),
                      max(1.0, deadline - time.monotonic()), f"the end of {step.command}")
    return int(status), host.run(["cat", "/run/typed.out"]).stdout
