# SPDX-License-Identifier: MIT
"""Hostile calls to the real servers. Afterwards they must live, have logged no bug, and be no bigger."""

import json
import sys
from pathlib import Path
from typing import Any

from tests.lab import PROJECT
from tests.soak.callers.world import World
from tests.soak.mutant import Bug, mutant

MEMORY_GROWTH_MAX = 32 * 2**20
"""Bytes, over any number of calls: Python keeps some of what was used once."""

BEHIND = {"varlink": ("machine", "userdb", "hook"), "dbus": ("dbus",)}
"""Which doors' servers each speaks to."""

CONTROLS = {
    "varlink": Bug("resolver/hook/resolve.py", ' or not 0 < key["type"] <= RDATA_TYPE_MAX', ""),
    "dbus": Bug("resolver/dbus/objects.py", "if bound is None or name not in bound.interface.properties:",
                "if bound is None:"),
}


class Found(Exception):
    """What should not have happened."""


def attack(kind: str, seconds: float, seed: int = 1, folder: Path | None = None) -> dict[str, Any]:
    """Figures, of the calls and of memory in bytes. Found, with the log, where a server suffers."""
    with World(folder) as world:
        world.ask("machine", 10)
        before = {door: world.weight(door).memory for door in BEHIND[kind]}
        command = [sys.executable, "-P", "-m", f"tests.soak.protocols.{kind}", str(seconds), str(seed)]
        if kind == "dbus":
            command.append(world.doors["dbus"].place)
        done = world.host.run(command, env=world.environment, cwd=PROJECT, timeout=seconds + 120)
        log = world.daemon.log + world.hook.log
        if done.returncode or "Traceback" in log:
            raise Found(f"{done.stderr[-2000:]}\n{log[-4000:]}")
        world.daemon.assert_alive()
        world.hook.assert_alive()
        after = {door: world.weight(door).memory for door in BEHIND[kind]}
        if any(after[door] - before[door] > MEMORY_GROWTH_MAX for door in before):
            raise Found(f"memory: {before} became {after}")
        figures: dict[str, Any] = json.loads(done.stdout)
        return {**figures, "memory": {door: (before[door], after[door]) for door in before}}


def control(kind: str, seconds: float) -> bool:
    """Whether the bug that is planted in a copy is found."""
    with mutant(CONTROLS[kind]) as folder:
        try:
            attack(kind, seconds, folder=folder)
        except Found:
            return True
    return False
