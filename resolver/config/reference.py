# SPDX-License-Identifier: MIT
"""docs/configuration.md, made of the definitions: `python -m resolver.config.reference >docs/configuration.md`."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from resolver.config import CONFIG_PATH
from resolver.config.settings import Settings, written

_HEAD = f"""\
<!-- Made by `python -m resolver.config.reference` of the definitions in resolver/config/settings.py. -->

# Configuration

`{CONFIG_PATH}`, and then the files `*.toml` in `{CONFIG_PATH}.d/`, in the order of
their names: of two that set the same, the later one counts. All of it is optional; so are the files. They are TOML,
belong to root, and are not to be written by others.

    $ sudo mymachinesd --check
    $ sudo systemctl reload mymachinesd

The first says what is wrong, with file and line, and ends with status 1 where something is. The second applies it;
where something is wrong, nothing of it, and the command fails. A reload loses no machine, connection or look-up. At a
start, what is wrong is logged and has its default, and the rest counts: a slip in a file does not take a host's names
away.

DNS has options of its own (docs/dns.md, docs/dns-publish.md): these are other processes, with other users.
"""


def reference() -> str:
    """The page, as Markdown."""
    return "\n".join([_HEAD, *_sections()])


def _sections() -> Iterator[str]:
    for section in fields(Settings):
        defaults = getattr(Settings(), section.name)
        yield f"## [{section.name}]\n"
        yield f"{defaults.__doc__}\n"
        yield "| setting | takes | default | |"
        yield "| --- | --- | --- | --- |"
        for setting in fields(defaults):
            default = toml(getattr(defaults, setting.name))
            kind, text = setting.metadata["kind"].text, setting.metadata["text"]
            yield f"| `{written(setting.name)}` | {kind} | `{default}` | {text} |"
        yield ""
    yield "All defaults, as a file:\n"
    yield from (f"    {line}".rstrip() for line in example().splitlines())
    yield ""


def example() -> str:
    """A file that sets everything to what it is without it."""
    lines = []
    for section in fields(Settings):
        defaults = getattr(Settings(), section.name)
        lines += [f"[{section.name}]",
                  *(f"{written(each.name)} = {toml(getattr(defaults, each.name))}" for each in fields(defaults)), ""]
    return "\n".join(lines)


def toml(value: Any) -> str:
    """A default, as it is written in a file."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return f'"{value}"'
        case _:
            return "[" + ", ".join(map(toml, value)) + "]"


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201 - this is what it is for
