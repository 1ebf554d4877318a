# SPDX-License-Identifier: MIT
"""The machine `.host`: this host itself, as machinectl and sd-bus clients know it."""

import re
import time

from resolver.core.machine import Machine, MachineClass
from resolver.host.process import Process

NAME = ".host"
ROOT_SLICE = "-.slice"
MACHINE_ID_PATH = "/etc/machine-id"

_MACHINE_ID = re.compile(rb"([0-9a-f]{32})\n?")


def host_machine() -> Machine:
    """It exists since the host was started: that is its timestamp, and 0 on the clock that began then.

    NoSuchProcess where there is no process 1 to be seen.
    """
    with Process.open(1) as init:
        leader = init.identity()
    # Read together, the clocks' difference is the time of boot as well as the two agree now (clock_gettime(2));
    # CLOCK_BOOTTIME, for the host may have slept.
    booted = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return Machine(name=NAME, machine_class=MachineClass.HOST, leader=leader, id=_machine_id(), root_directory="/",
                   unit=ROOT_SLICE, realtime=booted // 1000, monotonic=0)


def _machine_id() -> bytes | None:
    """None where it is not set up yet: absent, empty or `uninitialized` (machine-id(5))."""
    try:
        with open(MACHINE_ID_PATH, "rb") as file:
            found = _MACHINE_ID.fullmatch(file.read(64))
    except OSError:
        return None
    return bytes.fromhex(found[1].decode()) if found else None
