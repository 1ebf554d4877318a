# SPDX-License-Identifier: MIT
"""python -m tests.soak.callers [CONNECTIONS [ROUNDS [DOOR...]]]: what others notice of one hostile user. As root.

For each socket and each kind of caller, quiet and attacked phases take turns; all the time 50 machines are there, of
which ten a second go and come. The ratio is of the medians over all phases, which a machine that is busy otherwise
blurs; the worst delay is that of one request. Memory is the server's PSS, before the first and behind the last attack.
"""

import statistics
import sys

from tests.soak.callers.world import World

CONNECTIONS, ROUNDS = 10_000, 3
QUESTIONS = 300
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
    held, descriptors, before = 0, 0, world.weight(door)
    for _ in range(rounds):
        answers = world.ask(door, QUESTIONS)
        quiet += answers.seconds
        failed += answers.failed
        with world.hog(door, how, count) as open_now:
            held = max(held, open_now)
            answers = world.ask(door, QUESTIONS)
            attacked += answers.seconds
            failed += answers.failed
            descriptors = max(descriptors, world.weight(door).descriptors)
    after = world.weight(door)
    world.daemon.assert_alive()
    ratio = statistics.median(attacked) / statistics.median(quiet) if attacked else float("inf")
    print(f"  {door:9}{how:6}{count:6} opened, {descriptors - before.descriptors:5} held by the server; "
          f"median {statistics.median(quiet) * 1e3:.2f} ms quiet, {statistics.median(attacked) * 1e3:.2f} attacked, "
          f"ratio {ratio:.2f}; worst {max(quiet) * 1e3:.0f} and {max(attacked) * 1e3:.0f} ms; "
          f"{len(failed)} of {2 * rounds * QUESTIONS} not served; "
          f"PSS {before.memory / 2**20:.1f} to {after.memory / 2**20:.1f} MB", flush=True)
    return not failed and ratio <= 2


def main() -> int:
    connections, rounds = (int(word) for word in (sys.argv[1:3] + [str(CONNECTIONS), str(ROUNDS)][len(sys.argv[1:3]):]))
    with World() as world, world.churn(MACHINES):
        chosen = sys.argv[3:] or list(world.doors)
        good = [attack(world, door, how, connections, rounds) for door in chosen for how in HOWS]
    print(f"{good.count(True)} of {len(good)}: all served, with no more than twice the delay")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
