# SPDX-License-Identifier: MIT
"""Which systemd unit a process belongs to, told from its control group as libsystemd tells it (sd_pid_get_unit(3)).

The rule: leading slices are stepped over, and what comes next is the unit, if it has a unit's name; anything below it
is the unit's own affair. A leading '_' is systemd's escape for names that the kernel also uses (`_cgroup.service`).
"""

import os
import re
from functools import cache
from typing import NamedTuple

_UNIT_TYPES = "service|scope|socket|target|device|mount|automount|swap|timer|path"
_UNIT_NAME_MAX = 255  # systemd.unit(5); NAME_MAX of Linux
# systemd.unit(5): a prefix, and for an instance '@' with something behind it. `foo@.service` is a template, no unit.
_UNIT = re.compile(rf"[A-Za-z0-9:_.\\-]+(?:@[A-Za-z0-9:_.\\@-]+)?\.(?:{_UNIT_TYPES})")
_SLICE = re.compile(r"[A-Za-z0-9:_.\\-]+\.slice")
# Lines end with a newline and nothing else: a group's name may hold all that str.splitlines() ends lines with.
_UNIFIED = re.compile(r"^0::(.*)$", re.MULTILINE)
_NAMED = re.compile(r"^[0-9]+:(?:[^:\n]*,)?name=systemd(?:,[^:\n]*)?:(.*)$", re.MULTILINE)
_DELETED = " (deleted)"  # cgroups(7): stands behind the path of a group that has been removed


class Hierarchy(NamedTuple):
    """The hierarchy of control groups that systemd keeps its units in."""

    mount: str
    unified: bool


@cache
def hierarchy() -> Hierarchy:
    """cgroup2 at /sys/fs/cgroup, or beside the old hierarchies ("hybrid"), else the old one by the name of systemd.

    Where several are mounted libsystemd takes cgroup2's line of /proc/PID/cgroup: tried with libsystemd 252.
    """
    for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        # A file that only cgroup2 has, in its root too (Documentation/admin-guide/cgroup-v2.rst).
        if os.path.exists(f"{mount}/cgroup.controllers"):
            return Hierarchy(mount, unified=True)
    return Hierarchy("/sys/fs/cgroup/systemd", unified=False)


def group_path(proc_cgroup: str, unified: bool) -> str:
    """The control group in a text such as /proc/PID/cgroup's (cgroups(7)), '' where it names none. Total."""
    found = (_UNIFIED if unified else _NAMED).search(proc_cgroup)
    return "" if found is None else found[1].removesuffix(_DELETED)


def unit_path(path: str) -> str:
    """The part of a control group's path that ends with its unit, '' where it lies in no unit."""
    components = path.split("/")
    # A path out of this cgroup namespace begins with '..' and is none of our systemd's.
    for i, component in enumerate(components[1:], 1):
        name = component.removeprefix("_")
        if _SLICE.fullmatch(name):
            continue
        return "/".join(components[: i + 1]) if len(name) <= _UNIT_NAME_MAX and _UNIT.fullmatch(name) else ""
    return ""


def unit_name(path: str) -> str:
    """The unit that a control group's path lies in, '' for none."""
    return unit_path(path).rpartition("/")[2].removeprefix("_")
