# SPDX-License-Identifier: MIT
"""The unit of a control group. The expected values are what sd_pid_get_unit() of libsystemd 252 said of such groups."""

import ctypes
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.host import cgroup
from tests.hostside.worlds import needs_root
from tests.lab.cgroups import Scope

UNITS = {
    "/web.service": "web.service",
    "/machine.slice/systemd-nspawn@web.service/payload/init.scope": "systemd-nspawn@web.service",
    "/machine.slice/machine-foo\\x2dbar.scope": "machine-foo\\x2dbar.scope",
    "/machine.slice/a.slice/_foo.service/x": "foo.service",
    "/a.slice/__b.service/x": "_b.service",
    "/a.slice/foo.mount": "foo.mount",
    "/a.slice/foo.socket/b.service": "foo.socket",
    "/user.slice/user-0.slice/user@0.service/app.slice/foo.service": "user@0.service",
    "/user.slice/user-0.slice/session-1.scope": "session-1.scope",
    "/_a.slice/foo.service": "foo.service",
    "/-.slice/foo.service": "foo.service",
    "/init.scope": "init.scope",
    # none:
    "/": "",
    "": "",
    "/a.slice": "",
    "/a.slice/foo": "",
    "/a.slice/foo/b.service": "",
    "/.slice/foo.mount": "",
    "/a b.slice/foo.mount": "",
    "/a@b.slice/foo.service": "",
    "/a.slice/foo bar.service": "",
    "/a.slice/foo@.service": "",
    "/a.slice/.service": "",
    "/a.slice/_.service": "",
    "/lxc.payload.web/init.scope": "",
    "/../machine.slice/web.service": "",
    f"/{'a' * 250}.service": "",
}


@pytest.mark.parametrize(("path", "unit"), UNITS.items())
def test_the_unit_of_a_path(path: str, unit: str) -> None:
    assert cgroup.unit_name(path) == unit


def test_the_path_of_a_unit_ends_with_it() -> None:
    assert cgroup.unit_path("/a.slice/_web.service/payload") == "/a.slice/_web.service"


HYBRID = "9:name=systemd:/old.service\n4:memory:/x:y\n1:cpu,cpuacct:/\n0::/new.service:1 (deleted)\n"


def test_the_line_of_the_hierarchy_counts() -> None:
    assert cgroup.group_path(HYBRID, unified=True) == "/new.service:1"
    assert cgroup.group_path(HYBRID, unified=False) == "/old.service"
    assert cgroup.group_path("4:memory:/x\n", unified=True) == ""


@pytest.mark.parametrize("end", ["\f", "\r", "\x1c", "\x85", "\u2028"])
def test_a_groups_name_does_not_begin_a_line(end: str) -> None:
    """Whoever may make groups of his own names them as he likes, but for a newline and a slash."""
    fakes = f"2:name=systemd:/a{end}0::/fake.service\n1:cpu:/a{end}1:name=systemd:/fake.service\n0::/new.service\n"
    assert cgroup.group_path(fakes, unified=True) == "/new.service"
    assert cgroup.group_path(fakes, unified=False) == f"/a{end}0::/fake.service"
    assert cgroup.group_path(f"1:cpu:/a{end}1:name=systemd:/fake.service\n", unified=False) == ""


@given(st.text(), st.booleans())
def test_any_text_has_a_unit_or_none(text: str, unified: bool) -> None:
    assert isinstance(cgroup.unit_name(cgroup.group_path(text, unified)), str)
    assert isinstance(cgroup.unit_name(text), str)


@needs_root
@pytest.mark.parametrize("name", ["web.service", "_web.service", "web.scope", "web", "web@.service", "a b.service",
                                  "_.service"])
def test_libsystemd_says_the_same(name: str) -> None:
    try:
        lib = ctypes.CDLL("libsystemd.so.0")
    except OSError:
        pytest.skip("no libsystemd here")
    scope = Scope(name)
    try:
        with subprocess.Popen(["sleep", "1000"]) as child:
            scope.add(child.pid)
            text = ctypes.c_char_p()
            found = lib.sd_pid_get_unit(child.pid, ctypes.byref(text)) >= 0
            path = cgroup.group_path(Path(f"/proc/{child.pid}/cgroup").read_text(), cgroup.hierarchy().unified)
            child.kill()
    finally:
        scope.close()
    assert cgroup.unit_name(path) == (os.fsdecode(text.value or b"") if found else "")
