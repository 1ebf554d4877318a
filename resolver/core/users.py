# SPDX-License-Identifier: MIT
"""Names of a machine's users and groups on the host, and their records (systemd's User Record documents)."""

from dataclasses import dataclass
from typing import Any

from resolver.core.idmap import NOBODY
from resolver.core.names import LABEL_MAX

USER_NAME_MAX = 31
"""systemd's strict rule for user names (systemd.io, User/Group Name Syntax), from utmp's field of 32."""

USER_PREFIX = "vu-"
GROUP_PREFIX = "vg-"
SERVICE = "io.systemd.Machine"
NOLOGIN = "/usr/sbin/nologin"


@dataclass(frozen=True, slots=True)
class IdAnswer:
    """A user or group of a machine: its name on the host, its id on the host and inside."""

    machine: str
    name: str
    host_id: int
    inside_id: int


def needs_label(machine_name: str) -> bool:
    """Whether some user name of the machine would hold a dot or exceed USER_NAME_MAX."""
    return "." in machine_name or len(machine_name) > LABEL_MAX


def id_name(prefix: str, machine_name: str, label: str, inside: int) -> str:
    """The one name of an id: `vu-NAME-UID`, or with the short label where that would be too long or hold a dot."""
    name = f"{prefix}{machine_name}-{inside}"
    return name if "." not in machine_name and len(name) <= USER_NAME_MAX else f"{prefix}{label}-{inside}"


def split_id_name(prefix: str, name: str) -> tuple[str, int] | None:
    """A machine's name or label, and the id inside, of a name such as id_name() makes; None for any other text.

    The caller compares with id_name() what it finds: that settles case, label and leading zeros.
    """
    if not name.startswith(prefix):
        return None
    machine, dash, digits = name[len(prefix):].rpartition("-")
    # isdecimal() alone would take the digits of other scripts; more than ten digits are no 32-bit number.
    if not dash or not machine or not (digits.isascii() and digits.isdecimal() and len(digits) <= 10):
        return None
    return machine, int(digits)


def user_record(answer: IdAnswer) -> dict[str, Any]:
    """The JSON user record that io.systemd.UserDatabase gives for a machine's user."""
    return {
        "userName": answer.name,
        "uid": answer.host_id,
        "gid": NOBODY,
        "realName": f"UID {answer.inside_id} of Container {answer.machine}",
        "homeDirectory": "/",
        "shell": NOLOGIN,
        "locked": True,
        "service": SERVICE,
        "disposition": "container",
    }


def group_record(answer: IdAnswer) -> dict[str, Any]:
    """The JSON group record that io.systemd.UserDatabase gives for a machine's group."""
    return {
        "groupName": answer.name,
        "gid": answer.host_id,
        "description": f"GID {answer.inside_id} of Container {answer.machine}",
        "service": SERVICE,
        "disposition": "container",
    }
