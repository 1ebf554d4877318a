# SPDX-License-Identifier: MIT
"""What top shows fits, whatever there is to show, and says what it leaves out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.cli.top_view import MachineRow, UserRow, View, lines, memory_text


def machine(name: str, memory: int | None = 1 << 20, **fields: object) -> MachineRow:
    values = {"machine_class": "container", "addresses": ["10.0.0.1", "fd00::1"], "processes": 3, "users": 2,
              "exact": True, "cut": False, "rate": 0.5, **fields}
    return MachineRow(name=name, memory=memory, **values)  # type: ignore[arg-type]


def view(machines: int, users: int) -> View:
    return View([machine(f"m{n}") for n in range(machines)], [UserRow(f"vu-m0-{n}", "m0", 1, n) for n in range(users)],
                "12:00:00", 1.5, True)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 120), st.integers(1, 40))
def test_it_fits(machines: int, users: int, width: int, height: int) -> None:
    shown = lines(view(machines, users), width, height)
    assert len(shown) <= height
    assert all(len(line.text) <= width for line in shown)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(14, 80))
def test_what_is_left_out_is_counted(machines: int, users: int, height: int) -> None:
    texts = [line.text for line in lines(view(machines, users), 200, height)]
    said = [int(text.split()[2]) for text in texts if text.startswith("... and ")]
    rows = sum(text.startswith(("m", "vu-")) for text in texts)
    assert rows + sum(said) == machines + users


def test_without_a_size_all_is_there() -> None:
    texts = [line.text for line in lines(view(100, 100))]
    assert sum(text.startswith("m") for text in texts) == 100
    assert sum(text.startswith("vu-") for text in texts) == 100


def test_the_largest_come_first_and_control_characters_do_nothing() -> None:
    shown = lines(View([machine("small", 5), machine("none", None), machine("large", 1 << 30, exact=False, cut=True)],
                       [UserRow("\x1b[2J", "large", 1, 1)], "12:00:00", None, False))
    assert [line.text.split()[0] for line in shown[3:6]] == ["large", "small", "none"]
    assert shown[3].text.split()[2:5] == ["3+", "2", "~1.0G"]
    assert shown[5].text.split()[4] == "-"
    assert shown[0].text == "mymachinesd is away; 12:00:00, 3 machines, 9 processes, ~1.0G"
    assert shown[0].style == "away"
    assert "\x1b" not in "".join(line.text for line in shown)


@pytest.mark.parametrize(("count", "text"), [(0, "0B"), (999, "999B"), (1000, "1.0K"), (1 << 20, "1.0M"),
                                             (123 << 20, "123M"), (1 << 40, "1.0T"), (5000 << 50, "5000P")])
def test_memory_has_three_digits(count: int, text: str) -> None:
    assert memory_text(count, True) == text
    assert memory_text(count, False) == f"~{text}"
