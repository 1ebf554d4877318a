# SPDX-License-Identifier: MIT
"""Frozen dataclasses with other values."""

from dataclasses import dataclass, replace

import pytest

from resolver.core.frozen import but


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0
    name: str = ""


def test_it_is_what_replace_gives() -> None:
    point = Point(1, 2, "a")
    assert but(point, y=5) == replace(point, y=5) == Point(1, 5, "a")
    assert but(point) == point
    assert point == Point(1, 2, "a")
    assert hash(but(point, y=5)) == hash(Point(1, 5, "a"))


def test_there_is_no_such_field() -> None:
    with pytest.raises(TypeError, match="Point has no z"):
        but(Point(1), z=3)
