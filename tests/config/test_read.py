# SPDX-License-Identifier: MIT
"""The configuration as files have it: what counts, and what is said of what is wrong."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.config import read
from resolver.config.read import lines_of, read_configuration
from resolver.config.reference import example, reference
from resolver.config.settings import Settings
from resolver.config.values import Places
from tests.lab import PROJECT

SECTIONS = "sections are [log], [machines], [addresses], [connections], [metrics]"


def read_text(tmp_path: Path, text: str, **drop_ins: str) -> read.Configuration:
    path = tmp_path / "mymachinesd.toml"
    path.write_text(text)
    folder = tmp_path / "mymachinesd.toml.d"
    folder.mkdir(exist_ok=True)
    for name, content in drop_ins.items():
        (folder / f"{name}.toml").write_text(content)
    return read_configuration(str(path))


def problems(tmp_path: Path, text: str, **drop_ins: str) -> list[str]:
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in read_text(tmp_path, text, **drop_ins).problems]


def test_nothing_is_needed(tmp_path: Path) -> None:
    found = read_configuration(str(tmp_path / "none"))
    assert (found.settings, found.problems, found.files) == (Settings(), (), ())


def test_settings_are_read(tmp_path: Path) -> None:
    found = read_text(tmp_path, """
        machines.maximum = 7
        [connections]
        per-user = 3        # few
        [addresses]
        leases = false
        dnsmasq-lease-files = [
            "/srv/a.leases",
            "/srv/a.leases",
        ]
        """)
    assert not found.problems
    assert found.settings.machines.maximum == 7
    assert found.settings.connections.per_user == 3
    assert found.settings.connections.maximum == Settings().connections.maximum
    assert not found.settings.addresses.leases
    assert found.settings.addresses.dnsmasq_lease_files == ("/srv/a.leases",)


def test_drop_ins_count_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "mymachinesd.toml.d").mkdir()
    (tmp_path / "mymachinesd.toml.d" / "99-not-toml.conf").write_text("no TOML at all")
    found = read_text(tmp_path, "[machines]\nmaximum = 1\n[log]\nlevel = 'debug'",
                      b="machines.maximum = 3", a="machines.maximum = 2\nconnections.per-user = 9")
    assert not found.problems
    assert (found.settings.machines.maximum, found.settings.log.level, found.settings.connections.per_user) \
        == (3, "debug", 9)
    assert [os.path.basename(name) for name in found.files] == ["mymachinesd.toml", "a.toml", "b.toml"]


def test_the_example_sets_everything_to_its_default(tmp_path: Path) -> None:
    found = read_text(tmp_path, example())
    assert (found.settings, found.problems) == (Settings(), ())


def test_the_page_tells_of_these_settings() -> None:
    """Where it does not: `python -m resolver.config.reference >docs/configuration.md`."""
    assert (PROJECT / "docs/configuration.md").read_text() == reference()


@pytest.mark.parametrize(("text", "expected"), [
    ("[machines]\n\nmaximum = 0\n", ":3: [machines] maximum must be a number from 1 to 65536"),
    ("[machines]\nmaximum = true\n", ":2: [machines] maximum must be a number from 1 to 65536"),
    ("# one\n# two\nmachines.maximum = 1.5", ":3: [machines] maximum must be a number from 1 to 65536"),
    ("machines = { maximum = 'x' }", ":1: [machines] maximum must be a number from 1 to 65536"),
    ("[log]\nlevel = 'loud'", ':2: [log] level must be one of "error", "warning", "info", "debug"'),
    ("[addresses]\nleases = 1", ":2: [addresses] leases must be true or false"),
    ("[addresses]\n\n\ndnsmasq-lease-files = [\n'/a',\n'b']\n",
     ":4: [addresses] dnsmasq-lease-files must be a list of absolute paths; 'b' is none"),
    ("[addresses]\ndnsmasq-lease-files = '/a'", ":2: [addresses] dnsmasq-lease-files must be a list of absolute paths"),
    ("[metrics]\nlisten = ['localhost:1']", f":2: [metrics] listen must be {Places().text}; 'localhost:1' is none"),
    ("[machines]\nmaximun = 1", ":2: [machines] has no 'maximun'; it has maximum"),
    ("[connections]\nper_user = 1", ":2: [connections] has no 'per_user'; it has maximum, per-user, reserved-for-root"),
    ("\n[nets]\na = 1", f":3: there is no section 'nets': {SECTIONS}"),
    ("level = 'info'", f":1: there is no setting 'level': {SECTIONS}"),
    ("[connections]\nmaximum = 100\nreserved-for-root = 100",
     ":3: [connections] reserved-for-root must be less than maximum"),
])
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    assert problems(tmp_path, text) == [f"mymachinesd.toml{expected}"]


@pytest.mark.parametrize(("text", "line"), [("[log]\nlevel = info", 2), ("\n\n[log", 3), ("a = [1,\n2,\n", 3)])
def test_what_is_no_toml(tmp_path: Path, text: str, line: int) -> None:
    """The reason is tomllib's, in its own words."""
    [problem] = problems(tmp_path, text)
    assert problem.startswith(f"mymachinesd.toml:{line}: this is no TOML: ")


def test_what_is_right_counts_whatever_else_is_wrong(tmp_path: Path) -> None:
    found = read_text(tmp_path, "[machines]\nmaximum = 5\n[log]\nlevel = 3\n", a="no toml", b="log.level = 'error'")
    assert (found.settings.machines.maximum, found.settings.log.level) == (5, "error")
    assert [(os.path.basename(problem.path), problem.line) for problem in found.problems] \
        == [("mymachinesd.toml", 4), ("a.toml", 1)]


def test_a_contradiction_between_two_files_is_the_later_one_s(tmp_path: Path) -> None:
    found = read_text(tmp_path, "connections.maximum = 300", a="connections.reserved-for-root = 300")
    assert [(os.path.basename(problem.path), problem.line) for problem in found.problems] == [("a.toml", 1)]
    assert (found.settings.connections.maximum, found.settings.connections.reserved_for_root) == (300, 256)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def long(path: Path) -> None:
    path.write_bytes(b"#" * (read.FILE_MAX + 1))


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe")


def everybodys(path: Path) -> None:
    path.write_text("machines.maximum = 1")
    path.chmod(0o666)


@pytest.mark.parametrize(("make", "reason"), [
    (fifo, "it is no regular file"), (folder, "Is a directory"), (endless, "it is no regular file"),
    (long, f"it has more than {read.FILE_MAX} bytes"), (no_text, "it is not UTF-8"),
    (everybodys, "others than root may write it")])
def test_what_is_not_read(tmp_path: Path, make: Any, reason: str) -> None:
    path = tmp_path / "mymachinesd.toml"
    make(path)
    found = read_configuration(str(path))
    assert [str(problem) for problem in found.problems] == [f"{path}: not read: {reason}"]
    assert found.settings == Settings()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_file_of_somebody_else_s(tmp_path: Path) -> None:
    path = tmp_path / "mymachinesd.toml"
    path.write_text("machines.maximum = 1")
    os.chown(path, 1000, 0)
    assert read_configuration(str(path)).settings == Settings()


@given(st.text(st.sampled_from("[]{}=.\"'#\n ab1,"), max_size=60))
def test_lines_are_found_in_whatever_is_toml(text: str) -> None:
    lines = text.count("\n") + 1
    assert all(1 <= number <= lines for number in lines_of(text).values())
