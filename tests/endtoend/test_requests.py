# SPDX-License-Identifier: MIT
"""Requests over the real socket and by mymachinesctl: what is right is done, what is wrong is told, nothing is lost."""

import contextlib
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resolver.varlink.client import Client
from resolver.varlink.errors import VarlinkError
from tests.endtoend.conftest import CALL, MACHINE_SOCKET, World
from tests.lab import PROJECT, command, wait_for

INVALID = ("org.varlink.service.InvalidParameter", {"parameter": "name"})


@pytest.fixture
def call(world: World) -> Callable[..., Any]:
    """call("Register", name=...) over Varlink from a process on the host; gives the replies or the error's name."""

    def call(method: str, more: bool = False, uid: int = 0, **parameters: Any) -> Any:
        name = method if "." in method else f"io.systemd.Machine.{method}"
        done = world.host.python(CALL, MACHINE_SOCKET, name, json.dumps(parameters), "more" if more else "",
                                 str(uid), check=True, cwd=PROJECT)
        reply = json.loads(done.stdout)
        return reply["replies"] if "replies" in reply else reply["error"]

    return call


def test_register_with_all_fields_and_list_them(world: World, call: Callable[..., Any]) -> None:
    web = world.host.container("web", scope="web.scope")
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert call("Register", name="web", id="0f" * 16, service="lab", **{"class": "container"},
                leaderProcessId={"pid": web.leader, "bootId": boot_id}, rootDirectory="/var/lib/web",
                ifIndices=[web.host_ifindex], vSockCid=4711, sshAddress="vsock/4711",
                sshPrivateKeyPath="/run/key") == [{}]
    [machine] = call("List", name="WEB")
    assert machine.pop("timestamp").keys() == {"realtime", "monotonic"}
    assert machine.pop("leader")["pid"] == web.leader
    assert machine == {"name": "web", "id": "0f" * 16, "service": "lab", "class": "container", "unit": "web.scope",
                       "rootDirectory": "/var/lib/web", "vSockCid": 4711, "sshAddress": "vsock/4711",
                       "sshPrivateKeyPath": "/run/key"}
    assert call("List", pid={"pid": web.leader}) == call("List", name="web")
    assert call("List", pid=web.leader) == call("List", name="web")
    [more] = call("List", name="web", acquireMetadata="graceful")
    assert more["UIDShift"] == web.host_uid(0)
    assert [bytes(a["address"]) for a in more["addresses"] if a["family"] == socket.AF_INET] == [
        socket.inet_aton(web.ipv4)]
    # All of it over a crash of the daemon too.
    before = call("List", name="web")
    world.daemon.kill9()
    world.restart()
    assert call("List", name="web") == before


def test_list_without_a_name_needs_more(world: World, call: Callable[..., Any]) -> None:
    world.machine("web"), world.machine("db")
    assert call("List") == "org.varlink.service.ExpectedMore"
    assert sorted(m["name"] for m in call("List", more=True)) == [".host", "db", "web"]
    for wrong in ({"name": ""}, {"name": "ah@??.hmm"}):
        assert call("List", **wrong) == "org.varlink.service.InvalidParameter"
    assert call("List", name="absent") == "io.systemd.Machine.NoSuchMachine"
    assert call("List", pid={"pid": os.getpid()}) == "io.systemd.Machine.NoSuchMachine"
    leader = call("List", name="db")[0]["leader"]
    assert call("List", name="web", pid=leader) == "io.systemd.Machine.NoSuchMachine"


def test_a_callers_own_process_is_the_leader_where_none_is_named(world: World) -> None:
    code = ("import json, os, sys\nfrom resolver.varlink.client import Client\n"
            f"with Client({MACHINE_SOCKET!r}) as c:\n"
            " c.call('io.systemd.Machine.Register', {'name': 'me', 'class': 'container'})\n"
            " print(c.call('io.systemd.Machine.List', {'name': 'me'})['leader']['pid'] == os.getpid())\n")
    assert world.host.python(code, check=True, cwd=PROJECT).stdout == "True\n"
    wait_for(lambda: "me" not in world.ctl("list"), 5, "the machine to go with its leader")


@pytest.mark.parametrize("name", ["", "x" * 65, "a/b", "..", "../../etc/passwd", "a\nb", "a\0b", "\x1b[2J", "w\u00e9b",
                                  ".host", "_gateway", "localhost", "x.localhost", "labhost", "LABHOST"])
def test_names_that_no_machine_may_have(world: World, call: Callable[..., Any], name: str) -> None:
    web = world.host.container("web", link=False)
    assert call("Register", name=name, leader=web.leader, **{"class": "container"}) == INVALID[0]
    assert world.ctl("list", "--json").strip() == "[]"


@pytest.mark.parametrize("leader", [0, -1, 1, 2**31, 2**63 - 1, 4194305])
def test_leaders_that_cannot_be(world: World, call: Callable[..., Any], leader: int) -> None:
    assert call("Register", name="web", leader=leader, **{"class": "container"}) == INVALID[0]


def test_a_leader_that_is_gone(world: World, call: Callable[..., Any]) -> None:
    web = world.host.container("web", link=False)
    pid = web.leader
    web.kill()
    assert call("Register", name="web", leader=pid, **{"class": "container"}) == INVALID[0]
    assert call("Register", name="web", leaderProcessId={"pid": os.getpid(), "pidfdId": 1},
                **{"class": "container"}) == INVALID[0]


@pytest.mark.parametrize(("field", "value"), [
    ("class", "host"), ("class", "pod"), ("class", 1), ("id", "xyz"), ("ifIndices", [0]), ("ifIndices", ["a"]),
    ("ifIndices", list(range(1, 200))), ("rootDirectory", "relative"), ("rootDirectory", "/a/../../etc"),
    ("rootDirectory", "/" + "x" * 5000), ("service", "a\nLEADER=1"), ("vSockCid", 2), ("vSockCid", -1),
    ("sshAddress", "a\nb"), ("name", None), ("unheard", "of"), ("leader", "1"), ("leader", 1.5), ("leader", True)])
def test_values_that_cannot_be(world: World, call: Callable[..., Any], field: str, value: object) -> None:
    web = world.host.container("web", link=False)
    parameters = {"name": "web", "class": "container", "leader": web.leader, field: value}
    assert call("Register", **parameters) == INVALID[0]
    assert world.ctl("list", "--json").strip() == "[]"


def test_a_live_name_is_taken_and_a_dead_one_free(world: World, call: Callable[..., Any]) -> None:
    web, other = world.machine("web"), world.host.container("other", link=False)
    again = {"name": "Web", "class": "container", "leader": other.leader}
    assert call("Register", **again) == "io.systemd.Machine.MachineExists"
    assert world.getent("hosts", "web") == [f"{web.ipv6} web"]
    assert call("Register", name="second", leader=web.leader,
                **{"class": "container"}) == "io.systemd.Machine.MachineExists"
    # The daemon cannot notice the death while it stands still; the registration waits for it in the socket.
    world.daemon.sigstop()
    web.kill()
    with_dead_leader = world.host.popen([*command("mymachinesctl"), "register", "WEB", "--leader", str(other.leader)])
    world.daemon.sigcont()
    assert with_dead_leader.wait(10) == 0
    assert world.getent("passwd", other.host_uid(0))[0].startswith("vu-WEB-0:")


def test_who_is_not_root_reads_and_cannot_change(world: World, call: Callable[..., Any]) -> None:
    web = world.host.container("web", link=False)
    assert call("Register", name="web", leader=web.leader, sshPrivateKeyPath="/run/key",
                **{"class": "container"}) == [{}]
    nobody = {"uid": 65534}
    [machine] = call("List", name="web", **nobody)
    assert machine["leader"]["pid"] == web.leader
    assert "sshPrivateKeyPath" not in machine
    denied = "org.varlink.service.PermissionDenied"
    assert call("Register", name="mine", **{"class": "container"}, **nobody) == denied
    assert call("Unregister", name="web", **nobody) == denied
    assert call("Terminate", name="web", **nobody) == denied
    assert call("Kill", name="web", signal=9, **nobody) == denied
    # With leave to read, since the interpreter may lie where only root can.
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=+dac_read_search",
                 "--ambient-caps=+dac_read_search", *command("mymachinesctl")]
    assert world.host.run([*as_nobody, "list"], check=True).stdout.split()[5] == "web"
    refused = world.host.run([*as_nobody, "terminate", "web"])
    assert (refused.returncode, refused.stderr) == (4, "mymachinesctl: not allowed; try it as root\n")


def test_kill_reaches_whom_it_names(world: World, call: Callable[..., Any]) -> None:
    web = world.machine("web", scope="web.scope")
    child = web.popen(["sleep", "600"])

    def sleepers() -> list[str]:
        return web.exec(["pgrep", "-x", "sleep"]).stdout.split()

    inside = wait_for(sleepers)
    assert call("Kill", name="web", whom="everybody", signal=9) == INVALID[0]
    for number in (0, 65, -1):
        assert call("Kill", name="web", signal=number) == INVALID[0]
    assert call("Kill", name="web", whom="leader", signal=signal.SIGCONT) == [{}]
    assert sleepers() == inside
    # Pid 1 of a pid namespace gets no signal that it has no handler for (pid_namespaces(7)).
    assert call("Kill", name="web", whom="all", signal=signal.SIGUSR1) == [{}]
    assert child.wait(5) != 0
    assert "web" in world.ctl("list")
    world.ctl("kill", "web", "--kill-whom", "leader", "--signal", "KILL")
    wait_for(lambda: "web" not in world.ctl("list"), 5, "the machine to go")


def test_terminate_takes_all_processes(world: World, call: Callable[..., Any]) -> None:
    web = world.machine("web")
    child = web.popen(["sleep", "600"])
    wait_for(lambda: web.exec(["pgrep", "-x", "sleep"]).stdout)
    assert call("Terminate", pid={"pid": web.leader}) == [{}]
    assert child.wait(5) != 0
    wait_for(lambda: "web" not in world.ctl("list"), 5, "the machine to go")
    assert call("Terminate", name="web") == "io.systemd.Machine.NoSuchMachine"


def test_unregister_leaves_the_processes(world: World, call: Callable[..., Any]) -> None:
    web = world.machine("web")
    assert call("Unregister", name="web") == [{}]
    assert world.getent("hosts", "web") == []
    web.exec(["true"], check=True)
    assert call("Unregister", name="web") == "io.systemd.Machine.NoSuchMachine"


def test_what_needs_systemd_says_so_without_it(world: World, call: Callable[..., Any]) -> None:
    web = world.host.container("web", link=False)
    asked = {"name": "web", "class": "container", "leader": web.leader}
    assert call("Register", **asked, allocateUnit=True) == "io.systemd.Machine.NotSupported"
    assert "web" not in world.ctl("list")
    assert call("Register", **asked) == [{}]
    # No unit of its own: whom else the signal would hit is not known.
    assert call("Kill", name="web", whom="all", signal=int(signal.SIGCONT)) == "io.systemd.Machine.NotSupported"


def test_varlinkctl_is_content(world: World) -> None:
    """systemd's own client: it checks what it is told against the description."""
    if shutil.which("varlinkctl") is None:
        pytest.skip("varlinkctl came with systemd 253")
    web = world.machine("web")
    world.machine("db")

    def varlinkctl(*arguments: str) -> str:
        return world.host.run(["varlinkctl", *arguments], check=True).stdout

    for path, interface in ((MACHINE_SOCKET, "io.systemd.Machine"),
                            ("/run/systemd/userdb/io.systemd.Machine", "io.systemd.UserDatabase")):
        assert interface in varlinkctl("info", path)
        assert f"interface {interface}" in varlinkctl("introspect", path, interface)
    listed = varlinkctl("--more", "--json=short", "call", MACHINE_SOCKET, "io.systemd.Machine.List", "{}")
    replies = [json.loads(reply) for reply in listed.split("\x1e") if reply.strip()]  # RFC 7464
    assert sorted(machine["name"] for machine in replies) == [".host", "db", "web"]
    one = varlinkctl("--json=short", "call", MACHINE_SOCKET, "io.systemd.Machine.List", '{"name":"web"}')
    assert json.loads(one)["leader"]["pid"] == web.leader
    refused = world.host.run(["varlinkctl", "call", MACHINE_SOCKET, "io.systemd.Machine.List", '{"name":"absent"}'])
    assert "io.systemd.Machine.NoSuchMachine" in refused.stderr


def test_the_service_describes_itself(call: Callable[..., Any]) -> None:
    [info] = call("org.varlink.service.GetInfo")
    assert info["product"] == "mymachinesd"
    assert "io.systemd.Machine" in info["interfaces"]
    [text] = call("org.varlink.service.GetInterfaceDescription", interface="io.systemd.Machine")
    assert "method Register(" in text["description"]
    assert call("org.varlink.service.GetInterfaceDescription", interface="no.such") == (
        "org.varlink.service.InterfaceNotFound")
    assert call("io.systemd.Machine.NoSuch") == "org.varlink.service.MethodNotFound"
    assert call("no.such.Method") == "org.varlink.service.InterfaceNotFound"


@pytest.mark.parametrize("message", [b"this is no JSON\0", b"[]\0", b"{}\0", b'{"method": 5}\0', b"\xff\xfe\0", b"\0",
                                     b'{"method": "\\ud800"}\0',
                                     b'{"method": "io.systemd.Machine.List", "parameters": []}\0',
                                     b"[" * 60000 + b"\0"])
def test_what_is_no_varlink_ends_that_connection_alone(world: World, message: bytes) -> None:
    path = f"/proc/{world.host.pid}/root{MACHINE_SOCKET}"
    web = world.machine("web")
    with socket.socket(socket.AF_UNIX) as sock, Client(path) as other:
        sock.settimeout(10)
        sock.connect(path)
        sock.sendall(message)
        reply = sock.recv(65536)
        assert reply == b"" or b'"error"' in reply
        assert other.call("io.systemd.Machine.List", {"name": "web"})["leader"]["pid"] == web.leader
    world.daemon.assert_alive()


def test_a_message_of_100_megabytes_is_cut_off_and_costs_no_memory(world: World) -> None:
    path = f"/proc/{world.host.pid}/root{MACHINE_SOCKET}"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(path)
        sent = 0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while sent < 100_000_000:
                sent += sock.send(b'{"method": "' + b"x" * 65536)
    assert sent < 20_000_000
    status = Path(f"/proc/{world.daemon.pid}/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    assert peak < 100_000, f"{peak} kB"
    world.daemon.assert_alive()


def test_messages_that_never_end_keep_nobody_waiting(world: World) -> None:
    path = f"/proc/{world.host.pid}/root{MACHINE_SOCKET}"
    web = world.machine("web")
    socks = []
    try:
        for _ in range(200):
            socks.append(socket.socket(socket.AF_UNIX))
            socks[-1].connect(path)
            socks[-1].sendall(b'{"method": "io.systemd')
        started = time.monotonic()
        with Client(path) as client:
            assert client.call("io.systemd.Machine.List", {"name": "web"})["leader"]["pid"] == web.leader
        assert time.monotonic() - started < 2
    finally:
        for sock in socks:
            sock.close()


def test_ctl_speaks_to_people_and_to_scripts(world: World) -> None:
    web = world.machine("web")
    shown = world.ctl("show", "web")
    assert f"Leader: {web.leader}" in shown
    assert web.ipv4 in shown
    assert json.loads(world.ctl("show", "web", "--json"))[0]["leader"]["pid"] == web.leader
    assert world.ctl("resolve", "web") == f"{web.ipv4} web\n{web.ipv6} web\n"
    assert json.loads(world.ctl("resolve", web.ipv6, "--json")) == {"name": "web", "addresses": [web.ipv6]}
    assert str(web.host_uid(7)) in world.ctl("user", "vu-web-7")
    assert json.loads(world.ctl("user", web.host_uid(7), "--json"))["userName"] == "vu-web-7"
    assert json.loads(world.ctl("group", "vg-web-7", "--json"))["gid"] == web.host_gid(7)
    for arguments, code in ((("show", "db"), 3), (("resolve", "db"), 3), (("user", "vu-db-1"), 3), (("user", 0), 3),
                            (("resolve", "192.0.2.77"), 3), (("unregister", "db"), 3), (("forget", "db"), 3),
                            (("register", "web", "--leader", web.leader), 1), (("register", "x/y", "--leader", 5), 1),
                            (("register", "db", "--leader", 4194305), 1), (("kill", "web", "-s", "NONE"), 1)):
        said = world.ctl(*arguments, check=False)
        assert said.startswith(f"{code}: mymachinesctl: "), said
        assert "Traceback" not in said
    world.daemon.stop()
    assert world.ctl("list", check=False).startswith("5: mymachinesctl: mymachinesd is not there")
    assert world.ctl("resolve", "web", check=False).startswith("5: ")


def test_forget_clears_what_is_left_without_a_daemon(world: World) -> None:
    world.machine("web", scope="web.scope")
    world.daemon.kill9()
    world.host.run(["sh", "-c", "echo garbage >/run/systemd/machines/broken"], check=True)
    world.ctl("forget", "web", "broken")
    assert world.host.run(["ls", "-A", "/run/systemd/machines", "/run/systemd/mymachines"]).stdout.split() == [
        "/run/systemd/machines:", "/run/systemd/mymachines:"]
    world.restart()
    assert world.ctl("list", "--json").strip() == "[]"


def test_a_broken_state_file_hinders_no_other_machine(world: World) -> None:
    web = world.machine("web")
    world.daemon.kill9()
    litter = ("cd /run/systemd/machines && echo garbage >a && head -c 4096 /dev/urandom >b && "
              "ln -s /etc/passwd c && mkdir d && mkfifo e && printf 'NAME=other\\nLEADER=1\\n' >f && : >g")
    world.host.run(["sh", "-c", litter], check=True)
    world.restart()
    assert [m["name"] for m in json.loads(world.ctl("list", "--json"))] == ["web"]
    assert world.getent("hosts", "web") == [f"{web.ipv6} web"]


def test_the_client_says_what_is_wrong(world: World) -> None:
    path = f"/proc/{world.host.pid}/root{MACHINE_SOCKET}"
    with Client(path) as client, pytest.raises(VarlinkError) as caught:
        client.call("io.systemd.Machine.Register", {"name": "a/b", "class": "container"})
    assert (caught.value.name, caught.value.parameters) == INVALID


def test_the_daemon_never_asks_nss(world: World) -> None:
    """dbus-daemon and others wait for NSS, and NSS asks us: nothing of ours may open nsswitch.conf."""
    world.daemon.stop()
    trace = "/run/trace"
    env = {"PATH": os.environ["PATH"], "HOME": "/"}  # where HOME is not set, Python's site module asks NSS for it
    world.daemon = world.host.start_daemon(
        ["strace", "-f", "-qq", "-e", "trace=open,openat,connect", "-o", trace, *command("mymachinesd")], env=env,
        ready_timeout=60)
    world.machine("web")
    assert world.getent("passwd", "vu-web-0") != []
    world.host.run(["userdbctl", "user", "vu-web-0"], check=True)
    world.ctl("unregister", "web")
    opened = world.host.run(["cat", trace], check=True).stdout
    assert "/run/mymachines/" in opened
    assert [line for line in opened.splitlines() if "nsswitch" in line or "libnss" in line or "nscd" in line] == []
    # strace ends with the daemon, which it does not pass SIGTERM on to.
    world.host.run(["pkill", "-TERM", "-P", str(world.daemon.pid)])
    world.daemon.process.wait(20)
