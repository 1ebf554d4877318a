# SPDX-License-Identifier: MIT
"""Real shells on a test host complete subcommands, options, choices and the names of running machines."""

import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resolver.cli.completions import script
from resolver.cli.parser import make_parser
from system.install import COMPLETIONS
from tests.endtoend.conftest import World
from tests.lab import Unavailable, command
from tests.lab.terminal import Terminal

SHELLS = ["bash", "zsh", "fish"]

PROMPT = "ready> "

Complete = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As PREFIX/share is after an installation."""
    folder = tmp_path_factory.mktemp("share")
    for shell, name in COMPLETIONS.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(script(shell))
    return folder


def environment(share: Path, home: Path) -> list[str]:
    found = Path(command("mymachinesctl")[0])
    if found.name != "mymachinesctl":
        raise Unavailable("mymachinesctl is not installed beside this interpreter")
    return ["env", "-i", f"PATH={found.parent}:{os.environ['PATH']}", f"HOME={home}", "TERM=dumb", "LC_ALL=C.UTF-8",
            f"XDG_DATA_DIRS={share}:/usr/share"]


STARTS = {
    "bash": ["bash", "--noprofile", "--norc", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}
SETS_UP = {
    "bash": ". /usr/share/bash-completion/bash_completion; bind 'set enable-bracketed-paste off'; PS1='{prompt}'",
    # -D: no dump in HOME; -u: the folder is the test's, not root's in every run
    "zsh": "fpath=({share}/zsh/site-functions $fpath); autoload -Uz compinit; compinit -u -D;"
           " unset zle_bracketed_paste; PS1='{prompt}'",
}


@pytest.fixture(params=["bash", "zsh"])
def terminal(request: pytest.FixtureRequest, world: World, share: Path, tmp_path: Path) -> Iterator[Terminal]:
    """A shell that waits for a line."""
    shell = request.param
    if shutil.which(shell) is None or (shell == "bash" and not Path("/usr/share/bash-completion").exists()):
        pytest.skip(f"{shell} with its completions is not installed")
    words = [*world.host.enter(), *environment(share, tmp_path), *STARTS[shell]]
    with Terminal(words) as terminal:
        # The prompt is told apart from its echo by what shells make of two adjacent strings.
        prompt = f"{PROMPT[:3]}''{PROMPT[3:]}"
        terminal.type(SETS_UP[shell].format(share=share, prompt=prompt) + "\n")
        terminal.expect(PROMPT)
        yield terminal


@pytest.fixture
def machines(world: World) -> World:
    for name in ("web", "Build-7", "db.example"):
        world.machine(name, link=False)
    return world


def test_keys_complete_what_is_typed(machines: World, terminal: Terminal) -> None:
    """With one candidate, the line is what it gives."""
    for typed, line in (("mymachinesctl expl\t", "mymachinesctl explain "),
                        ("mymachinesctl show w\t", "mymachinesctl show web "),
                        ("mymachinesctl terminate web Bu\t", "mymachinesctl terminate web Build-7 "),
                        ("mymachinesctl resolve db\t", r"mymachinesctl resolve db\.example "),
                        ("mymachinesctl show --js\t", "mymachinesctl show --json "),
                        ("mymachinesctl register --cl\t", "mymachinesctl register --class "),
                        ("mymachinesctl register --class v\t", "mymachinesctl register --class vm "),
                        ("mymachinesctl register --root /etc/nssw\t",
                         "mymachinesctl register --root /etc/nsswitch.conf")):
        terminal.type(typed)
        terminal.expect(line)
        terminal.type("\x15")   # ^U: an empty line again
    # Machines that come and go are completed as they are.
    machines.ctl("unregister", "web")
    machines.machine("winner", link=False)
    terminal.type("mymachinesctl show w\t")
    terminal.expect("mymachinesctl show winner ")


@pytest.fixture
def fish(machines: World, share: Path, tmp_path: Path) -> Complete:
    """What fish would offer for a line: its own answer to a program that asks."""
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")

    def complete(line: str) -> list[str]:
        words = [*environment(share, tmp_path), "fish", "--private", "-c", f"complete -C {shlex.quote(line)}"]
        return [offer.partition("\t")[0] for offer in machines.host.run(words, check=True).stdout.splitlines()]

    return complete


def test_fish_completes_what_is_typed(machines: World, fish: Complete) -> None:
    assert fish("mymachinesctl expl") == ["explain"]
    assert fish("mymachinesctl show w") == ["web"]
    assert sorted(fish("mymachinesctl terminate web ")) == ["Build-7", "db.example", "web"]
    assert fish("mymachinesctl show --js") == ["--json"]
    assert fish("mymachinesctl register --class v") == ["vm"]
    assert fish("mymachinesctl register --root /etc/nsswi") == ["/etc/nsswitch.conf"]
    assert fish("mymachinesctl register new-n") == []
    machines.daemon.sigstop()
    assert fish("mymachinesctl show db") == ["db.example"]
    machines.daemon.sigcont()
    machines.daemon.stop()
    assert fish("mymachinesctl show db") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_there(shell: str) -> None:
    text = script(shell)
    [commands] = [action.choices for action in make_parser()._actions if isinstance(action.choices, dict)]
    assert len(commands) > 10
    for name, sub in commands.items():
        assert name in text
        for action in sub._actions:
            for flag in action.option_strings:
                assert (flag if shell != "fish" else f"-l {flag[2:]}" if flag[1] == "-" else f"-s {flag[1:]}") in text
