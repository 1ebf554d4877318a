# SPDX-License-Identifier: MIT
"""python -m tests.soak.callers.churn COUNT: so many machines more, of which one goes and comes ten times a second.

As root. Says "ready" when all are registered; ends, and takes them along, with its standard input.
"""

import select
import subprocess
import sys

from resolver.varlink.client import Client
from tests.soak.callers.doors import PATIENCE

MACHINE = "io.systemd.Machine"
SOCKET = f"/run/systemd/machine/{MACHINE}"
PERIOD = 0.1


def main() -> None:
    leaders = [subprocess.Popen(["sleep", "infinity"]) for _ in range(int(sys.argv[1]))]
    try:
        def register(number: int) -> None:
            with Client(SOCKET, PATIENCE) as client:
                # A long name, as clusters give them: what is told of it is as long.
                client.call(f"{MACHINE}.Register", {"name": f"churn-{number:04}-{'x' * 40}", "class": "container",
                                                    "leader": leaders[number].pid})

        for number in range(len(leaders)):
            register(number)
        print("ready", flush=True)
        number = 0
        while not select.select([sys.stdin], [], [], PERIOD)[0]:
            with Client(SOCKET, PATIENCE) as client:
                client.call(f"{MACHINE}.Unregister", {"name": f"churn-{number:04}-{'x' * 40}"})
            register(number)
            number = (number + 1) % len(leaders)
    finally:
        for leader in leaders:
            leader.kill()
            leader.wait()


if __name__ == "__main__":
    main()
