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
SYSTEM = "io.systemd.System"
NOT_ALLOWED = "io.systemd.InteractiveAuthenticationRequired"

BUS_ERRORS = {
    "No such image": "org.freedesktop.machine1.NoSuchImage",
    "Exists": "org.freedesktop.DBus.Error.FileExists",
    "Busy": "System.Error.EBUSY",
    "Read-only": "System.Error.EROFS",
    "Not supported": "org.freedesktop.DBus.Error.NotSupported",
    "Invalid": "org.freedesktop.DBus.Error.InvalidArgs",
    "Not allowed": "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
    "No such object": "org.freedesktop.DBus.Error.UnknownObject",
}
"""What systemd-machined 257 answers with."""

BAD_NAMES = ["..", ".", "/", "", "a/b", "../web", "x" * 300, "a\tb", ".#temporary"]


class Failure(NamedTuple):
    """An error of D-Bus as a client gets it. What the message says is ours to word."""

    name: str
    message: str


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


def bus_error(host: BootedHost, method: str, *arguments: str, image: str = "", uid: int = 0) -> Failure:
    """What a call must end in: the manager's, or the object's that has this path's last part."""
    target = [DESTINATION, f"/org/freedesktop/machine1/image/{image}", "org.freedesktop.machine1.Image"]
    words = ["env", "SYSTEMD_LOG_LEVEL=debug", "busctl", "call", *(target if image else MANAGER), method, "--",
             *arguments]
    done = host.unit_run(words, uid=uid, check=False) if uid else host.run(words, check=False)
    assert done.returncode != 0, done
    errors = re.findall(r"type=error .*error-name=(\S+) error-message=(.*)", done.stderr)
    assert errors, done.stderr
    return Failure(*errors[-1])


def bus_fails(host: BootedHost, method: str, *arguments: str, image: str = "", uid: int = 0) -> str:
    """The same, by its key in BUS_ERRORS."""
    failure = bus_error(host, method, *arguments, image=image, uid=uid)
    found = [key for key, name in BUS_ERRORS.items() if name == failure.name]
    assert found, failure
    return found[0]


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


def call_fails(host: BootedHost, method: str, **parameters: Any) -> str | tuple[str, object]:
    """The error that a call must end in; with the parameter that it names, or the error's number."""
    done = varlinkctl(host, method, **parameters)
    assert done.returncode != 0, done
    names: list[str] = re.findall(r"failed: (\S+)", done.stderr)
    assert names, done.stderr
    details = json.loads(done.stdout.lstrip("\x1e") or "{}")
    detail = next((details[key] for key in ("parameter", "errno") if key in details), None)
    return names[-1] if detail is None else (names[-1], detail)


def as_alice(host: BootedHost, argv: Sequence[str]) -> tuple[int, str]:
    done = host.unit_run(argv, uid=USER_ID, check=False)
    return done.returncode, done.stdout + done.stderr


def workers(host: BootedHost) -> dict[int, str]:
    """By pid what the daemon has started for a while."""
    found = host.run(["pgrep", "-a", "-P", str(host.main_pid())], check=False).stdout.splitlines()
    return {int(line.split()[0]): line for line in found if "userdb" not in line}
