# SPDX-License-Identifier: MIT
"""What asks about images and changes them: machinectl, busctl and varlinkctl of systemd 257."""

import json
import re
import subprocess
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.host.booted import USER_ID, BootedHost

DESTINATION = "org.freedesktop.machine1"
MANAGER = [DESTINATION, "/org/freedesktop/machine1", "org.freedesktop.machine1.Manager"]
SOCKET = "/run/systemd/machine/io.systemd.MachineImage"
NO_SUCH = "io.systemd.MachineImage.NoSuchImage"
INVALID = "org.varlink.service.InvalidParameter"

BAD_NAMES = ["..", ".", "/", "", "a/b", "../web", "x" * 300, "a\tb", ".#temporary"]


class Failure(NamedTuple):
    """An error as a client gets it. Of D-Bus: name and message; of Varlink: name and parameters."""

    name: str
    detail: str


def machinectl(host: BootedHost, *arguments: str, uid: int = 0) -> subprocess.CompletedProcess[str]:
    words = ["machinectl", "--no-ask-password", *arguments]
    return host.unit_run(words, uid=uid, check=False) if uid else host.run(words, check=False)


def fails(host: BootedHost, *arguments: str, uid: int = 0) -> str:
    """What machinectl says when it fails, as it must."""
    done = machinectl(host, *arguments, uid=uid)
    assert done.returncode == 1, done
    return done.stderr.rstrip("\n")


def listed(host: BootedHost, *options: str) -> dict[str, dict[str, Any]]:
    """By name what `machinectl list-images --output=json` tells."""
    found = json.loads(host.out(["machinectl", "list-images", "--output=json", *options]))
    return {image["name"]: image for image in found}


def shown(host: BootedHost, name: str) -> dict[str, str]:
    """All properties, as machinectl prints them."""
    return dict(line.split("=", 1) for line in host.out(["machinectl", "show-image", "--", name]).splitlines())


def bus(host: BootedHost, method: str, *arguments: str, uid: int = 0) -> str:
    """The reply of a method of the manager."""
    words = ["busctl", "call", *MANAGER, method, *arguments]
    return (host.unit_run(words, uid=uid).stdout if uid else host.out(words)).rstrip("\n")


def bus_fails(host: BootedHost, method: str, *arguments: str, image: str = "") -> Failure:
    """The error that a call must end in: of the manager's, or of the object that has this path's last part."""
    target = [DESTINATION, f"/org/freedesktop/machine1/image/{image}", "org.freedesktop.machine1.Image"]
    done = host.run(["env", "SYSTEMD_LOG_LEVEL=debug", "busctl", "call", *(target if image else MANAGER), method, "--",
                     *arguments], check=False)
    assert done.returncode != 0, done
    errors = re.findall(r"type=error .*error-name=(\S+) error-message=(.*)", done.stderr)
    assert errors, done.stderr
    return Failure(*errors[-1])


def varlinkctl(host: BootedHost, method: str, *, more: bool = False, uid: int = 0,
               **parameters: Any) -> subprocess.CompletedProcess[str]:
    words = ["varlinkctl", "--json=short", *(["--more"] if more else []), "call", SOCKET,
             f"io.systemd.MachineImage.{method}", json.dumps(parameters)]
    return host.unit_run(words, uid=uid, check=False) if uid else host.run(words, check=False)


def replies(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line.lstrip("\x1e")) for line in done.stdout.split("\n") if line]    # RFC 7464


def call(host: BootedHost, method: str, **parameters: Any) -> list[dict[str, Any]]:
    """The replies; `more` asks for many."""
    done = varlinkctl(host, method, **parameters)
    assert done.returncode == 0, done.stderr
    return replies(done)


def call_fails(host: BootedHost, method: str, **parameters: Any) -> Failure:
    """The error that a call must end in, with its parameters as varlinkctl prints them."""
    done = varlinkctl(host, method, **parameters)
    assert done.returncode != 0, done
    names: list[str] = re.findall(r"failed: (\S+)", done.stderr)
    assert names, done.stderr
    return Failure(names[-1], done.stdout.rstrip("\n"))


def as_alice(host: BootedHost, argv: Sequence[str]) -> tuple[int, str]:
    done = host.unit_run(argv, uid=USER_ID, check=False)
    return done.returncode, done.stdout + done.stderr
