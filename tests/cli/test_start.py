# SPDX-License-Identifier: MIT
"""Shells call the command while somebody types: it imports what a command needs when that is called, and no more."""

import subprocess
import sys

import pytest

from resolver.cli.parser import make_parser

LIST = """
import sys
before = set(sys.modules)
from resolver.cli.__main__ import main
sys.argv = ["mymachinesctl", *sys.argv[1:]]
try:
    main()
except SystemExit:
    pass
print(*sorted(set(sys.modules) - before), sep="\\n")
"""


def imported(*arguments: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", LIST, *arguments], capture_output=True, text=True, timeout=60)
    return set(done.stdout.splitlines())


def test_the_parser_imports_no_command() -> None:
    modules = imported("--version")
    assert {name for name in modules if name.startswith("resolver.")} == {
        "resolver.cli", "resolver.cli.__main__", "resolver.cli.exit_codes", "resolver.cli.parser"}
    assert not modules & {"json", "socket", "dataclasses", "asyncio", "subprocess"}


@pytest.mark.parametrize("command", ["list --names", "resolve web"])
def test_look_ups_import_no_client(command: str) -> None:
    modules = imported(*command.split())
    assert "resolver.table.reader" in modules
    assert not modules & {"resolver.varlink.client", "asyncio", "shutil", "subprocess", "resolver.host.process"}


def test_every_command_is_there() -> None:
    """Named as text, they could be missing."""
    import importlib

    [commands] = [action.choices for action in make_parser()._actions if isinstance(action.choices, dict)]
    for sub in commands.values():
        module, _, function = sub.get_default("command").partition(":")
        assert callable(getattr(importlib.import_module(module), function))
