# SPDX-License-Identifier: MIT
"""What happens to machines is seen at once, and what happens to the daemon is not seen at all."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.endtoend.conftest import EVENT_SECONDS, World
from tests.lab import PROJECT, TestHost, command, wait_for

WATCHER = """
# Looks things up, again and again, as one process that lives on: prints each answer that differs from the one before.
import pwd, socket, sys
name, user = sys.argv[1:]
last = None
print("begin", flush=True)
for line in sys.stdin:
    try:
        addresses = sorted({a[4][0] for a in socket.getaddrinfo(name, None)})
    except socket.gaierror:
        addresses = []
    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        uid = None
    print(",".join(addresses) or "none", uid, flush=True)
"""


class Watcher:
    """A process on the host that has the table mapped."""

    def __init__(self, world: World, name: str, user: str) -> None:
        self.process = world.host.popen([sys.executable, "-c", WATCHER, name, user], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        assert self._readline() == "begin"

    def ask(self) -> str:
        """ADDRESSES UID."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return self._readline()

    def _readline(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def close(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        self.process.wait(10)


@contextlib.contextmanager
def watching(world: World, name: str, user: str) -> Iterator[Watcher]:
    watcher = Watcher(world, name, user)
    try:
        yield watcher
    finally:
        watcher.close()


def test_the_leaders_death_takes_the_name_away_everywhere(world: World) -> None:
    web = world.machine("web", scope="web.scope")
    with watching(world, "web", "vu-web-0") as watcher:
        assert watcher.ask() == f"{web.ipv4},{web.ipv6} {web.host_uid(0)}"
        web.kill()
        wait_for(lambda: watcher.ask() == "none None", EVENT_SECONDS, "the name to be gone")
    for database, key in (("hosts", "web"), ("hosts", web.ipv4), ("passwd", web.host_uid(0)), ("group", "vg-web-0")):
        assert world.getent(database, key) == []
    assert world.host.run(["userdbctl", "user", "vu-web-0"]).returncode != 0
    assert "web" not in world.ctl("list")
    listed = world.host.run(["ls", "-A", "/run/systemd/machines", "/run/systemd/mymachines"], check=True).stdout
    assert "web" not in listed


def test_addresses_are_followed_by_event(world: World) -> None:
    web = world.machine("web")
    with watching(world, "web", "vu-web-0") as watcher:
        assert watcher.ask().startswith(f"{web.ipv4},{web.ipv6} ")
        web.add_address("10.213.1.77/24")
        wait_for(lambda: "10.213.1.77" in watcher.ask(), EVENT_SECONDS, "the new address")
        assert world.getent("hosts", "10.213.1.77") == ["10.213.1.77 web"]
        web.del_address("10.213.1.77/24")
        wait_for(lambda: "10.213.1.77" not in watcher.ask(), EVENT_SECONDS, "the address to be gone")
        assert world.getent("hosts", "10.213.1.77") == []


def test_the_daemon_does_not_poll(host: TestHost) -> None:
    """With machines and without news it makes no system call at all: strace sees none for a second."""
    world = World(host, host.start_daemon(None, "--no-dbus"))  # with it, it would look for a bus every ten seconds
    world.machine("web")
    for pid in (world.daemon.pid, *_children(world.daemon.pid)):
        seen = world.host.run(["timeout", "-s", "INT", "1", "strace", "-f", "-qq", "-p", str(pid)])
        calls = [line for line in seen.stderr.splitlines() if not _is_waiting(line)]
        assert calls == [], calls


def _is_waiting(line: str) -> bool:
    return any(word in line for word in ("epoll_wait(", "epoll_pwait", "<detached", "restart_syscall"))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_look_ups_go_on_over_kill_9_and_the_machines_come_back(world: World) -> None:
    web, db = world.machine("web", scope="web.scope"), world.machine("db")
    before = world.ctl("list", "--json")
    with watching(world, "web", "vu-web-0") as watcher:
        answer = watcher.ask()
        world.daemon.kill9()
        assert watcher.ask() == answer
        assert world.getent("passwd", web.host_uid(5)) != []
        db.kill()  # while nobody looks
        inode = world.host.run(["stat", "-c", "%i", "/run/mymachines/table-2"]).stdout
        world.restart()
        assert watcher.ask() == answer
        assert world.host.run(["stat", "-c", "%i", "/run/mymachines/table-2"]).stdout == inode
    assert world.getent("hosts", "db") == []
    assert world.getent("passwd", db.host_uid(0)) == []
    assert [line for line in world.ctl("list").splitlines() if line.startswith("web ")]
    assert '"web"' in before
    assert "db" not in world.ctl("list")
    web.kill()
    wait_for(lambda: not world.getent("hosts", "web"), EVENT_SECONDS, "the restored machine's end to be noticed")


def test_what_changed_while_the_daemon_was_away_is_seen_soon(world: World) -> None:
    """It is ready with what look-ups had, and then looks at the machines again."""
    web = world.machine("web")
    with watching(world, "web", "vu-web-0") as watcher:
        before = watcher.ask()
        world.daemon.kill9()
        web.add_address("10.213.1.77/24")
        assert watcher.ask() == before
        world.restart()
        wait_for(lambda: "10.213.1.77" in watcher.ask(), EVENT_SECONDS, "the new address")
        assert world.getent("hosts", "10.213.1.77") == ["10.213.1.77 web"]


@pytest.mark.parametrize("moment", range(4))
def test_kill_9_at_any_moment(world: World, moment: int) -> None:
    """A registration that was answered is there after the restart; one that was not is there, or is not."""
    containers = [world.host.container(f"m{number}", link=False) for number in range(4)]
    code = ("import sys; sys.path.insert(0, sys.argv[1])\nfrom resolver.varlink.client import Client\n"
            "for item in sys.argv[2:]:\n name, _, leader = item.partition('=')\n"
            " with Client('/run/systemd/machine/io.systemd.Machine') as c:\n"
            "  c.call('io.systemd.Machine.Register', {'name': name, 'class': 'container', 'leader': int(leader)})\n"
            " print(name, flush=True)\n")
    items = [f"{container.name}={container.leader}" for container in containers]
    client = world.host.popen([sys.executable, "-c", code, str(PROJECT), *items], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL)
    assert client.stdout is not None
    answered = [client.stdout.readline().decode().strip() for _ in range(moment)]
    world.daemon.kill9()
    answered += client.stdout.read().decode().split()
    client.stdout.close()
    client.wait(10)
    for name in answered:
        assert world.getent("passwd", f"vu-{name}-0") != [], name
    world.restart()
    for container in containers:
        known = world.getent("passwd", f"vu-{container.name}-0") != []
        assert known or container.name not in answered
        assert known == (f"{container.name} " in world.ctl("list"))
        # All or nothing, and the rest can still come.
        if not known:
            world.register(container)
        assert world.getent("passwd", container.host_uid(0))[0].startswith(f"vu-{container.name}-0:")


def test_an_orderly_stop_ends_the_answers(world: World) -> None:
    world.machine("web")
    with watching(world, "web", "vu-web-0") as watcher:
        assert watcher.ask() != "none None"
        world.daemon.stop()
        wait_for(lambda: watcher.ask() == "none None", 10, "a process that has the table mapped to notice")
        left = world.host.run(["find", "/run/mymachines", "/run/systemd/userdb", "/run/systemd/machine", "!", "-type",
                               "d"]).stdout.split()
        assert [path for path in left if not path.endswith((".lock", ".pid"))] == []
        world.restart()
        wait_for(lambda: watcher.ask() != "none None", 10, "the same process to find the new table")


def test_a_second_daemon_says_that_there_is_one(world: World) -> None:
    done = world.host.run(command("mymachinesd"))
    assert done.returncode == 3
    assert "already" in done.stderr


def test_a_recycled_pid_is_not_believed(world: World) -> None:
    """The state file's leader has the pid of a live process, but not its identity: by start time, or pidfd's number."""
    web = world.machine("web")
    other = world.host.container("other", link=False)
    world.daemon.kill9()
    swap = f"sed -i 's/\\b{web.leader}\\b/{other.leader}/' /run/systemd/*machines/web"
    world.host.run(["sh", "-c", swap], check=True)
    world.restart()
    assert "web" not in world.ctl("list")
    assert world.getent("passwd", other.host_uid(0)) == []
