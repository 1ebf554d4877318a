# SPDX-License-Identifier: MIT
"""Users and groups of containers through unmodified programs: getent, ls, ps, userdbctl."""

import json
import re
import subprocess
import sys

import pytest

from tests.endtoend.conftest import MakeHost, World
from tests.lab import wait_for

STRICT = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,30}")  # systemd.io, User/Group Name Syntax


def test_getent_in_both_directions(world: World) -> None:
    web = world.machine("web")
    uid, gid = web.host_uid(1000), web.host_gid(0)
    user = f"vu-web-1000:!*:{uid}:65534:UID 1000 of Container web:/:/usr/sbin/nologin"
    assert world.getent("passwd", "vu-web-1000") == world.getent("passwd", uid) == [user]
    group = f"vg-web-0:!*:{gid}:"
    assert world.getent("group", "vg-web-0") == world.getent("group", gid) == [group]


def test_whoever_is_in_no_map_is_nobody(world: World) -> None:
    web = world.machine("web")
    for key in ("vu-web-65536", "vu-WEB-1", "vu-web-01", "vu-db-1", "vg-web-1", web.host_uid(0) - 1,
                web.host_uid(65535) + 1, 2**32 - 1):
        assert world.getent("passwd", key) == [], key


def test_there_is_no_enumeration(world: World) -> None:
    world.machine("web")
    assert not [line for line in world.getent("passwd") if line.startswith("vu-")]
    assert not [line for line in world.getent("group") if line.startswith("vg-")]


def test_ls_names_the_owner(world: World) -> None:
    web = world.machine("web")
    # A file system of the container's own: what it may write elsewhere is the machine's affair.
    web.exec(["sh", "-c", "mount -t tmpfs tmpfs /mnt && touch /mnt/theirs && chown 1000:1001 /mnt/theirs"], check=True)
    # The host's view of the container's file: through its root, as an administrator looks.
    listed = world.host.run(["ls", "-l", f"/proc/{web.leader}/root/mnt/theirs"], check=True).stdout.split()
    assert listed[2:4] == ["vu-web-1000", "vg-web-1001"]


def test_ps_names_user_and_machine(world: World) -> None:
    """libsystemd finds the machine by the unit of the process's control group, and the link unit:UNIT."""
    web = world.machine("web", scope="web.scope")
    child = web.popen(["sleep", "600"], uid=33, gid=33)

    def listed() -> list[list[str]]:
        ps = world.host.run(["ps", "-eo", "user:20,machine,pid,comm"], check=True).stdout
        return [line.split() for line in ps.splitlines()]

    assert [line[:2] for line in listed() if line[2] == str(web.leader)] == [["vu-web-0", "web"]]
    wait_for(lambda: ["vu-web-33", "web", "sleep"] in [[*line[:2], line[3]] for line in listed()])
    child.kill()
    child.wait()


def test_userdbctl_shows_records(world: World) -> None:
    web = world.machine("web")
    user = json.loads(world.host.run(["userdbctl", "--json=short", "user", "vu-web-0"], check=True).stdout)
    assert user["userName"] == "vu-web-0"
    assert user["uid"] == web.host_uid(0)
    assert user["disposition"] == "container"
    assert user["service"] == "io.systemd.Machine"
    by_id = json.loads(world.host.run(["userdbctl", "--json=short", "user", str(web.host_uid(0))], check=True).stdout)
    assert by_id == user
    group = json.loads(world.host.run(["userdbctl", "--json=short", "group", "vg-web-7"], check=True).stdout)
    assert group["gid"] == web.host_gid(7)
    assert json.loads(
        world.host.run(["userdbctl", "--json=short", "group", str(web.host_gid(7))], check=True).stdout) == group
    services = world.host.run(["userdbctl", "services"], check=True).stdout
    assert re.search(r"io\.systemd\.Machine\s+yes", services), services


def test_libnss_systemd_alone_has_the_names_from_our_userdb(make_host: MakeHost) -> None:
    """`passwd: files systemd`, as hosts are configured before they know us."""
    host = make_host(passwd="files systemd")
    world = World(host, host.start_daemon())
    web = world.machine("web")
    for key in ("vu-web-1000", web.host_uid(1000)):
        assert world.getent("passwd", key)[0].startswith(f"vu-web-1000:x:{web.host_uid(1000)}:65534:UID 1000 of")
    assert world.getent("group", web.host_gid(1))[0].startswith(f"vg-web-1:x:{web.host_gid(1)}:")
    assert world.getent("passwd", web.host_uid(0) - 1) == []


def test_a_map_of_three_extents(world: World) -> None:
    base = world.host.spare_ids[0]
    extents = [(0, base + 200000, 1000), (1000, base + 500000, 1), (5000, base + 300000, 10)]
    world.machine("web", uid_map=extents)
    for inside, outside in ((0, base + 200000), (999, base + 200999), (1000, base + 500000), (5009, base + 300009)):
        assert world.getent("passwd", outside)[0].startswith(f"vu-web-{inside}:!*:{outside}:")
        assert world.getent("passwd", f"vu-web-{inside}") == world.getent("passwd", outside)
        assert world.getent("group", f"vg-web-{inside}") == world.getent("group", outside) != []
    for outside in (base + 201000, base + 500001, base + 300010, base + 299999):
        assert world.getent("passwd", outside) == []
    for inside in (1001, 4999, 5010):
        assert world.getent("passwd", f"vu-web-{inside}") == []


@pytest.mark.parametrize("name", ["a.name.with.dots", "x" * 60, "eighteen-letters-x"])
def test_names_too_long_or_dotted_for_user_names(world: World, name: str) -> None:
    """They have a short label instead, which passes systemd's strict rule and leads back."""
    web = world.machine(name)
    for inside in (0, 65535):
        [line] = world.getent("passwd", web.host_uid(inside))
        user = line.partition(":")[0]
        assert STRICT.fullmatch(user)
        assert f"UID {inside} of Container {name}" in line
        assert world.getent("passwd", user) == [line]
        shown = json.loads(world.host.run(["userdbctl", "--json=short", "user", user], check=True).stdout)
        assert shown["uid"] == web.host_uid(inside)
        [group_line] = world.getent("group", web.host_gid(inside))
        assert world.getent("group", group_line.partition(":")[0]) == [group_line]


def test_a_machine_in_the_hosts_user_namespace_has_no_users(world: World) -> None:
    world.machine("plain", user_namespace=False)
    assert world.getent("passwd", "vu-plain-0") == []
    assert world.addresses("ahostsv4", "plain") != []


def test_the_hosts_own_ids_are_never_a_machines(world: World) -> None:
    base = world.host.spare_ids[0]
    world.machine("web", uid_map=[(0, base, 1000), (1000, 60000, 20)])
    for key in (60000, 60019, "vu-web-1000"):
        assert world.getent("passwd", key) == []
    assert world.getent("passwd", "vu-web-999") != []


def test_a_map_that_is_written_later_is_found(world: World) -> None:
    """A manager may register before it has written the maps; the kernel tells nobody of that."""
    code = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
assert libc.unshare(0x10000000) == 0  # CLONE_NEWUSER, linux/sched.h
print("ready", flush=True)
sys.stdin.read()
"""
    leader = world.host.popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert leader.stdout is not None
    assert leader.stdout.readline() == b"ready\n"
    leader.stdout.close()
    world.ctl("register", "late", "--leader", leader.pid)
    assert world.getent("passwd", "vu-late-0") == []
    base = world.host.spare_ids[0] + 900000
    for kind in ("uid", "gid"):
        world.host.run(["sh", "-c", f"exec cat >/proc/{leader.pid}/{kind}_map"], input=f"0 {base} 65536\n", check=True)
    wait_for(lambda: world.getent("passwd", base + 5), 5, "the late map's users")
    wait_for(lambda: world.getent("group", "vg-late-5"), 5, "the late map's groups")
    assert leader.stdin is not None
    leader.stdin.close()
    leader.wait(10)
