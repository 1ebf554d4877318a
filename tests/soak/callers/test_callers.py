# SPDX-License-Identifier: MIT
"""Two thousand connections of one unprivileged user: others are served, and all counts are bounded. No times."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from resolver.dns.tcp import CONNECTIONS_BY_SOURCE
from resolver.nss_server import CONNECTIONS_BY_UID
from resolver.varlink.server import Limits
from tests.soak.callers.world import World

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

CONNECTIONS, QUESTIONS, MACHINES = 2000, 60, 20
MEMORY_GROWTH_MAX = 32 * 2**20
"""Bytes. 512 connections with half a message each have some 2 MB; Python keeps some of what was used once."""

MARGIN = 32
"""Descriptors beside the hostile ones: machines, and requests under way."""

VARLINK = Limits().connections_by_uid
HELD_MAX = {"machine": VARLINK, "watch": VARLINK, "userdb": VARLINK, "hook": VARLINK, "nss.sock": CONNECTIONS_BY_UID,
            "dns": CONNECTIONS_BY_SOURCE, "dbus": 0}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as world, world.churn(MACHINES):
        yield world


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> None:
    """In place of conftest's: the world lives longer than one test, and its TestHost looks for what stays."""


@pytest.mark.parametrize("door", HELD_MAX)
def test_others_are_served(world: World, door: str) -> None:
    before = world.weight(door)
    with world.hog(door, "mixed", 200 if door == "dbus" else CONNECTIONS):
        answers = world.ask(door, QUESTIONS)
        attacked = world.weight(door)
    assert not answers.failed
    assert len(answers.seconds) == QUESTIONS
    assert attacked.descriptors - before.descriptors <= HELD_MAX[door] + MARGIN
    assert attacked.memory - before.memory < MEMORY_GROWTH_MAX
    world.daemon.assert_alive()
    assert "Traceback" not in world.daemon.log + world.hook.log + world.dns.log


def test_the_hostile_user_is_no_root(world: World) -> None:
    """What is measured is what anybody may do: the sockets are everybody's, and the callers have no privileges."""
    for door in ("machine", "userdb", "hook", "nss.sock"):
        path = Path(f"/proc/{world.host.pid}/root{world.doors[door].place}")
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
