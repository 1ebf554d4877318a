# SPDX-License-Identifier: MIT
"""A real systemd-machined in the way: at the bus, or beside us."""

import json
import os
import shutil
from collections.abc import Iterator

from resolver.doctor.children import run
from resolver.doctor.finding import Finding, Level, ok
from resolver.doctor.sockets import program
from resolver.host.process import NoSuchProcess, Process

BUS_NAME = "org.freedesktop.machine1"

BUS_SECONDS = 3.0

THEIRS = "systemd-machined"

TAKE_OVER = "systemctl enable --now mymachinesd && systemctl stop systemd-machined && systemctl restart mymachinesd"


def check() -> Iterator[Finding]:
    owner, trouble = _bus_owner()
    if trouble:
        yield Finding(Level.NOTE, f"who owns {BUS_NAME} is not known: {trouble}",
                      "machinectl and libvirt ask there; look-ups do not")
    elif owner == 0:
        yield Finding(Level.NOTE, f"nobody owns {BUS_NAME}",
                      "machinectl and libvirt have it started where it can be; look-ups do not ask there")
    elif executable(owner) == THEIRS:
        yield Finding(Level.BROKEN, f"{BUS_NAME} is {THEIRS}'s, pid {owner}",
                      "machinectl, systemd-nspawn and libvirt talk to it: mymachinesd does not learn of their machines",
                      TAKE_OVER)
    else:
        yield ok(f"{BUS_NAME} is pid {owner}'s ({program(owner)})")
    for pid in _running():
        if pid != owner:
            yield Finding(Level.WARNING, f"{THEIRS} runs, pid {pid}",
                          "two keep /run/systemd/machines, and each undoes what the other wrote", TAKE_OVER)


def _bus_owner() -> tuple[int, str]:
    """The pid, 0 for none; or why it cannot be told."""
    busctl = shutil.which("busctl")
    if busctl is None:
        return 0, "there is no busctl"
    output, ended = run([busctl, "--system", "--json=short", "--timeout=2", "call", "org.freedesktop.DBus",
                         "/org/freedesktop/DBus", "org.freedesktop.DBus", "ListNames"], BUS_SECONDS)
    if not ended:
        return 0, "the bus does not answer"
    if not output:
        return 0, "there is no system bus"
    if BUS_NAME not in json.loads(output)["data"][0]:
        return 0, ""
    output, _ = run([busctl, "--system", "--json=short", "--timeout=2", "call", "org.freedesktop.DBus",
                     "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetConnectionUnixProcessID", "s", BUS_NAME],
                    BUS_SECONDS)
    return (int(json.loads(output)["data"][0]), "") if output else (0, "the bus does not say")


def executable(pid: int) -> str:
    """The base name of what a process runs; empty where it is not ours to know."""
    try:
        with Process.open(pid):
            return os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")
    except (NoSuchProcess, OSError):
        return ""


def _running() -> Iterator[int]:
    """Where this host's own would be: in our pid and network namespaces, so not one inside a container."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and executable(int(entry)) == THEIRS:
            try:
                with Process.open(int(entry)) as process:
                    if process.shares_namespace("pid") and process.shares_namespace("net"):
                        yield process.pid
            except (NoSuchProcess, OSError):
                continue
