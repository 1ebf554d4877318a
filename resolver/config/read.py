# SPDX-License-Identifier: MIT
"""Read the settings, and say of each line that is wrong what is wrong with it.

What is right counts, whatever else is wrong: a slip in a file does not take a host's names away. Who wants all or
nothing looks at the problems first, as a reload does.
"""

import os
import stat
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from resolver.config import CONFIG_PATH
from resolver.config.settings import Settings, kind_of, written

FILE_MAX = 16 * 1024
"""Bytes of one file: twenty times what all settings take. To find lines takes the square of that."""

FILES_MAX = 256
"""Drop-ins."""

@dataclass(frozen=True, slots=True)
class Problem:
    """`line` counts from 1; 0 where it is about the whole file."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}" if self.line else f"{self.path}: {self.text}"


@dataclass(frozen=True, slots=True)
class Configuration:
    settings: Settings
    problems: tuple[Problem, ...]
    files: tuple[str, ...]
    """Those that were there, in the order in which they count."""


def read_configuration(path: str = CONFIG_PATH) -> Configuration:
    """The file, then its drop-ins; of two that set the same, the later one counts. Never fails."""
    settings = Settings()
    problems: list[Problem] = []
    files = []
    for name in (path, *_drop_ins(f"{path}.d", problems)):
        try:
            text = _content(name)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            files.append(name)
            problems.append(Problem(name, 0, f"not read: {_reason(error)}"))
            continue
        files.append(name)
        settings = _apply(settings, name, text, problems)
    return Configuration(settings, tuple(problems), tuple(files))


def _drop_ins(directory: str, problems: list[Problem]) -> list[str]:
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".toml") and not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        problems.append(Problem(directory, 0, f"not read: {error.strerror}"))
        return []
    if len(names) > FILES_MAX:
        problems.append(Problem(directory, 0, f"only the first {FILES_MAX} files are read"))
    return [f"{directory}/{name}" for name in names[:FILES_MAX]]


def _content(path: str) -> str:
    # O_NONBLOCK: opening a FIFO would wait for a writer
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        # The daemon is root, and would do what somebody else writes.
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError("others than root may write it")
        data = file.read(FILE_MAX + 1)
    if len(data) > FILE_MAX:
        raise ValueError(f"it has more than {FILE_MAX} bytes")
    return data.decode()


def _apply(before: Settings, path: str, text: str, problems: list[Problem]) -> Settings:
    settings = before
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.append(_syntax_problem(path, text, error))
        return settings
    wrong: list[tuple[tuple[str, ...], str]] = []
    for section, name, value in _settings_in(document):
        try:
            settings = _with(settings, section, name, value)
        except ValueError as error:
            wrong.append(((section,) if name is None else (section, name), str(error)))
    contradiction = settings.contradiction()
    if contradiction is not None:
        section, name, reason = contradiction
        wrong.append(((section, written(name)), f"[{section}] {written(name)} {reason}"))
        settings = replace(settings, **{section: getattr(before, section)})
    if wrong:
        lines = lines_of(text)
        problems += (Problem(path, lines.get(where, 0), reason) for where, reason in wrong)
    return settings


def _settings_in(document: dict[str, Any]) -> Iterator[tuple[str, str | None, Any]]:
    for section, content in document.items():
        if isinstance(content, dict):
            yield from ((section, name, value) for name, value in content.items())
        else:
            yield section, None, content


def _with(settings: Settings, section: str, name: str | None, value: Any) -> Settings:
    """ValueError says what is wrong with it."""
    sections = [each.name for each in fields(Settings)]
    if name is None or section not in sections:
        raise ValueError(f"there is no {'setting' if name is None else 'section'} {section!r}: "
                         f"sections are {', '.join(f'[{each}]' for each in sections)}")
    current = getattr(settings, section)
    # Only `-` is written, so that each setting has one spelling.
    kind = None if "_" in name else kind_of(current, name.replace("-", "_"))
    if kind is None:
        names = ", ".join(written(each.name) for each in fields(current))
        raise ValueError(f"[{section}] has no {name!r}; it has {names}")
    try:
        read = kind.read(value)
    except ValueError as error:
        raise ValueError(f"[{section}] {name} must be {error}") from None
    return replace(settings, **{section: replace(current, **{name.replace("-", "_"): read})})


def lines_of(text: str) -> dict[tuple[str, ...], int]:
    """The line in which each section and setting begins, however it is written.

    tomllib tells no lines, and reads tables, dotted keys and inline tables alike. So it is asked about growing parts of
    the file: what is new in one that is whole began behind the last one that was.
    """
    found: dict[tuple[str, ...], int] = {}
    lines = [f"{line}\n" for line in text.split("\n")]     # TOML knows no other ends of lines
    begin = 0
    for end in range(1, len(lines) + 1):
        try:
            document = tomllib.loads("".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue    # in the middle of a value of several lines
        first = next((number for number in range(begin, end)
                      if lines[number].strip() and not lines[number].lstrip().startswith("#")), begin) + 1
        for section, content in document.items():
            found.setdefault((section,), first)
            for name in content if isinstance(content, dict) else ():
                found.setdefault((section, name), first)
        begin = end
    return found


def _syntax_problem(path: str, text: str, error: tomllib.TOMLDecodeError) -> Problem:
    """tomllib says where in its text alone: `... (at line 3, column 5)`, or `(at end of document)`."""
    reason, _, place = str(error).rpartition(" (at ")
    number = place.removeprefix("line ").partition(",")[0]
    line = int(number) if number.isdecimal() else text.count("\n") + 1
    return Problem(path, line, f"this is no TOML: {reason or error}")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
