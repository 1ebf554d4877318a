# SPDX-License-Identifier: MIT
"""Guests that do what no guest should: to their files, their network, their leader. The daemon and all others go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from resolver.host.addresses import ADDRESSES_KEPT_MAX
from tests.endtoend.conftest import CALL, EVENT_SECONDS, MACHINE_SOCKET, World
from tests.lab import PROJECT, wait_for
from tests.lab.processes import children, is_alive
from tests.lab.waiting import Lines

PATIENCE = 20.0
SYS_EXIT = {"x86_64": 60, "aarch64": 93}[os.uname().machine]    # of one thread (exit(2)); <asm/unistd.h>
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000


def ask(world: World, method: str, *, more: bool = False, **parameters: Any) -> Any:
    """The replies, or the error's name. `kind` stands for the field that Python has no argument for."""
    parameters = {"class" if name == "kind" else name: value for name, value in parameters.items()}
    done = world.host.python(CALL, MACHINE_SOCKET, method, json.dumps(parameters), "more" if more else "", "0",
                             check=True, cwd=PROJECT)
    reply = json.loads(done.stdout)
    return reply.get("replies") or reply.get("error")


def explained(world: World, name: str) -> dict[str, Any]:
    [reply] = ask(world, "io.mymachines.Machines.Explain", name=name)
    assert isinstance(reply, dict)
    return reply


def is_known(world: World, name: str) -> bool:
    return world.ctl("show", name, check=False).startswith("0:")


class Leader:
    """A process of a test's own making, on the host. It says `ready`, and does what it is for at the next line."""

    def __init__(self, world: World, code: str) -> None:
        self.process = world.host.popen([sys.executable, "-c", f"import ctypes, os, sys, threading, time\n{code}"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self.process.pid
        self._lines = Lines(self.process)
        self.heard("ready")

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def heard(self, word: str) -> str:
        line = self._lines.next(PATIENCE)
        assert line.startswith(word), line
        return line.removeprefix(word).strip()

    def end(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)


# --- files ---

ODD_FILES = {
    "fifo": "mkfifo os-release",
    "socket": f"{sys.executable} -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"os-release\")'",
    "shadow": "echo ID=inside >shadow && ln -s /etc/shadow os-release",
    "endless": "yes >os-release",
    "hole": "truncate -s 1T os-release",
    "device": "mknod os-release c 1 5",
    "disk": "mknod os-release b 7 0",
    "kmsg": "touch os-release && mount --bind /proc/kmsg os-release",
    "good": "echo ID=good >os-release",
}
OF_THE_HOSTS_ROOT = ("device", "disk", "kmsg", "socket")
"""For who has the host's users; the last since the interpreter may lie where only root can read it."""


@pytest.fixture
def odd_files(world: World) -> None:
    """Machines by what is wrong with their os-release; `good` has a right one."""
    for name, script in ODD_FILES.items():
        web = world.host.container(name, link=False, user_namespace=name not in OF_THE_HOSTS_ROOT)
        words = ["sh", "-c", f"mount -t tmpfs -o size=64m tmpfs /etc && cd /etc && {script}"]
        if name == "endless":
            web.popen(words)
            wait_for(lambda web=web: os.path.exists(f"/proc/{web.leader}/root/etc/os-release")  # type: ignore[misc]
                     and os.stat(f"/proc/{web.leader}/root/etc/os-release").st_size > 1 << 20)
        else:
            web.exec(words, check=True)
        world.register(web)


@pytest.mark.usefixtures("odd_files")
def test_an_os_release_of_any_kind(world: World) -> None:
    """None is answered that is no file of the machine's own, and all are asked for in one go."""
    replies = ask(world, "io.systemd.Machine.List", more=True, acquireMetadata="graceful")
    releases = {reply["name"]: reply.get("OSRelease") for reply in replies if reply["name"] != ".host"}
    assert releases == dict.fromkeys(ODD_FILES) | {"good": ["ID=good"], "shadow": ["ID=inside"]}
    assert ask(world, "io.systemd.Machine.List", name="kmsg", acquireMetadata="yes") == (
        "io.systemd.Machine.NotAvailable")
    world.daemon.assert_alive()
    assert "Traceback" not in world.daemon.log


# --- network ---

MANY = 100_000 if "MYMACHINES_TEST_SOAK" in os.environ else 10_000
DUMP_SECONDS = 300.0    # takes a tenth of that on an idle machine, whoever else is served meanwhile
BRIDGES = 250   # the kernel goes through all addresses of an interface to add one


def many_addresses() -> str:
    """Lines for `ip -batch`."""
    lines = [f"link add b{i} type bridge\nlink set b{i} up" for i in range(BRIDGES)]
    lines += [f"address add 10.{i >> 16}.{i >> 8 & 255}.{i & 255}/32 dev b{i % BRIDGES}"
              for i in range(MANY)]
    return "\n".join(lines)


def resident(pid: int) -> int:
    """Bytes of memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_more_addresses_than_anybody_needs(world: World) -> None:
    """While they come, when they are there, when the daemon starts with them, and when they go."""
    web, quiet = world.machine("web"), world.machine("quiet")
    before = resident(world.daemon.pid)
    making = web.popen(["ip", "-batch", "-"], stdin=subprocess.PIPE)
    assert making.stdin is not None
    making.stdin.write(many_addresses().encode())
    making.stdin.close()
    took: list[float] = []
    while making.poll() is None:
        for change, there in ((quiet.add_address, True), (quiet.del_address, False)):
            change("10.213.2.77/24")
            began = time.monotonic()
            wait_for(lambda there=there: ("10.213.2.77" in world.addresses("ahostsv4", "quiet")) == there,  # type: ignore[misc]
                     PATIENCE)
            took.append(time.monotonic() - began)
    assert making.returncode == 0
    assert took
    wait_for(lambda: len(explained(world, "web")["addresses"]) == ADDRESSES_KEPT_MAX, PATIENCE)
    world.daemon.expect_log(f"machine web has more than {ADDRESSES_KEPT_MAX} addresses")
    wait_for(lambda: world.addresses("ahostsv4", "web") == [web.ipv4], DUMP_SECONDS)
    grown = resident(world.daemon.pid) - before
    assert grown < 32 << 20
    print(f"{MANY} addresses: {len(took)} changes of another machine meanwhile, getent showed each within "
          f"{max(took):.2f} s, half of them within {sorted(took)[len(took) // 2]:.2f} s; {grown >> 10} KB more memory")
    world.daemon.kill9()
    world.restart()
    # It goes through them all at its ease: a machine has one part in so many of the daemon's time.
    wait_for(lambda: world.addresses("ahostsv4", "web") == [web.ipv4], DUMP_SECONDS, "the addresses after a restart")
    assert world.addresses("ahostsv4", "quiet") == [quiet.ipv4]
    assert len(explained(world, "web")["addresses"]) == ADDRESSES_KEPT_MAX
    web.exec(["sh", "-c", f"for i in $(seq 0 {BRIDGES - 1}); do echo link del b$i; done | ip -batch -"], check=True,
             timeout=60)
    wait_for(lambda: len(explained(world, "web")["addresses"]) < 20, DUMP_SECONDS, "the end of the addresses")
    web.add_address("10.213.1.77/24")
    wait_for(lambda: "10.213.1.77" in world.addresses("ahostsv4", "web"), EVENT_SECONDS * 10)


FORBIDDEN = b" \t\n\v\f\r/:\xa0%"     # isspace() of the kernel's table, dev_valid_name(); '%' is for numbering
NAME_MAX = 15


def odd_names() -> list[bytes]:
    """Each byte that the kernel takes in a name, in as few names as hold them; and what programs might stumble over."""
    usable = bytes(byte for byte in range(1, 256) if byte not in FORBIDDEN)
    names = [usable[at:at + NAME_MAX] for at in range(0, len(usable), NAME_MAX)]
    return [*names, b"...", b"-", b"--help", b"\"',{}\\", b"\x1b[31mred\x07", b"\xe2\x80\xaegnp.exe", b"$(id)`id`",
            b"eth0\x08\x08\x08\x08lo", "netz\u00e4".encode(), b"0", b"a\xffb%d", b"all%"]


def test_interfaces_with_odd_names(world: World) -> None:
    """From the guest's kernel to the table, the answers, and what is printed."""
    web = world.machine("web")
    given: dict[str, bytes] = {}
    for number, name in enumerate(odd_names()):
        made = subprocess.run([os.fsencode(word) for word in web.enter()] + [
            b"ip", b"link", b"add", b"name", name, b"type", b"bridge"], capture_output=True)
        assert made.returncode == 0 or b"%" in name, (name, made.stderr)
        if made.returncode == 0:
            given[f"10.213.1.{number + 100}"] = name.replace(b"%d", b"0")
    assert len(given) > 25
    indices = dict(zip(given, interface_indices(web.exec(["ip", "-oneline", "link"], check=True).stdout), strict=True))
    for address, index in indices.items():
        web.exec(["ip", "-batch", "-"], check=True, input=f"address add {address}/32 dev if{index}\n")
    wait_for(lambda: given.keys() <= set(listed(world)), PATIENCE)
    assert {address: name for address, name in listed(world).items() if address in given} == {
        address: name.decode(errors="replace") for address, name in given.items()}
    # On the way to the host's own link, they lead to the machine: the host routes that network there.
    assert given.keys() <= set(world.addresses("ahostsv4", "web"))
    for command in ("show", "explain"):
        text = world.ctl(command, "web")
        assert all(character.isprintable() or character == "\n" for character in text), text
        assert "\\x1b[31mred\\x07" in text
        json.loads(world.ctl(command, "web", "--json"))
    [listing] = ask(world, "io.systemd.Machine.List", name="web", acquireMetadata="graceful")
    assert {".".join(map(str, address["address"])) for address in listing["addresses"]} >= given.keys()
    assert "Traceback" not in world.daemon.log
    assert all(character.isprintable() or character == "\n" for character in world.daemon.log)


def interface_indices(text: str) -> list[int]:
    """Of bridges made last, in order; their names may hold what looks like another column."""
    return [int(line.partition(":")[0]) for line in text.splitlines() if line.partition(":")[0].isdigit()][2:]


def listed(world: World) -> dict[str, str]:
    return {".".join(map(str, address["address"])): address["interface"]
            for address in explained(world, "web")["addresses"]}


# --- the leader ---

def test_a_leader_that_becomes_another_program(world: World) -> None:
    leader = Leader(world, "print('ready', flush=True); sys.stdin.readline(); os.execv('/bin/sleep', ['sleep', '600'])")
    world.ctl("register", "web", "--leader", leader.pid)
    leader.go_on()
    wait_for(lambda: Path(f"/proc/{leader.pid}/comm").read_text() == "sleep\n")
    assert is_known(world, "web")
    world.daemon.kill9()
    world.restart()
    assert is_known(world, "web")
    leader.end()
    wait_for(lambda: not is_known(world, "web"))


def test_a_leader_that_forks_twice_and_goes(world: World) -> None:
    """Its end is the machine's. What it left may be registered by who knows it."""
    leader = Leader(world, """
print('ready', flush=True)
sys.stdin.readline()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print('pid', os.getpid(), flush=True)
        os.execv('/bin/sleep', ['sleep', '600'])
    os._exit(0)
""")
    world.ctl("register", "web", "--leader", leader.pid)
    leader.go_on()
    heir = int(leader.heard("pid"))
    leader.process.wait(PATIENCE)
    wait_for(lambda: not is_known(world, "web"))
    assert is_alive(heir)
    world.ctl("register", "web", "--leader", heir)
    assert is_known(world, "web")
    os.kill(heir, signal.SIGKILL)
    wait_for(lambda: not is_known(world, "web"))


def test_a_leader_that_changes_its_namespaces(world: World) -> None:
    """A machine's network and users are those that its leader had when it was registered, until the daemon starts
    again: the kernel tells nobody of a change. What is done in a machine goes by what holds then."""
    leader = Leader(world, f"""
libc = ctypes.CDLL(None)
assert libc.unshare({CLONE_NEWNET}) == 0
print('ready', flush=True)
sys.stdin.readline()
assert libc.unshare({CLONE_NEWNET} | {CLONE_NEWUSER}) == 0
print('changed', flush=True)
sys.stdin.readline()
""")
    world.host.run(["ip", "-batch", "-"], check=True, input=f"""
link add ve-web type veth peer name host0 netns {leader.pid}
address add 10.213.9.1/24 dev ve-web
link set ve-web up
""")
    world.host.run(["nsenter", f"--net=/proc/{leader.pid}/ns/net", "ip", "-batch", "-"], check=True,
                   input="address add 10.213.9.2/24 dev host0\nlink set host0 up\n")
    world.ctl("register", "web", "--leader", leader.pid)
    wait_for(lambda: world.addresses("ahostsv4", "web") == ["10.213.9.2"], PATIENCE)
    leader.go_on()
    leader.heard("changed")
    base = world.host.spare_ids[0] + 900000
    for kind in ("uid", "gid"):
        world.host.run(["sh", "-c", f"exec cat >/proc/{leader.pid}/{kind}_map"], input=f"0 {base} 65536\n", check=True)
    assert world.addresses("ahostsv4", "web") == ["10.213.9.2"]
    assert world.getent("passwd", base) == []
    world.daemon.kill9()
    world.restart()
    assert world.addresses("ahostsv4", "web") == []
    assert world.getent("passwd", base)[0].startswith("vu-web-0:")
    world.daemon.assert_alive()
    leader.end()
    wait_for(lambda: not is_known(world, "web"))


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_a_leader_that_stands_still(world: World, how: str) -> None:
    """It can be registered, looked at, taken over and ended."""
    web = world.host.container("web", scope="web.scope")
    if how == "frozen":
        web.freeze()
    else:
        os.kill(web.leader, signal.SIGSTOP)
    world.register(web)
    assert world.addresses("ahostsv4", "web") == [web.ipv4]
    assert world.getent("passwd", "vu-web-0") != []
    [listing] = ask(world, "io.systemd.Machine.List", name="web", acquireMetadata="graceful")
    assert "OSRelease" in listing
    world.daemon.kill9()
    world.restart()
    assert world.addresses("ahostsv4", "web") == [web.ipv4]
    world.ctl("terminate", "web")
    wait_for(lambda: not is_known(world, "web"), PATIENCE)


def test_a_leader_that_nobody_waits_for(world: World) -> None:
    """A zombie is no leader any more, and cannot become one. The second is told so."""
    leader = world.host.popen(["sleep", "600"])
    world.ctl("register", "web", "--leader", leader.pid)
    leader.kill()
    wait_for(lambda: not is_alive(leader.pid))
    wait_for(lambda: not is_known(world, "web"))
    assert Path(f"/proc/{leader.pid}").exists()
    assert ask(world, "io.systemd.Machine.Register", name="late", leader=leader.pid, kind="container") == (
        "org.varlink.service.InvalidParameter")
    assert not is_known(world, "late")
    leader.wait(PATIENCE)


STAYS = "def stay():\n    sys.stdin.readline()\n    os._exit(0)\n"
READY = "print('ready', flush=True)\n"
ENDS_ITS_FIRST_THREAD = f"threading.Thread(target=stay).start()\nctypes.CDLL(None).syscall({SYS_EXIT}, 0)"


def test_a_leader_whose_first_thread_has_ended(world: World) -> None:
    """/proc calls it a zombie, and it has no network namespace to look at; yet it runs."""
    leader = Leader(world, STAYS + READY + ENDS_ITS_FIRST_THREAD)
    wait_for(lambda: not is_alive(leader.pid))
    world.ctl("register", "late", "--leader", leader.pid)
    assert explained(world, "late")["network"] == "unknown"
    leader.end()
    wait_for(lambda: not is_known(world, "late"))
    early = Leader(world, f"{STAYS}{READY}sys.stdin.readline()\n{ENDS_ITS_FIRST_THREAD}")
    world.ctl("register", "web", "--leader", early.pid)
    early.go_on()
    wait_for(lambda: not is_alive(early.pid))
    assert is_known(world, "web")
    assert ask(world, "io.systemd.Machine.List", name="web", acquireMetadata="yes") == (
        "io.systemd.Machine.NotAvailable")
    world.daemon.kill9()
    world.restart()
    assert is_known(world, "web")
    assert explained(world, "web")["network"] == "unknown"
    early.end()
    wait_for(lambda: not is_known(world, "web"))
    assert "Traceback" not in world.daemon.log


# --- its users ---

def test_maps_that_overlap(world: World) -> None:
    """The first keeps its names; the second is told, in the log and when asked about; and inherits."""
    base = world.host.spare_ids[0]
    first = world.machine("first", uid_map=[(0, base, 65536)])
    second = world.host.container("second", uid_map=[(0, base + 60000, 65536)])
    done = world.host.run([sys.executable, "-m", "resolver.cli", "register", "second", "--leader", str(second.leader)],
                          check=True, cwd=PROJECT)
    assert "second has ids that belong to first" in done.stderr
    world.daemon.expect_log("Another machine has some ids of the maps of machine second; these keep its names: first")
    assert explained(world, "second")["idsAreOf"] == ["first"]
    assert "idsAreOf" not in explained(world, "first")
    assert "Ids are of: first" in world.ctl("show", "second")
    assert world.getent("passwd", base + 60000)[0].startswith("vu-first-60000:")
    assert world.getent("passwd", "vu-second-0") == []
    assert world.getent("passwd", base + 65536)[0].startswith("vu-second-5536:")
    first.kill()
    wait_for(lambda: world.getent("passwd", base + 60000) != [], PATIENCE)
    assert world.getent("passwd", base + 60000)[0].startswith("vu-second-0:")
    assert "idsAreOf" not in explained(world, "second")


def test_a_map_of_the_hosts_own_ids(world: World) -> None:
    """A namespace of its own, and the ids that are the host's: systemd-nspawn's --private-users=identity."""
    world.machine("same", uid_map=[(0, 0, 65536)])
    for key in (0, 1000, 65534, 65535, "vu-same-0", "vu-same-1000"):
        assert not [line for line in world.getent("passwd", key) if line.startswith("vu-")]
    assert "idsAreOf" not in explained(world, "same")


def test_a_map_of_all_ids(world: World) -> None:
    web = world.machine("web")
    world.machine("all", uid_map=[(0, 0, 2**32 - 1)])
    assert explained(world, "all")["idsAreOf"] == ["web"]
    for key in (0, 65535, 2**32 - 1, "vu-all-0", "vu-all-65535"):
        assert not [line for line in world.getent("passwd", key) if line.startswith("vu-")]
    assert world.getent("passwd", 65536)[0].startswith("vu-all-65536:")
    assert world.getent("passwd", 2**32 - 2)[0].startswith("vu-all-4294967294:")
    assert world.getent("passwd", web.host_uid(7))[0].startswith("vu-web-7:")
    late = world.machine("late")
    assert world.getent("passwd", "vu-late-0") == []
    assert explained(world, "late")["idsAreOf"] == ["all"]
    world.ctl("unregister", "all")
    assert world.getent("passwd", late.host_uid(0))[0].startswith("vu-late-0:")


def test_a_map_of_nothing(world: World) -> None:
    leader = Leader(world, f"assert ctypes.CDLL(None).unshare({CLONE_NEWUSER}) == 0\nprint('ready', flush=True)\n"
                           "sys.stdin.readline()")
    world.ctl("register", "none", "--leader", leader.pid)
    assert world.getent("passwd", "vu-none-0") == []
    assert ask(world, "io.systemd.Machine.MapFrom", name="none", uid=0) == "io.systemd.Machine.NoSuchUser"
    assert ask(world, "io.systemd.Machine.List", name="none", acquireMetadata="graceful")[0].get("UIDShift") is None
    leader.end()
    wait_for(lambda: not is_known(world, "none"))


def test_a_user_namespace_inside_another(world: World) -> None:
    """Its ids are the outer one's too. Who was there first has the names; both are right about the host's ids."""
    web = world.machine("web")
    inner = web.popen(["unshare", "--user", "sh", "-c", "echo ready; read -r _"], stdin=subprocess.PIPE,
                      stdout=subprocess.PIPE)
    assert Lines(inner).next(PATIENCE) == "ready"
    [pid] = children(inner.pid)
    inside = Path(f"/proc/{pid}/status").read_text().partition("\nNSpid:")[2].splitlines()[0].split()[-1]
    for kind in ("uid", "gid"):
        web.exec(["sh", "-c", f"echo 0 1000 10 >/proc/{inside}/{kind}_map"], check=True)
    world.ctl("register", "inner", "--leader", pid)
    assert ask(world, "io.systemd.Machine.MapFrom", name="inner", uid=5) == [{"uid": web.host_uid(1005)}]
    assert explained(world, "inner")["idsAreOf"] == ["web"]
    assert world.getent("passwd", web.host_uid(1005))[0].startswith("vu-web-1005:")
    world.ctl("unregister", "web")
    assert world.getent("passwd", web.host_uid(1005))[0].startswith("vu-inner-5:")
    world.register(web)
    assert explained(world, "web")["idsAreOf"] == ["inner"]
    assert world.getent("passwd", web.host_uid(1005))[0].startswith("vu-inner-5:")
    assert world.getent("passwd", web.host_uid(1010))[0].startswith("vu-web-1010:")
    inner.kill()
    wait_for(lambda: not is_known(world, "inner"))
    assert world.getent("passwd", web.host_uid(1005))[0].startswith("vu-web-1005:")
