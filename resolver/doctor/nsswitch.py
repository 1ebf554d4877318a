# SPDX-License-Identifier: MIT
"""nsswitch.conf(5): whether a look-up comes to our module, and whether it goes on behind it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from resolver.doctor.finding import Finding, Level, ok

PATH = "/etc/nsswitch.conf"

MODULE = "mymachines"

DEFAULTS = {"passwd": "files", "group": "files", "hosts": "files dns"}
"""Where a database has no line, or there is no file (glibc's nss/nss_database.c says so; the manual leaves it open)."""

BEFORE = {"passwd": ("systemd",), "group": ("systemd",), "hosts": ("resolve", "dns")}
"""Modules that ours should come before: they are slower, or carry the name out of the host."""

STATUSES = ("success", "notfound", "unavail", "tryagain")

_TOKEN = re.compile(r"\[[^\]]*\]|[^\s\[]+")
_ACTION = re.compile(r"(!?)(\w+)\s*=\s*(\w+)")


@dataclass(slots=True)
class Module:
    """A module in a line, and what is done by each status; by default success returns and all else goes on."""

    name: str
    text: str
    """With its actions, as it stands."""
    actions: dict[str, str] = field(
        default_factory=lambda: {status: "return" if status == "success" else "continue" for status in STATUSES})


def parse(text: str) -> dict[str, list[Module]]:
    """The modules of each database. Total: what glibc would refuse is passed over."""
    databases: dict[str, list[Module]] = {}
    for line in text.splitlines():
        name, colon, rest = line.partition("#")[0].partition(":")
        if not colon:
            continue
        modules: list[Module] = []
        for token in _TOKEN.findall(rest):
            if not token.startswith("["):
                modules.append(Module(token, token))
            elif modules:
                _apply(modules[-1], token)
        databases.setdefault(name.strip(), modules)
    return databases


def _apply(module: Module, actions: str) -> None:
    module.text += f" {actions}"
    for negated, status, action in _ACTION.findall(actions.lower()):
        for each in STATUSES:
            if (each == status) != bool(negated):
                module.actions[each] = action


def check() -> Iterator[Finding]:
    try:
        with open(PATH, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        text = ""
    yield from findings(text)


def findings(text: str) -> Iterator[Finding]:
    """Of a file with this text."""
    databases = parse(text)
    for database in BEFORE:
        line = _line(text, database)
        modules = databases.get(database, parse(f"x: {DEFAULTS[database]}")["x"])
        troubles = list(_troubles(database, modules, line))
        yield from troubles or [ok(f"{database}: {line or DEFAULTS[database]}")]


def _line(text: str, database: str) -> str:
    """The line as it stands, without the database's name."""
    found = re.search(rf"^\s*{database}\s*:([^#\n]*)", text, re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


_ACTIONS_BEHIND: Mapping[tuple[str, str], str] = {
    ("hosts", "unavail"): "that is what it says of every name that is no machine's: all other names are lost",
    ("passwd", "notfound"): "that is what it says of every user that is no machine's: modules behind it are not asked",
    ("group", "notfound"): "that is what it says of every group that is no machine's: modules behind it are not asked",
    ("passwd", "unavail"): "without a daemon and a table, modules behind it are not asked",
    ("group", "unavail"): "without a daemon and a table, modules behind it are not asked",
}
"""By database and status: what `return` does there. hosts: [NOTFOUND=return] is missing: it does good."""


def _troubles(database: str, modules: list[Module], line: str) -> Iterator[Finding]:
    names = [module.name for module in modules]
    if MODULE not in names:
        yield Finding(Level.BROKEN, f"{database}: {' '.join(names)}: {MODULE} is not asked",
                      f"programs that look up {_WHAT[database]} do not learn of machines{_TAKEN_OUT.get(database, '')}",
                      _mend(database, line))
        return
    at = names.index(MODULE)
    for module in modules[:at]:
        if module.actions["notfound"] == "return":
            yield Finding(Level.BROKEN, f"{database}: {line}: {module.name} ends the look-up before {MODULE}",
                          f"what {module.name} does not know is not looked for any further", _mend(database, line))
            return
    late = [name for name in names[:at] if name in BEFORE[database]]
    if late and database == "hosts":
        yield Finding(Level.WARNING, f"{database}: {line}: {', '.join(late)} before {MODULE}",
                      "a machine's name first goes out to DNS, which may know another one by it",
                      _mend(database, line))
    elif late:
        yield Finding(Level.NOTE, f"{database}: {line}: {', '.join(late)} before {MODULE}",
                      "it answers for machines too, more slowly",
                      _mend(database, line))
    ours, behind = modules[at], names[at + 1:]
    if ours.actions["success"] == "continue":
        yield Finding(Level.BROKEN, f"{database}: {line}: its answers are thrown away ([SUCCESS=continue])",
                      "the next module is asked instead", _mend(database, line))
    for status in ("unavail", "notfound"):
        meaning = _ACTIONS_BEHIND.get((database, status))
        if meaning and behind and ours.actions[status] == "return":
            level = Level.WARNING if (database, status) in _ONLY_WITHOUT_DAEMON else Level.BROKEN
            yield Finding(level, f"{database}: {line}: [{status.upper()}=return] behind {MODULE}", meaning,
                          _mend(database, line))
    if database == "hosts" and not behind and not late:
        yield Finding(Level.NOTE, f"{database}: {line}: {MODULE} is the last",
                      "requests for IPv4 alone get EAI_NODATA for unknown names instead of EAI_NONAME")


_TAKEN_OUT = {"hosts": "; Debian's libnss-mymachines, once it is purged, takes the word out here, which is ours too"}
"""What may have happened."""

_ONLY_WITHOUT_DAEMON = {("passwd", "unavail"), ("group", "unavail")}

_WHAT = {"passwd": "users", "group": "groups", "hosts": "host names"}


def _mend(database: str, line: str) -> str:
    if not line:
        return f"echo '{database}: {mended(database, line)}' >>{PATH}"
    return f"sed -i 's|^[[:blank:]]*{database}[[:blank:]]*:.*|{database}: {mended(database, line)}|' {PATH}"


def mended(database: str, line: str) -> str:
    """The line as it should be: our module, without actions, right before those that it should precede, or last."""
    [modules] = parse(f"x: {line or DEFAULTS[database]}").values()
    kept = [module for module in modules if module.name != MODULE]
    at = next((i for i, module in enumerate(kept)
               if module.name in BEFORE[database] or module.actions["notfound"] == "return"), len(kept))
    return " ".join([*(module.text for module in kept[:at]), MODULE, *(module.text for module in kept[at:])])
