# SPDX-License-Identifier: MIT
"""Lines of nsswitch.conf: what is wrong with them, and what they should be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.doctor.finding import Level
from resolver.doctor.nsswitch import BEFORE, findings, mended, parse

GOOD = {"passwd": "files mymachines systemd", "group": "files mymachines systemd", "hosts": "files mymachines dns"}


def file(**lines: str) -> str:
    return "".join(f"{database}: {line}\n" for database, line in {**GOOD, **lines}.items())


def levels(**lines: str) -> list[tuple[Level, str]]:
    return [(finding.level, finding.text) for finding in findings(file(**lines)) if finding.level is not Level.OK]


@pytest.mark.parametrize(("database", "line"), [
    ("hosts", "files mymachines [NOTFOUND=return] dns"),
    ("hosts", "mymachines files resolve [!UNAVAIL=return] dns"),
    ("hosts", "mymachines\tfiles  dns # and mdns4 [NOTFOUND=return]"),
    ("hosts", "files mymachines [TRYAGAIN=continue] myhostname dns"),
    ("group", "files [SUCCESS=merge] mymachines [SUCCESS=merge] systemd"),
    ("passwd", "mymachines files"),
])
def test_nothing_is_wrong_with(database: str, line: str) -> None:
    assert levels(**{database: line}) == []


@pytest.mark.parametrize(("database", "line", "level", "said"), [
    ("hosts", "files dns", Level.BROKEN, "mymachines is not asked"),
    ("passwd", "files systemd", Level.BROKEN, "mymachines is not asked"),
    ("group", "files", Level.BROKEN, "mymachines is not asked"),
    ("hosts", "files dns mymachines", Level.WARNING, "dns before mymachines"),
    ("hosts", "files resolve mymachines dns", Level.WARNING, "resolve before mymachines"),
    ("passwd", "files systemd mymachines", Level.NOTE, "systemd before mymachines"),
    ("hosts", "files resolve [!UNAVAIL=return] mymachines dns", Level.BROKEN, "resolve ends the look-up"),
    ("hosts", "files mdns4_minimal [NOTFOUND=return] mymachines dns", Level.BROKEN, "mdns4_minimal ends the look-up"),
    ("passwd", "files [notfound = return] mymachines", Level.BROKEN, "files ends the look-up"),
    ("hosts", "files mymachines [UNAVAIL=return] dns", Level.BROKEN, "[UNAVAIL=return] behind mymachines"),
    ("hosts", "files mymachines [!SUCCESS=return] dns", Level.BROKEN, "[UNAVAIL=return] behind mymachines"),
    ("passwd", "files mymachines [NOTFOUND=return] systemd", Level.BROKEN, "[NOTFOUND=return] behind mymachines"),
    ("group", "files mymachines [UNAVAIL=return] systemd", Level.WARNING, "[UNAVAIL=return] behind mymachines"),
    ("hosts", "files mymachines [SUCCESS=continue] dns", Level.BROKEN, "answers are thrown away"),
    ("hosts", "files mymachines", Level.NOTE, "mymachines is the last"),
])
def test_what_is_wrong(database: str, line: str, level: Level, said: str) -> None:
    assert [(found, said in text) for found, text in levels(**{database: line})] == [(level, True)]


def test_without_a_file_or_a_line_glibcs_own_counts() -> None:
    assert [finding.level for finding in findings("")] == [Level.BROKEN] * 3
    assert "files dns" in next(finding.text for finding in findings("") if finding.text.startswith("hosts"))


@pytest.mark.parametrize(("database", "line", "should_be"), [
    ("hosts", "files dns", "files mymachines dns"),
    ("hosts", "files mdns4_minimal [NOTFOUND=return] dns", "files mymachines mdns4_minimal [NOTFOUND=return] dns"),
    ("hosts", "mymachines [UNAVAIL=return] files resolve [!UNAVAIL=return] dns",
     "files mymachines resolve [!UNAVAIL=return] dns"),
    ("passwd", "files systemd", "files mymachines systemd"),
    ("group", "files [SUCCESS=merge] systemd", "files [SUCCESS=merge] mymachines systemd"),
    ("group", "", "files mymachines"),
])
def test_what_it_should_be(database: str, line: str, should_be: str) -> None:
    assert mended(database, line) == should_be


MODULES = st.sampled_from(["files", "dns", "resolve", "mymachines", "systemd", "myhostname", "mdns4_minimal"])
ACTIONS = st.sampled_from(["[NOTFOUND=return]", "[!UNAVAIL=return]", "[SUCCESS=merge]", "[UNAVAIL=return]", "[", "[x]"])


@given(st.sampled_from(sorted(BEFORE)), st.lists(st.one_of(MODULES, ACTIONS), max_size=8))
def test_what_is_mended_is_mended(database: str, tokens: list[str]) -> None:
    line = " ".join(tokens)
    again = [level for level, _ in levels(**{database: mended(database, line)})]
    assert set(again) <= {Level.NOTE}, mended(database, line)


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    parse(text)
    assert len(list(findings(text))) >= 3
