# SPDX-License-Identifier: MIT
"""python -m tests.soak.callers [CONNECTIONS [ROUNDS [DOOR...]]]: what others notice of one hostile user. As root.

For each socket and each kind of caller, quiet and attacked phases take turns; all the time 50 machines are there, of
which ten a second go and come. Each round's medians give a ratio, and the median of these is told: a machine that is
busy otherwise blurs single ones. The worst delay is that of one request. Memory is the server's PSS, before the first
and behind the last attack.
"""

import argparse
import statistics
import sys

from tests.soak.callers.world import World

CONNECTIONS, ROUNDS = 10_000, 5
QUESTIONS = 200
"""Of each phase."""

MACHINES = 50
HOWS = "idle", "half", "slow"
BUS_CONNECTIONS = 300
"""dbus-daemon refuses one user's 257th, and says so slowly."""


def attack(world: World, door: str, how: str, connections: int, rounds: int) -> bool:
    """Prints a line; whether all were served, with no more than twice the delay."""
    count = min(connections, BUS_CONNECTIONS) if door == "dbus" else connections
    quiet: list[float] = []
    attacked: list[float] = []
    failed: list[str] = []
    ratios: list[float] = []
    descriptors, before = 0, world.weight(door)
    for _ in range(rounds):
        before_it = world.ask(door, QUESTIONS)
        with world.hog(door, how, count):
            during_it = world.ask(door, QUESTIONS)
            descriptors = max(descriptors, world.weight(door).descriptors)
        quiet += before_it.seconds
        attacked += during_it.seconds
        failed += [*before_it.failed, *during_it.failed]
        ratios.append(statistics.median(during_it.seconds) / statistics.median(before_it.seconds)
                      if during_it.seconds and before_it.seconds else float("inf"))
    after = world.weight(door)
    world.daemon.assert_alive()
    ratio = statistics.median(ratios)
    print(f"  {door:9}{how:6}{count:6} opened, {descriptors - before.descriptors:5} held by the server; "
          f"median {statistics.median(quiet or [0]) * 1e3:.2f} ms quiet, "
          f"{statistics.median(attacked or [0]) * 1e3:.2f} attacked, "
          f"ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}); "
          f"worst {max(quiet, default=0) * 1e3:.0f} and {max(attacked, default=0) * 1e3:.0f} ms; "
          f"{len(failed)} of {2 * rounds * QUESTIONS} not served; "
          f"PSS {before.memory / 2**20:.1f} to {after.memory / 2**20:.1f} MB", flush=True)
    return not failed and ratio <= 2


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.callers", description=__doc__)
    parser.add_argument("connections", type=int, nargs="?", default=CONNECTIONS)
    parser.add_argument("rounds", type=int, nargs="?", default=ROUNDS)
    parser.add_argument("doors", metavar="door", nargs="*", help="a server's socket (doors.py); without, all")
    options = parser.parse_args()
    with World() as world, world.churn(MACHINES):
        if unknown := set(options.doors) - set(world.doors):
            parser.error(f"{', '.join(sorted(unknown))}: not one of {', '.join(world.doors)}")
        good = [attack(world, door, how, options.connections, options.rounds)
                for door in options.doors or world.doors for how in HOWS]
    print(f"{good.count(True)} of {len(good)}: all served, with no more than twice the delay")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
