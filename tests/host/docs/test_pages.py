# SPDX-License-Identifier: MIT
"""The commands of the documentation, typed as they stand on the page, one after another, on a booted Debian 13."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.host.booted import NSSWITCH, BootedHost
from tests.host.docs.pages import Step, steps
from tests.lab import PROJECT, wait_for

STEP_SECONDS = 120.0
"""For one command, and for what it shows to come true: a page says "a moment later" where it takes one."""

DOCS = PROJECT / "docs"

Reader = Callable[[Path], None]

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


def typed(host: BootedHost, page: Path) -> Iterator[Step]:
    """Types a page's commands into one shell; gives each when its output is right."""
    shell = host.popen(["bash", "-c", SHELL])
    assert shell.stdin is not None
    try:
        for step in steps(page):
            deadline = time.monotonic() + STEP_SECONDS
            while True:
                status, output = _type(host, shell.stdin, step, deadline)
                right = re.match(step.pattern(), output) if step.output else status == 0
                if right:
                    break
                if time.monotonic() > deadline or not step.output:
                    raise AssertionError(f"{page.name}:{step.line}: {step.command}\nended with {status}:\n{output}")
                # What is shown is not there yet; to type it again takes a moment, and that is pause enough.
            yield step
    finally:
        shell.stdin.close()
        shell.wait(STEP_SECONDS)
        if shell.stdout is not None:
            shell.stdout.close()
        host.run("rm -f /run/typed.*")


def _type(host: BootedHost, keyboard: IO[bytes], step: Step, deadline: float) -> tuple[int, str]:
    host.run("rm -f /run/typed.status && cat >/run/typed.command", stdin=step.command + "\n")
    keyboard.write(b"/run/typed.command\n")
    keyboard.flush()
    status = wait_for(lambda: host.out(["cat", "/run/typed.status"], check=False),
                      max(1.0, deadline - time.monotonic()), f"the end of {step.command}")
    return int(status), host.run(["cat", "/run/typed.out"]).stdout


@pytest.fixture
def as_installed(booted: BootedHost) -> Iterator[BootedHost]:
    """/etc/nsswitch.conf as Debian has it, until a page changes it."""
    file = booted.path("/etc/nsswitch.conf")
    file.write_text(NSSWITCH.replace(" mymachines", ""))
    yield booted
    booted.run("machinectl terminate web 2>/dev/null; systemctl stop systemd-nspawn@web.service", check=False)
    file.write_text(NSSWITCH)


def test_tutorial(as_installed: BootedHost) -> None:
    commands = [step.command for step in typed(as_installed, DOCS / "tutorial.md")]
    assert "sudo machinectl start web" in commands
    assert len(commands) > 15


def test_without_systemd(booted: BootedHost) -> None:
    assert [step.command for step in typed(booted, DOCS / "howto-no-systemd.md")][-1] == "mymachinesctl list"
