# SPDX-License-Identifier: MIT
"""/run is full, or read-only, from the start or from the middle on: look-ups stay right, what is refused is said, and
with room again all is as it should be. tests/endtoend/test_unavailable.py has the shim's side of it."""

import os
import subprocess
from pathlib import Path

import pytest

from resolver.table.reader import TableReader, TableUnavailable
from resolver.varlink.errors import VarlinkError
from tests.endtoend.conftest import MakeHost, World
from tests.lab import TestHost, wait_for
from tests.soak.consistency import Scale, with_daemon
from tests.soak.state import Place

SCALE = Scale(seconds=4, processes=4, threads=4, looks=50)


def fill(host: TestHost, left: int) -> None:
    """All of /run but `left` bytes."""
    found = os.statvfs(Place(host).root / "run")
    size = found.f_bavail * found.f_frsize - left
    host.run(["sh", "-c", f"head -c {size} /dev/zero >/run/filler"], check=True)


def read_only(host: TestHost, path: str) -> None:
    host.run(["sh", "-c", f"mount --bind {path} {path} && mount -o remount,bind,ro {path}"], check=True)


def writable(host: TestHost, path: str) -> None:
    host.run(["umount", path], check=True)


def refused(place: Place, method: str, **parameters: object) -> bool:
    try:
        place.call(method, **parameters)
    except VarlinkError as error:
        if error.name != "io.systemd.Machine.NotAvailable":
            raise
        return True
    return False


def test_a_registration_that_finds_no_room_leaves_nothing(make_host: MakeHost) -> None:
    host = make_host(run_size="1m")
    world, place = World(host, host.start_daemon()), Place(host)
    web, late = world.machine("web"), host.container("late")
    before = place.snapshot(web, late)
    fill(host, 0)
    assert refused(place, "Register", name="late", leader=late.leader, **{"class": "container"})
    assert place.snapshot(web, late) == before
    assert world.getent("hosts", "web") == [f"{web.ipv6} web"]
    place.call("Unregister", name="web")  # needs no room
    assert place.listed() == {}
    host.run(["rm", "/run/filler"], check=True)
    place.call("Register", name="web", leader=web.leader, **{"class": "container"})
    place.call("Register", name="late", leader=late.leader, **{"class": "container"})
    whole = place.snapshot(web, late)
    world.daemon.kill9()
    world.restart()
    assert place.snapshot(web, late) == whole


def test_state_files_on_a_read_only_file_system(world: World) -> None:
    """What is asked for is refused; a leader that ends is seen at once, and its files go when they can."""
    host, place = world.host, Place(world.host)
    web, late, brief = world.machine("web"), host.container("late"), world.machine("brief")
    before = place.snapshot(web, late)
    read_only(host, "/run/systemd/machines")
    assert refused(place, "Register", name="late", leader=late.leader, **{"class": "container"})
    assert refused(place, "Unregister", name="web")
    assert place.snapshot(web, late) == before
    brief.kill()
    wait_for(lambda: "brief" not in place.listed(), 10, "the end of brief to be noticed")
    assert place.looked_up(web)["names"] == ["web"]
    world.daemon.expect_log("cannot be removed, which is tried again")
    # A start is possible, and has nothing else to say.
    world.daemon.kill9()
    world.restart()
    assert list(place.listed()) == ["web"]
    assert "run/systemd/machines/brief" in place.files()
    writable(host, "/run/systemd/machines")
    wait_for(lambda: "run/systemd/machines/brief" not in place.files(), 10, "the file of brief to go")
    world.daemon.expect_log("in step again")
    assert not any("brief" in name for name in place.files())
    place.call("Unregister", name="web")
    assert place.files()["run/mymachines"]
    assert place.listed() == {}


FILLERS = 70
"""Machines, each led by a process: more than the table holds that 60 of them are in."""


def fillers(host: TestHost) -> list[int]:
    """Numbers of processes that may lead machines."""
    leader = "setpriv --pdeathsig KILL sleep 600"
    holder = host.popen(["sh", "-c", f"for i in $(seq {FILLERS}); do {leader} & echo $!; done; wait"],
                        stdout=subprocess.PIPE)
    assert holder.stdout is not None
    pids = [int(holder.stdout.readline()) for _ in range(FILLERS)]
    holder.stdout.close()
    return pids


def register_all(place: Place, pids: list[int], first: int = 0) -> None:
    for number, pid in enumerate(pids, first):
        place.call("Register", name=f"filler{number}", leader=pid, **{"class": "container"})


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_table_that_cannot_grow_comes_back(make_host: MakeHost, trouble: str) -> None:
    host = make_host(run_size="2m")
    world, place = World(host, host.start_daemon()), Place(host)
    web = world.machine("web")
    pids = fillers(host)
    register_all(place, pids[:60])
    before = TableReader(place.table)
    assert before.host_by_name("web") is not None
    if trouble == "full":
        fill(host, 60 << 10)  # for state files, and not for a table of 124 KiB, even without the old one of 68
    else:
        read_only(host, "/run/mymachines")
    register_all(place, pids[60:], 60)
    world.daemon.expect_log("cannot be written")
    # Whoever had the old table does not go on with it; all ask the daemon.
    with pytest.raises(TableUnavailable):
        before.host_by_name("web")
    assert world.getent("hosts", "web") == [f"{web.ipv6} web"]
    assert world.getent("passwd", web.host_uid(7))[0].startswith("vu-web-7:")
    assert len(place.listed()) == FILLERS + 1
    if trouble == "full":
        host.run(["rm", "/run/filler"], check=True)
    else:
        writable(host, "/run/mymachines")
    wait_for(lambda: Path(place.table).exists() and "is back" in world.daemon.log, 10, "the table")
    assert len(TableReader(place.table).names()) == FILLERS + 1
    assert world.getent("hosts", "web") == [f"{web.ipv6} web"]
    assert place.files()["run/mymachines"] == sorted(
        name for name in place.files()["run/mymachines"] if not name.startswith("."))


@pytest.mark.parametrize("room", ["never", "until the middle"])
def test_look_ups_are_right_while_run_is_full(make_host: MakeHost, tmp_path: Path, room: str) -> None:
    """The daemon answers, and may be late on a busy machine: then there is no answer, never a wrong one."""
    host = make_host(run_size="512k" if room == "never" else "2m")
    if room == "never":
        for directory in ("/run/systemd/machines", "/run/systemd/mymachines"):  # these have room
            host.run(["sh", "-c", f"mkdir -p {directory} && mount -t tmpfs -o mode=0755 state {directory}"], check=True)
        fill(host, 16 << 10)  # and a table of 20 KiB has not
    pids: list[int] = []

    def in_the_middle() -> None:
        place = Place(host)
        if room == "never":
            assert not Path(place.table).exists()
            return
        assert Path(place.table).exists()
        fill(host, 60 << 10)  # for state files, and not for a table of 124 KiB, even without the old one of 68
        register_all(place, pids[59:], 59)
        assert not Path(place.table).exists()

    def before() -> None:
        if room != "never":
            pids.extend(fillers(host))
            register_all(Place(host), pids[:59])

    verdict, done = with_daemon(host, SCALE, tmp_path, before=before, in_the_middle=in_the_middle)
    print(done, verdict)
    assert verdict.wrong == []
    assert verdict.found > 0
    assert verdict.unavailable < verdict.look_ups / 2
