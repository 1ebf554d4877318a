# SPDX-License-Identifier: MIT
"""No daemon, no table, a stopped daemon, a table of another time: look-ups end soon, and others go on."""

import time
from pathlib import Path

import pytest

from resolver._table import lib
from tests.endtoend.conftest import MakeHost, World
from tests.endtoend.test_consistency import changed_shim
from tests.lab import TestHost, wait_for

TIMED = """
import pwd, sys, time
count, found = int(sys.argv[1]), 0
started = time.monotonic()
for number in range(count):
    try:
        pwd.getpwuid(int(sys.argv[2]) + number)
        found += 1
    except KeyError:
        pass
print(found, time.monotonic() - started)
"""


def timed(host: TestHost, uid: int, count: int = 1) -> tuple[int, float]:
    found, seconds = host.python(TIMED, str(count), str(uid), check=True).stdout.split()
    return int(found), float(seconds)


def test_without_daemon_and_table_the_next_module_answers(make_host: MakeHost) -> None:
    host = make_host(passwd="mymachines files", hosts="mymachines files")
    assert host.run(["getent", "passwd", "root"], check=True).stdout.startswith("root:")
    assert host.run(["getent", "passwd", "0"], check=True).stdout.startswith("root:")
    assert host.run(["getent", "hosts", "localhost"], check=True).stdout
    assert host.run(["getent", "group", "vg-web-0"]).returncode == 2


def test_another_layout_and_a_stopped_daemon_cost_one_deadline(world: World) -> None:
    """250 ms for the first look-up, and not for each of a thousand."""
    web = world.machine("web")
    world.host.run(["sh", "-c", r"printf '\377' | dd of=/run/mymachines/table-2 bs=1 seek=8 conv=notrunc status=none"],
                   check=True)
    uid = web.host_uid(0)
    assert timed(world.host, uid)[0] == 1  # by one packet from the daemon
    assert world.getent("hosts", "web") == [f"{web.ipv6} web"]
    assert world.getent("group", "vg-web-3") != []
    assert world.getent("hosts", web.ipv4) == [f"{web.ipv4} web"]
    world.daemon.sigstop()
    found, seconds = timed(world.host, uid, count=50)
    assert found == 0  # the userdb process has no table either
    assert seconds < 2.5
    world.daemon.sigcont()
    assert timed(world.host, uid)[0] == 1


def test_a_process_that_knows_an_older_layout_asks_the_daemon(world: World, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that was there before an upgrade: its table is gone, but packets are what they were."""
    web = world.machine("web")
    older = ("table.h", f"#define TABLE_LAYOUT {lib.TABLE_LAYOUT} ", f"#define TABLE_LAYOUT {lib.TABLE_LAYOUT - 1} ")
    shim = changed_shim([older], tmp_path, monkeypatch)
    traced = world.host.run(["env", f"LD_LIBRARY_PATH={shim.parent}", "strace", "-e", "trace=%file,connect",
                             "getent", "-s", "mymachines", "hosts", "web"], check=True)
    assert traced.stdout.split() == [web.ipv6, "web"]
    assert f'/run/mymachines/table-{lib.TABLE_LAYOUT - 1}"' in traced.stderr
    assert "nss.sock" in traced.stderr


@pytest.mark.parametrize("trouble", ["stopped", "killed", "restarting"])
def test_libnss_systemds_question_is_answered_whatever_the_daemon_does(world: World, trouble: str) -> None:
    """It asks each userdb socket for each user that nobody before it knew, and would wait for 45 s."""
    web = world.machine("web")
    match trouble:
        case "stopped":
            world.daemon.sigstop()
        case "killed":
            world.daemon.kill9()
        case "restarting":
            world.daemon.kill9()
            world.restart()
    started = time.monotonic()
    unknown, known = web.host_uid(0) - 1, web.host_uid(7)
    assert world.host.run(["getent", "-s", "systemd", "passwd", str(unknown)]).returncode == 2
    assert world.host.run(["getent", "-s", "systemd", "passwd", str(known)]).stdout.startswith("vu-web-7:")
    assert world.host.run(["userdbctl", "user", "vu-web-7"]).returncode == 0
    assert time.monotonic() - started < 5
    if trouble == "stopped":
        world.daemon.sigcont()


def test_a_userdb_process_that_goes_is_replaced(world: World) -> None:
    web = world.machine("web")

    def userdb_pid() -> str:
        return world.host.run(["cut", "-d ", "-f1", "/run/mymachines/userdb.pid"]).stdout.strip()

    first = userdb_pid()
    world.host.run(["kill", "-KILL", first], check=True)
    wait_for(lambda: userdb_pid() not in ("", first), 10, "another userdb process")
    question = ["getent", "-s", "systemd", "passwd", str(web.host_uid(7))]
    wait_for(lambda: world.host.run(question).stdout.startswith("vu-web-7:"), 10, "its answer")


def test_run_is_full(make_host: MakeHost) -> None:
    """Without room for a table the daemon answers itself; with room again, the table is there again."""
    host = make_host(run_size="256k")
    # Less is left than the smallest table takes, 20k, and enough for state files.
    host.run(["sh", "-c", "head -c 240k /dev/zero >/run/filler"], check=True)
    world = World(host, host.start_daemon())
    assert "cannot be written" in world.daemon.log
    web = world.machine("web")
    assert host.run(["test", "-e", "/run/mymachines/table-2"]).returncode == 1
    assert world.getent("passwd", web.host_uid(9))[0].startswith("vu-web-9:")
    assert world.getent("hosts", "web") == [f"{web.ipv6} web"]
    host.run(["rm", "/run/filler"], check=True)
    wait_for(lambda: host.run(["test", "-e", "/run/mymachines/table-2"]).returncode == 0, 10, "the table")
    world.daemon.sigstop()
    assert world.getent("hosts", "web") == [f"{web.ipv6} web"]
    world.daemon.sigcont()
