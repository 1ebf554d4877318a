# SPDX-License-Identifier: MIT
"""Manual pages: man finds nothing wrong with them, and they leave out nothing that the commands take."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lab import PROJECT, command

PAGES = sorted((PROJECT / "docs/man").glob("*.[1-9]"))
SECONDS = 60

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def text_of(page: Path) -> str:
    """A page as it is written, without the escapes of hyphens."""
    return page.read_text().replace("\\-", "-")


def help_of(program: str, *words: str) -> str:
    return subprocess.run([*command(program), *words, "--help"], capture_output=True, text=True, check=True,
                          timeout=SECONDS, env={"COLUMNS": "200"}).stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_man_has_nothing_to_say(page: Path) -> None:
    if shutil.which("man") is None:
        pytest.skip("man is not installed")
    done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page)], capture_output=True,
                          text=True, timeout=SECONDS, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "mymachines" in done.stdout


def test_the_pages_that_there_are() -> None:
    assert [page.name for page in PAGES] == ["mymachinesctl.1", "mymachinesd.8", "nss_mymachines.8"]


def test_every_option_of_the_daemon() -> None:
    assert set(OPTION.findall(help_of("mymachinesd"))) <= set(OPTION.findall(text_of(PAGES[1])))


def test_every_command_and_option() -> None:
    page = text_of(PAGES[0])
    commands = re.findall(r"^    ([a-z]+)(?: |$)", help_of("mymachinesctl").partition("options:")[0], re.MULTILINE)
    assert len(commands) > 10
    for name in commands:
        assert re.search(rf"^\.(?:TP|TQ)\n\.\w+ \"?{name}\b", page, re.MULTILINE), name
        for option in OPTION.findall(help_of("mymachinesctl", name)):
            assert option in page, f"{name} {option}"


def test_every_exit_code() -> None:
    codes = re.findall(r"^  (\d)  ", help_of("mymachinesctl"), re.MULTILINE)
    assert re.findall(r"^\.TP\n(\d)$", text_of(PAGES[0]), re.MULTILINE) == codes
