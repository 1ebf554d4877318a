# SPDX-License-Identifier: MIT
"""The bench's own arithmetic, and that its parts run, in miniature. No test here asks how fast anything is."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import plots, section_lookups, section_scale
from tests.bench.figures import Pairs, Row, figure, in_turns, percentile, ratio, times_faster
from tests.bench.leaders import Leaders
from tests.bench.programs import Programs
from tests.bench.record import BEGIN, END, PAGE, Record, Section, with_table
from tests.bench.settings import Settings, miniature
from tests.bench.table import as_ratio, cells, for_terminal, number, summary, verdict
from tests.lab import TestHost
from tests.lab.processes import is_alive, namespace

ROW = Row.of_pairs("a look-up", "us", "theirs", Pairs(0.3, 0.6, 0.5, 0.25), figure(0.2), times_faster(2), machines=10)


# --- arithmetic ---

def test_pairs_are_compared_pair_by_pair() -> None:
    """A machine that is ten times slower for a while says nothing of either side."""
    pairs = Pairs.of([(1.0, 2.0), (10.0, 20.0), (1.0, 4.0)])
    assert pairs == Pairs(1.0, 4.0, 0.5, 1.0)


def test_who_is_first_changes() -> None:
    order: list[str] = []

    def side(name: str) -> str:
        order.append(name)
        return name

    assert in_turns(3, lambda: side("ours"), lambda: side("theirs")) == [("ours", "theirs")] * 3
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]


@pytest.mark.parametrize(("hundredths", "expected"), [(50, 50), (99, 99), (100, 100), (0, 1)])
def test_percentiles(hundredths: float, expected: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], hundredths) == expected


def test_percentile_of_few_is_the_largest() -> None:
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0


def test_an_aim_is_of_the_figure_or_of_the_ratio() -> None:
    assert [ROW.met(aim) for aim in ROW.aims] == [False, True]
    assert not ROW.met(times_faster(3))
    assert ROW.met(ratio(0.5))
    with pytest.raises(ValueError, match="compared with nothing"):
        Row("alone", 1, "us").met(ratio(1))


# --- the table ---

@pytest.mark.parametrize(("value", "text"), [(0.0471, "0.0471"), (1439.6, "1,440"), (999.4, "999"), (0.0, "0")])
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(1.25, "1.25"), (0.5, "0.5"), (1 / 5000, "1/5,000"), (0, ""), (None, "")])
def test_ratios_below_a_tenth_are_fractions(value: float | None, text: str) -> None:
    assert as_ratio(value) == text


def test_a_missed_aim_says_by_how_much() -> None:
    assert [verdict(ROW, aim) for aim in ROW.aims] == ["no: 1.5 times", "yes"]
    assert verdict(Row("failures", 3, "", aims=(figure(0),)), figure(0)) == "no: 3"
    assert cells(ROW) == ("a look-up", "10", "0.3 us", "0.25 us", "", "theirs", "0.6 us", "0.5", "0.2 us; ratio 0.5",
                          "no: 1.5 times; yes")
    assert summary([ROW]) == "1 of 2 aims are met"
    assert "a look-up" in for_terminal([("Title", [ROW])])


# --- the record ---

def test_a_section_is_the_same_after_json() -> None:
    section = Section("lookups", "Look-ups", [ROW], 1.5, 0.25)
    assert Section.from_json(json.loads(json.dumps(section.as_json()))) == section


def test_the_page_keeps_what_is_outside_the_marks() -> None:
    section = Section("lookups", "Look-ups", [ROW], 1.5, 0.25)
    page = with_table(f"before\n{BEGIN}old\n{END}after\n", [section])
    assert page.startswith(f"before\n{BEGIN}Measured ")
    assert page.endswith(f"{END}after\n")
    assert "old" not in page
    assert "| a look-up | 10 | 0.3 us |" in page
    assert with_table(page, [section]) == page


def test_the_page_is_made_from_the_record() -> None:
    page = PAGE.read_text()
    assert with_table(page, list(Record.read().sections.values())) == page


def test_plots_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    drawn = plots.draw([Section("lookups", "Look-ups", [ROW], 1.5, 0.25)], tmp_path)
    assert [path.name for path in drawn] == ["performance-lookups.svg", "performance-aims.svg"]
    again = [path.read_bytes() for path in drawn]
    assert [path.read_bytes() for path in plots.draw([Section("lookups", "L", [ROW], 1, 1)], tmp_path)] == again
    assert b"a look-up" in again[0]


# --- what measures ---

@pytest.fixture
def settings() -> Iterator[Settings]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with Programs() as programs:
        yield miniature(programs)


def test_leaders_are_machines_of_their_own(settings: Settings, host: TestHost) -> None:
    with Leaders(settings.programs, host, 6, 2, units=True) as leaders:
        assert len({namespace(pid, "user") for pid in leaders.pids}) == 6
        networks = [namespace(pid, "net") for pid in leaders.pids]
        assert len(set(networks)) == 2
        assert networks[2:4] == networks[:2]
        assert namespace(host.pid, "net") not in networks
        uid_map = Path(f"/proc/{leaders.pids[3]}/uid_map").read_text().split()
        assert uid_map == ["0", str(leaders.first_id(3)), "65536"]
        assert "/m3.scope" in Path(f"/proc/{leaders.pids[3]}/cgroup").read_text()
        for network in range(2):
            for last in (2, 3, 4):
                assert host.run(["ping", "-nc1", "-W5", leaders.address(network, last)]).returncode == 0
    assert not any(map(is_alive, leaders.pids))


def test_what_is_not_found_is_no_measurement(settings: Settings, host: TestHost) -> None:
    host.start_daemon()
    keys = settings.programs.keys(["nobody"])
    with pytest.raises(AssertionError, match="found something"):
        settings.programs.lookups_at_once(host, 2, "mymachines", "host", keys, 10)
    with pytest.raises(AssertionError, match="registrations failed"):
        settings.programs.register(host, "varlink", [("web", 2**22 + 1)])


@pytest.mark.parametrize("section", [section_lookups, section_scale])
def test_sections_run_in_miniature(settings: Settings, section: object) -> None:
    rows = list(section.run(settings))  # type: ignore[attr-defined]
    assert all(row.ours > 0 for row in rows if row.unit)
    assert all(row.theirs and row.ratio for row in rows if row.peer)
    assert summary(rows).endswith("aims are met")
