# SPDX-License-Identifier: MIT
"""What bash, zsh and fish need to complete mymachinesctl, made from its own parser.

Options and their choices are written down; machines' names are asked for at each press of the key, of the table. No
text of the parser is trusted to be harmless to a shell: it is quoted.
"""

import argparse
import shlex
from collections.abc import Callable, Iterator
from typing import NamedTuple

from resolver.cli.parser import MACHINE_METAVARS, PATH_METAVAR, make_parser

PROGRAM = "mymachinesctl"

NAMES = f"{PROGRAM} list --names 2>/dev/null"


class Argument(NamedTuple):
    """An option, or a positional where it has no `flags`. `values`: what it takes, MACHINES, PATHS, or these words."""

    flags: tuple[str, ...]
    text: str
    takes_value: bool
    repeats: bool
    values: tuple[str, ...]


MACHINES = ("<machines>",)
PATHS = ("<paths>",)


class Command(NamedTuple):
    name: str
    text: str
    arguments: list[Argument]

    @property
    def options(self) -> list[Argument]:
        return [argument for argument in self.arguments if argument.flags]

    @property
    def positionals(self) -> list[Argument]:
        return [argument for argument in self.arguments if not argument.flags]


def do_completion(options: argparse.Namespace) -> None:
    print(script(options.shell), end="")


def script(shell: str) -> str:
    """The file that `shell`, one of bash, zsh, fish, loads."""
    return "\n".join([*_SHELLS[shell](list(_commands(make_parser()))), ""])


def _commands(parser: argparse.ArgumentParser) -> Iterator[Command]:
    subparsers = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001 - argparse has no other way
    texts = {choice.dest: choice.help or "" for choice in subparsers._choices_actions}  # noqa: SLF001 - as above
    for name, sub in subparsers.choices.items():
        yield Command(name, texts[name], [_argument(action) for action in sub._actions])  # noqa: SLF001 - as above


def _argument(action: argparse.Action) -> Argument:
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    values: tuple[str, ...] = tuple(map(str, action.choices or ()))
    if not action.option_strings and metavar in MACHINE_METAVARS:
        values = MACHINES
    elif metavar == PATH_METAVAR:
        values = PATHS
    text = (action.help or "").replace("%(default)s", str(action.default))
    return Argument(tuple(action.option_strings), text, action.nargs != 0,
                    action.nargs == "+" or isinstance(action, argparse._AppendAction), values)  # noqa: SLF001 - as above


def _quoted(words: list[str] | tuple[str, ...]) -> str:
    return " ".join(map(shlex.quote, words))


# --- bash ---

def _bash(commands: list[Command]) -> Iterator[str]:
    """Words are compared here, not by `compgen -W`, which would carry out what a word says."""
    yield f"# bash completion for {PROGRAM}"
    yield f"_{PROGRAM}() {{"
    yield "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= word i"
    yield "    local -a words=()"
    yield "    COMPREPLY=()"
    yield "    for ((i = 1; i < COMP_CWORD; i++)); do"
    yield "        if [[ ${COMP_WORDS[i]} != -* ]]; then command=${COMP_WORDS[i]}; break; fi"
    yield "    done"
    yield "    case $command:$prev in"
    for command in commands:
        for option in command.options:
            if option.takes_value:
                yield f"        {'|'.join(shlex.quote(f'{command.name}:{flag}') for flag in option.flags)})"
                if option.values == PATHS:
                    yield '            compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;'
                else:
                    yield f"            words=({_quoted(option.values)}) ;;"
    yield "        *) case $command in"
    yield f"            '') words=({_quoted([command.name for command in commands])} --help --version) ;;"
    for command in commands:
        flags = _quoted([flag for option in command.options for flag in option.flags])
        yield f"            {command.name})"
        yield f"                if [[ $cur == -* ]]; then words=({flags})"
        for positional in command.positionals[:1]:
            if positional.values == MACHINES:
                yield f"                else mapfile -t words < <({NAMES})"
            else:
                yield f"                else words=({_quoted(positional.values)})"
        yield "                fi ;;"
    yield "        esac ;;"
    yield "    esac"
    yield '    for word in "${words[@]}"; do'
    yield '        [[ $word == "$cur"* ]] && COMPREPLY+=("$word")'
    yield "    done"
    yield "    return 0"
    yield "}"
    yield f"complete -F _{PROGRAM} {PROGRAM}"


# --- zsh ---

def _zsh(commands: list[Command]) -> Iterator[str]:
    yield f"#compdef {PROGRAM}"
    yield f"_{PROGRAM}_machines() {{"
    yield "    local -a machines"
    yield f'    machines=(${{(f)"$({NAMES})"}})'
    yield "    compadd -a machines"
    yield "}"
    yield f"_{PROGRAM}() {{"
    yield "    local state line"
    yield "    local -a commands"
    yield "    typeset -A opt_args"
    yield "    commands=("
    for command in commands:
        yield f"        {shlex.quote(f'{command.name}:{_zsh_text(command.text)}')}"
    yield "    )"
    yield "    _arguments -C '(- *)'{-h,--help}'[show help]' '(- *)--version[show the version]' \\"
    yield "        '1:command:->command' '*::argument:->argument' && return 0"
    yield "    case $state in"
    yield "        command) _describe command commands ;;"
    yield "        argument) case $words[1] in"
    for command in commands:
        yield f"            {command.name}) _arguments {' '.join(map(shlex.quote, _zsh_specs(command)))} ;;"
    yield "        esac ;;"
    yield "    esac"
    yield "}"
    # Loaded by compinit from a folder of fpath the file is the function's body; sourced, it makes the function known.
    yield f'if [[ $funcstack[1] == _{PROGRAM} ]]; then _{PROGRAM} "$@"; else compdef _{PROGRAM} {PROGRAM}; fi'


def _zsh_text(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\:[]" else c for c in text)


def _zsh_specs(command: Command) -> Iterator[str]:
    """zshcompsys(1), _arguments."""
    for option in command.options:
        for flag in option.flags:
            value = f":value:{_zsh_action(option)}" if option.takes_value else ""
            text = f"[{_zsh_text(option.text)}]" if option.text else ""
            yield f"{'*' if option.repeats else ''}{flag}{text}{value}"
    for positional in command.positionals:
        yield f"{'*' if positional.repeats else ''}:argument:{_zsh_action(positional)}"


def _zsh_action(argument: Argument) -> str:
    return {MACHINES: f"_{PROGRAM}_machines", PATHS: "_files", (): "()"}.get(
        argument.values, f"({' '.join(argument.values)})")


# --- fish ---

def _fish(commands: list[Command]) -> Iterator[str]:
    yield f"# fish completion for {PROGRAM}"
    yield f"complete -c {PROGRAM} -f"
    yield f"complete -c {PROGRAM} -n __fish_use_subcommand -s h -l help -d 'show help'"
    yield f"complete -c {PROGRAM} -n __fish_use_subcommand -l version -d 'show the version'"
    for command in commands:
        yield (f"complete -c {PROGRAM} -n __fish_use_subcommand -a {command.name} "
               f"-d {_fish_quoted(command.text)}")
        seen = f"complete -c {PROGRAM} -n '__fish_seen_subcommand_from {command.name}'"
        for option in command.options:
            flags = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags)
            takes = "" if not option.takes_value else " -r" if option.values == PATHS else " -x"
            yield f"{seen} {flags}{takes}{_fish_values(option)} -d {_fish_quoted(option.text)}"
        for positional in command.positionals:
            if positional.values:
                yield f"{seen}{_fish_values(positional)}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish_values(argument: Argument) -> str:
    if argument.values == MACHINES:
        return f" -a {_fish_quoted(f'({NAMES})')}"
    if argument.values == PATHS:
        return " -F"
    return f" -a {_fish_quoted(' '.join(argument.values))}" if argument.values else ""


_SHELLS: dict[str, Callable[[list[Command]], Iterator[str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
