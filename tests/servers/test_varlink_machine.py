# SPDX-License-Identifier: MIT
"""io.systemd.Machine over a real socket: a real manager, real containers, private state directories."""

import asyncio
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from resolver.authority import Subject
from resolver.core.errors import AccessDenied, NotSupported
from resolver.core.registry import Registry
from resolver.entering import Entering
from resolver.guest import readers
from resolver.guest.metadata import GuestFiles
from resolver.guest.os_release import parse_os_release
from resolver.host.links import HostLinks
from resolver.host.netns import NetlinkOpener
from resolver.host.state_files import StateFiles
from resolver.host.this_host import host_machine
from resolver.manager import Manager
from resolver.units import UnitProperty
from resolver.varlink.machine import MachineInterface, machine_interface
from resolver.varlink.server import Server
from resolver.varlink.service import Service
from resolver.worker.run import Workers
from tests.guest.processes import reading
from tests.lab import Container, TestHost, wait_for
from tests.servers.dialogue import PATIENCE, Dialogue

MACHINE, IMAGE, SERVICE = "io.systemd.Machine", "io.systemd.MachineImage", "org.varlink.service"
REFERENCE = ("Register", "Unregister", "Terminate", "Kill", "List", "Open", "MapFrom", "MapTo")
OWN_ETC = "mount -t tmpfs tmpfs /etc && "


class RootOnly:
    """As where no polkit runs."""

    async def check(self, subject: Subject, action: str, details: Mapping[str, str]) -> None:
        if not subject.privileged:
            raise AccessDenied(f"{action} of {details}")


class FakeUnits:
    """Takes note."""

    def __init__(self) -> None:
        self.scopes: list[tuple[str, int, Sequence[UnitProperty]]] = []

    async def start_scope(self, name: str, pid: int, description: str,  # noqa: ARG002 - as the protocol has it
                          properties: Sequence[UnitProperty], pidfd: int | None = None) -> None:  # noqa: ARG002
        self.scopes.append((name, pid, properties))

    async def stop(self, unit: str) -> None:
        raise NotSupported(f"{unit} is not stopped here")


class World:
    """The service on a thread of its own, and containers to register."""

    def __init__(self, host: TestHost, directory: Path) -> None:
        self.host = host
        self.units = FakeUnits()
        self.paths = [str(directory / name) for name in (MACHINE, IMAGE)]
        self._directory = directory
        self._ready = threading.Event()
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(PATIENCE)

    def close(self) -> None:
        self._stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        links, guest = HostLinks(), GuestFiles()
        manager = Manager(Registry(), StateFiles(self._directory / "machines", self._directory / "private"),
                          NetlinkOpener(), links, RootOnly(), self.units, host_machine(), guest, [])
        workers = Workers()
        service = Service("v", "p", "1", "", [machine_interface()],
                          {MACHINE: MachineInterface(manager, Entering(manager, RootOnly(), workers))})
        servers = [Server.at_path(loop, service, path) for path in self.paths]
        self._ready.set()
        await stop.wait()
        for server in servers:
            server.close()
        await asyncio.sleep(0)  # what was under way is cancelled
        await workers.close()
        guest.close()
        manager.close()
        links.close()
        await asyncio.sleep(0)

    def call(self, method: str, **parameters: Any) -> Any:
        """The parameters of the one reply, or the error's short name."""
        [reply] = self._replies(method, parameters, more=False)
        return reply

    def call_more(self, method: str, **parameters: Any) -> list[Any]:
        """The same of every reply."""
        return self._replies(method, parameters, more=True)

    def _replies(self, method: str, parameters: dict[str, Any], more: bool) -> list[Any]:
        with Dialogue(self.paths[0]) as client:
            client.send_call(method if "." in method else f"{MACHINE}.{method}", parameters, more=more)
            replies = [client.receive()]
            while replies[-1].get("continues"):
                replies.append(client.receive())
        return [reply["error"].removeprefix(f"{MACHINE}.").removeprefix(f"{SERVICE}.") if "error" in reply
                else reply["parameters"] for reply in replies]

    def machine(self, name: str, script: str = "", machine_class: str = "container", **options: Any) -> Container:
        """A registered container whose /etc holds what the script makes."""
        container = self.host.container(name, **options)
        if script:
            container.exec(["sh", "-c", OWN_ETC + script], check=True)
        assert self.call("Register", name=name, leader=container.leader, **{"class": machine_class}) == {}
        return container

    def named(self, **parameters: Any) -> dict[str, dict[str, Any]]:
        """List of all, by name."""
        return {reply["name"]: reply for reply in self.call_more("List", **parameters)}


@pytest.fixture
def world(host: TestHost, tmp_path: Path) -> Iterator[World]:
    world = World(host, tmp_path)
    yield world
    world.close()


def test_both_interfaces_on_both_sockets(world: World) -> None:
    for path in world.paths:
        with Dialogue(path) as client:
            client.send_call(f"{SERVICE}.GetInfo")
            assert MACHINE in client.receive()["parameters"]["interfaces"]
            for interface, methods in ((MACHINE, REFERENCE),):
                client.send_call(f"{SERVICE}.GetInterfaceDescription", {"interface": interface})
                text = client.receive()["parameters"]["description"]
                assert all(f"method {method}(" in text for method in methods)


def test_the_host_is_a_machine(world: World) -> None:
    host = world.call("List", name=".host")
    assert host == world.call("List", pid=1) == world.call("List", name=".host", pid={"pid": 1})
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    assert host["class"] == "host"
    assert (host["rootDirectory"], host["unit"]) == ("/", "-.slice")
    assert (host["leader"]["pid"], host["leader"]["bootId"]) == (1, boot_id)
    booted = next(int(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if "btime" in line)
    assert abs(host["timestamp"]["realtime"] / 1e6 - booted) < 2
    assert host["timestamp"]["monotonic"] == 0
    assert not host.keys() & {"service", "addresses", "OSRelease", "UIDShift"}
    machine_id = Path("/etc/machine-id")
    said = machine_id.read_text().strip() if machine_id.exists() else ""
    assert host.get("id", "") == (said if len(said) == 32 else "")
    assert world.call_more("List") == [host]
    for change in ("Unregister", "Terminate"):
        assert world.call(change, name=".host") == "NotSupported"


def test_the_hosts_metadata_is_given_when_asked(world: World) -> None:
    own = [f"{key}={value}" for key, value in parse_os_release(Path("/etc/os-release").read_bytes()).items()]
    for wish in ("yes", "graceful"):
        host = world.call("List", name=".host", acquireMetadata=wish)
        assert (host["OSRelease"], host["UIDShift"], host.get("addresses")) == (own, 0, None)
        assert world.call_more("List", acquireMetadata=wish) == [host]
    assert "OSRelease" not in world.call("List", name=".host", acquireMetadata="no")


def test_all_metadata_of_a_container(world: World) -> None:
    web = world.machine("web", "printf 'ID=lab\\nNAME=\"Lab OS\"\\n' >/etc/os-release")
    for wish in ("yes", "graceful"):
        reply = world.call("List", name="web", acquireMetadata=wish)
        assert reply["OSRelease"] == ["ID=lab", "NAME=Lab OS"]
        assert reply["UIDShift"] == web.host_uid(0)
        index = int(web.exec(["cat", "/sys/class/net/host0/ifindex"]).stdout or 0)
        found = {(a["family"], bytes(a["address"])) for a in reply["addresses"]}
        assert (socket.AF_INET, socket.inet_aton(web.ipv4)) in found
        assert not [address for family, address in found if family == socket.AF_INET and address[0] == 127]
        assert [a["family"] for a in reply["addresses"]] == sorted(a["family"] for a in reply["addresses"])
        assert {a["ifindex"] for a in reply["addresses"]} == {index} or not index
        assert reply == world.call("List", pid={"pid": web.leader}, acquireMetadata=wish)
    assert not world.call("List", name="web").keys() & {"OSRelease", "UIDShift", "addresses"}


@pytest.mark.parametrize(("error", "missing", "script", "options"), [
    ("NoOSReleaseInformation", "OSRelease", "mount -t tmpfs tmpfs /usr/lib", {}),
    ("NotAvailable", "OSRelease", "mkfifo /etc/os-release", {}),
    ("NoUIDShift", "UIDShift", "echo ID=x >/etc/os-release", {"uid_map": [(0, 1587085312, 1000)]}),
    ("NoUIDShift", "UIDShift", "echo ID=x >/etc/os-release", {"gid_map": [(0, 1587085312 + 65536, 65536)]}),
    ("NotAvailable", "OSRelease", "echo ID=x >/etc/os-release", {"machine_class": "vm"}),
])
def test_what_cannot_be_had(world: World, error: str, missing: str, script: str, options: Mapping[str, Any]) -> None:
    world.machine("web", script, **{"link": False, **options})
    check_missing(world, error, missing)


def test_a_container_without_a_network_of_its_own(world: World) -> None:
    with subprocess.Popen(["sleep", "600"]) as leader:
        try:
            assert world.call("Register", name="web", leader=leader.pid, **{"class": "container"}) == {}
            check_missing(world, "NoPrivateNetworking", "addresses")
        finally:
            leader.kill()


def check_missing(world: World, error: str, missing: str) -> None:
    """Told where all is asked for, and then nothing follows; left out where it is asked for gracefully."""
    assert world.call("List", name="web", acquireMetadata="yes") == error
    assert world.call_more("List", name="web", acquireMetadata="yes") == [error]
    *before, last = world.call_more("List", acquireMetadata="yes")
    assert last == error
    assert [reply["name"] for reply in before] in ([], [".host"])
    plain, graceful = world.call("List", name="web"), world.call("List", name="web", acquireMetadata="graceful")
    assert missing not in graceful
    assert graceful.items() >= plain.items()
    assert world.named(acquireMetadata="graceful").keys() == {".host", "web"}


def test_a_container_with_the_hosts_ids_has_shift_0(world: World) -> None:
    world.machine("web", "echo ID=x >/etc/os-release", user_namespace=False)
    assert world.call("List", name="web", acquireMetadata="yes")["UIDShift"] == 0


def test_one_that_hangs_delays_itself_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "DEADLINE_SECONDS", 3.0)
    world.machine("hung", "echo ID=hung >/etc/os-release", link=False)
    bad = world.machine("bad", "mkfifo /etc/os-release", link=False)
    world.machine("good", "echo ID=good >/etc/os-release", link=False)
    os.kill(bad.leader, signal.SIGSTOP)
    world.call("List", name="good", acquireMetadata="yes")
    [reader] = reading()
    os.kill(reader, signal.SIGSTOP)
    with Dialogue(world.paths[0]) as client:
        client.send_call(f"{MACHINE}.List", {"name": "hung", "acquireMetadata": "yes"})
        # Calls are taken in the order of connections: when this one is answered, the stopped reader has that request.
        assert world.named().keys() == {".host", "good", "bad", "hung"}
        assert world.call("List", name="good", acquireMetadata="yes")["OSRelease"] == ["ID=good"]
        client.sock.settimeout(0.01)
        with pytest.raises(TimeoutError):
            client.receive()
        client.sock.settimeout(PATIENCE)
        with Dialogue(world.paths[0]) as other:
            other.send_call(f"{MACHINE}.List", {"acquireMetadata": "graceful"}, more=True)
            names = []
            while True:
                reply = other.receive()
                names.append(reply["parameters"]["name"])
                if not reply.get("continues"):
                    break
            assert sorted(names) == [".host", "bad", "good", "hung"]
            assert names[-1] == "hung"
        assert client.receive()["error"] == f"{MACHINE}.NotAvailable"


def test_ids_are_mapped_in_both_directions(world: World) -> None:
    web = world.machine("web", link=False)
    db = world.machine("db", link=False)
    uid, gid = web.host_uid(1000), web.host_gid(1001)
    assert world.call("MapFrom", name="web", uid=1000) == {"uid": uid}
    assert world.call("MapFrom", pid=web.leader, gid=1001) == {"gid": gid}
    assert world.call("MapFrom", name="web", uid=0, gid=0) == {"uid": web.host_uid(0), "gid": web.host_gid(0)}
    assert world.call("MapTo", uid=uid) == {"uid": 1000, "machineName": "web"}
    assert world.call("MapTo", gid=gid) == {"gid": 1001, "machineName": "web"}
    assert world.call("MapTo", uid=uid, gid=web.host_gid(0)) == {"uid": 1000, "gid": 0, "machineName": "web"}
    assert world.call("MapTo", uid=uid, gid=db.host_gid(0)) == "NoSuchMachine"
    assert world.call("MapTo", uid=web.host_uid(0)) == {"uid": 0, "machineName": "web"}


def test_ids_that_are_nobodys(world: World) -> None:
    web = world.machine("web", link=False)
    world.machine("plain", link=False, user_namespace=False)
    assert world.call("MapFrom", name="web", uid=65536) == "NoSuchUser"
    assert world.call("MapFrom", name="web", uid=0, gid=65536) == "NoSuchGroup"
    assert world.call("MapFrom", name="plain", uid=0) == "NoSuchUser"
    assert world.call("MapFrom", name="absent", uid=0) == "NoSuchMachine"
    assert world.call("MapFrom", name=".host", uid=0) == "NotSupported"
    assert world.call("MapFrom", uid=0) == "InvalidParameter"
    for number in (0, 65535):
        assert world.call("MapTo", uid=number) == "UserInHostRange"
        assert world.call("MapTo", gid=number) == "GroupInHostRange"
    assert world.call("MapTo", uid=web.host_uid(65535) + 1) == "NoSuchUser"
    assert world.call("MapTo", gid=web.host_gid(65535) + 1) == "NoSuchGroup"
    for method in ("MapFrom", "MapTo"):
        which = {"name": "web"} if method == "MapFrom" else {}
        assert world.call(method, **which) == "InvalidParameter"
        for wrong in (-1, 2**32 - 1, 2**32, 2**63, "0", True, 1.5):
            assert world.call(method, uid=wrong, **which) == "InvalidParameter", wrong


def test_a_unit_is_allocated_where_asked_for(world: World) -> None:
    web, db = (world.host.container(name, link=False) for name in ("web", "db"))
    assert world.call("Register", name="web", leader=web.leader, allocateUnit=True, **{"class": "container"}) == {}
    assert world.call("Register", name="db", leader=db.leader, allocateUnit=False, **{"class": "container"}) == {}
    assert world.units.scopes == [("machine-web.scope", web.leader, ())]


def test_the_control_address_comes_back(world: World) -> None:
    web = world.host.container("web", link=False)
    register: dict[str, Any] = {"name": "web", "leader": web.leader, "class": "vm"}
    assert world.call("Register", **register, controlAddress="a\nb") == "InvalidParameter"
    assert world.call("Register", **register, controlAddress="unix:/run/web/control") == {}
    assert world.call("List", name="web")["controlAddress"] == "unix:/run/web/control"


def test_what_open_refuses(world: World) -> None:
    world.machine("web", link=False)
    assert world.call("Open", name="absent", mode="tty") == "NoSuchMachine"
    for mode in ({}, {"mode": ""}, {"mode": None}, {"mode": "telnet"}):
        assert world.call("Open", name="web", **mode) == "InvalidParameter", mode
    assert world.call("Open", name="web", mode="tty", user="root") == "InvalidParameter"
    for wrong in ({"user": "-r"}, {"path": "sh"}, {"environment": ["x"]}):
        assert world.call("Open", name="web", mode="shell", **wrong) == "InvalidParameter", wrong


def test_descriptors_come_with_the_reply(world: World) -> None:
    web = world.machine("web", link=False)
    web.exec(["mount", "-t", "devpts", "-o", "newinstance,ptmxmode=0666", "devpts", "/dev/pts"], check=True)
    for method, parameters, expected in (
            ("Open", {"name": "web", "mode": "tty"}, {"ptyFileDescriptor": 0, "ptyPath": "/dev/pts/0"}),
            ("OpenRootDirectory", {"name": "web"}, {"fileDescriptor": 0}),
            ("OpenRootDirectory", {"name": ".host"}, {"fileDescriptor": 0})):
        with Dialogue(world.paths[0]) as client:
            client.send_call(f"{MACHINE}.{method}", parameters)
            reply, descriptors = client.receive_fds()
        assert reply["parameters"] == expected
        assert len(descriptors) == 1
        assert os.isatty(descriptors[0]) == (method == "Open")
        os.close(descriptors[0])


def test_files_go_in_and_out(world: World, tmp_path: Path) -> None:
    web = world.machine("web", link=False)
    web.exec(["sh", "-ec", "mount -t tmpfs tmpfs /opt; mkdir /opt/there"], check=True)
    file = tmp_path / "file"
    file.write_text("content")
    os.chown(file, 1000, 1000)
    copy: dict[str, Any] = {"name": "web", "source": str(file), "destination": "/opt/file"}
    assert world.call("CopyTo", **copy) == {}
    assert web.exec(["stat", "-c", "%u", "/opt/file"], check=True).stdout == "1000\n"
    assert world.call("CopyTo", **copy) == "io.systemd.System"
    assert world.call("CopyTo", **copy, replace=True) == {}
    assert world.call("CopyFrom", name="web", source="/opt/file", destination=str(tmp_path / "back")) == {}
    assert (tmp_path / "back").stat().st_uid == 1000
    assert world.call("BindMount", name="web", source=str(tmp_path), destination="/opt/there", readOnly=True) == {}
    assert web.exec(["cat", "/opt/there/file"], check=True).stdout == "content"
    assert world.call("BindMount", name="web", source=str(tmp_path), destination="/opt/new") == "InvalidParameter"
    assert world.call("BindMount", name="web", source=str(tmp_path), destination="/opt/new", mkdir=True) == {}
    assert world.call("BindMount", name="web", source="x") == "InvalidParameter"


def test_a_copy_is_given_up_with_its_caller(world: World, tmp_path: Path) -> None:
    web = world.machine("web", link=False)
    web.exec(["mount", "-t", "tmpfs", "tmpfs", "/opt"], check=True)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20000):
        (source / str(number)).touch()
    inside = Path(f"/proc/{web.leader}/root/opt")   # a look is quick there, and the copy takes a second
    for _ in range(10):
        with Dialogue(world.paths[0]) as client:
            client.send_call(f"{MACHINE}.CopyTo", {"name": "web", "source": str(source), "destination": "/opt/copy"})
            wait_for(lambda: os.listdir(inside), PATIENCE, "the copy to begin")
        wait_for(lambda: os.listdir(inside) in ([], ["copy"]), 3 * PATIENCE, "the copy to be given up, or made")
        if not os.listdir(inside):
            return
        web.exec(["rm", "-r", "/opt/copy"], check=True)     # it was faster
    pytest.fail("each copy was made before its caller had gone")


def test_a_list_that_nobody_reads_to_its_end(world: World) -> None:
    """Whoever hangs up in the middle leaves nothing running: the fixtures look."""
    for number in range(5):
        world.machine(f"m{number}", link=False)
    for _ in range(20):
        with Dialogue(world.paths[0]) as client:
            client.send_call(f"{MACHINE}.List", {"acquireMetadata": "graceful"}, more=True)
            client.receive()
    assert len(world.named(acquireMetadata="graceful")) == 6


