# SPDX-License-Identifier: MIT
"""Real hosts and real containers for tests, made of namespaces; standard library only.

    with TestHost() as host:    # from tests.lab import TestHost, command
        host.start_daemon()
        web = host.container("web")
        host.run([*command("mymachinesctl"), "register", "web", "--leader", str(web.leader)], check=True)
        print(host.run(["getent", "ahosts", "web"]).stdout)

Layers, from below: waiting; processes; cgroups, daemon; host, with inside.py as its program; container; leftovers.
"""

from .container import Container
from .daemon import Daemon
from .host import BUILD, FIRST_CONTAINER_ID, PROJECT, TestHost, command
from .waiting import Unavailable, wait_for

__all__ = [
    "BUILD",
    "FIRST_CONTAINER_ID",
    "PROJECT",
    "Container",
    "Daemon",
    "TestHost",
    "Unavailable",
    "command",
    "wait_for",
]
