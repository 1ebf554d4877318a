# SPDX-License-Identifier: MIT
"""What the units may: no more than systemd-machined's on the same host, each line of it explained."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pytest

from tests.lab import PROJECT

from .booted import AGAINST_MACHINED, BootedHost

pytestmark = pytest.mark.skipif(AGAINST_MACHINED, reason="about mymachinesd's units")

PAGE = PROJECT / "docs/confinement.md"
OUR_UNITS = sorted(path.name for path in (PROJECT / "system").glob("mymachine*.service"))
MACHINED = "/usr/lib/systemd/system/systemd-machined.service"
COPY = "theirs.service"


class Checked(NamedTuple):
    """What `systemd-analyze security` finds: how much is left to a unit, of 10, and which settings restrict it."""

    exposure: float
    settings: Mapping[str, bool]


def checked(host: BootedHost, unit: str) -> Checked:
    words = ["systemd-analyze", "security", "--no-pager"]
    exposure = re.findall(r"Overall exposure level for \S+: ([\d.]+)", host.out([*words, unit]))
    found = json.loads(host.out([*words, "--json=short", unit]))
    return Checked(float(exposure[0]), {check["name"]: check["set"] for check in found if check["set"] is not None})


@pytest.fixture(scope="module")
def theirs(booted: BootedHost) -> Iterator[Checked]:
    """systemd-machined's unit, under another name: its own is an alias of ours. A second one cannot have a BusName."""
    booted.run(f"grep -v BusName= {MACHINED} >/run/systemd/system/{COPY}; systemctl daemon-reload")
    yield checked(booted, COPY)
    booted.run(f"rm /run/systemd/system/{COPY}; systemctl daemon-reload")


@pytest.mark.parametrize("unit", OUR_UNITS)
def test_no_unit_is_more_exposed_than_machined(booted: BootedHost, theirs: Checked, unit: str) -> None:
    ours = checked(booted, unit)
    assert ours.exposure <= theirs.exposure
    print(f"{unit}: {ours.exposure}, systemd-machined: {theirs.exposure}")


def explained() -> Mapping[str, bool]:
    """The page's table: each check of systemd-analyze, and whether mymachinesd's unit passes it."""
    rows = re.findall(r"(?m)^\| `([^`]+)` \| (yes|no) \| \S", PAGE.read_text())
    assert len(rows) == len(dict(rows))
    return {name.replace("\\|", "|"): passes == "yes" for name, passes in rows}


def test_each_line_of_the_daemons_unit_is_explained(booted: BootedHost) -> None:
    assert checked(booted, "mymachinesd.service").settings == explained()
