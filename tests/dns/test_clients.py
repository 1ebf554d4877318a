# SPDX-License-Identifier: MIT
"""Real clients, the real daemon, real containers: on a host made of namespaces."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dns.message
import pytest

from resolver.dns.limiter import EXCESS_MAX
from tests.lab import Container, TestHost, command, wait_for

BRIDGE = "10.99.0.1"
BRIDGE6 = "fd00:99::1"
RESOLV_CONF = f"nameserver {BRIDGE}\nsearch machines.internal\noptions timeout:2 attempts:2\n"
SOURCE = Path(__file__).with_name("resolve.c")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class World:
    """Containers web and db on one bridge, a daemon, and a server at the bridge's addresses and on loopback."""

    def __init__(self, host: TestHost) -> None:
        self.host = host
        # An address of its own: else it has that of a port, and another when that port goes, which guests notice late.
        self.ip("link add br0 address 02:00:00:00:00:01 type bridge", "link set br0 up",
                f"address add {BRIDGE}/24 dev br0", f"address add {BRIDGE6}/64 dev br0 nodad")
        self.daemon = host.start_daemon()
        self.web, self.db = self.machine("web", 2), self.machine("db", 3)
        self.dns = self.start()

    def start(self, *options: str) -> object:
        return self.host.start_daemon(command("mymachines-dns"), f"--listen={BRIDGE}", f"--listen={BRIDGE6}",
                                      "--listen=127.0.0.1", *options)

    def ip(self, *lines: str) -> None:
        for line in lines:
            self.host.run(["ip", *line.split()], check=True)

    def machine(self, name: str, number: int) -> Container:
        container = self.host.container(name, addresses=[f"10.99.0.{number}/24", f"fd00:99::{number}/64"],
                                        host_addresses=[])
        self.ip(f"link set {container.host_interface} master br0")
        self.host.run([*command("mymachinesctl"), "register", name, "--leader", str(container.leader)], check=True)
        return container

    def dig(self, *arguments: str) -> str:
        return self.host.run(["dig", "+tries=2", "+time=5", *arguments], check=True).stdout.strip()


@pytest.fixture
def world() -> Iterator[World]:
    for program in ("dig", "kdig", "drill", "host", "delv"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    with TestHost(files={"/etc/resolv.conf": RESOLV_CONF}) as host:
        made = World(host)
        wait_for(lambda: made.dig("@127.0.0.1", "+short", "web.machines.internal") == "10.99.0.2", what="web's address")
        yield made


@pytest.mark.parametrize("server", ["127.0.0.1", BRIDGE, BRIDGE6])
def test_dig(world: World, server: str) -> None:
    assert world.dig(f"@{server}", "+short", "web.machines.internal") == "10.99.0.2"
    assert world.dig(f"@{server}", "+short", "WEB.machines.internal", "AAAA") == "fd00:99::2"
    assert world.dig(f"@{server}", "+short", "-x", "10.99.0.3") == "db.machines.internal."
    assert world.dig(f"@{server}", "+short", "-x", "fd00:99::3") == "db.machines.internal."
    assert "status: NXDOMAIN" in world.dig(f"@{server}", "nobody.machines.internal")
    assert "status: REFUSED" in world.dig(f"@{server}", "example.com")
    assert "status: REFUSED" in world.dig(f"@{server}", "+tcp", "machines.internal", "SOA", "CH")
    assert "Transfer failed" in world.host.run(["dig", f"@{server}", "machines.internal", "AXFR"]).stdout
    assert "wEb.mAchines.internal.\t0\tIN\tA" in world.dig(f"@{server}", "+noall", "+answer",
                                                            "wEb.mAchines.internal").replace("\t\t", "\t")


def test_kdig_over_tcp(world: World) -> None:
    for options in (["+tcp"], ["+tcp", "+keepopen"], ["+notcp", "+edns", "+bufsize=512"], ["+tcp", "+padding=64"]):
        done = world.host.run(["kdig", f"@{BRIDGE}", *options, "+short", "web.machines.internal", "A",
                               "db.machines.internal", "A"], check=True)
        assert done.stdout.split() == ["10.99.0.2", "10.99.0.3"], options


def test_drill(world: World) -> None:
    done = world.host.run(["drill", f"@{BRIDGE}", "web.machines.internal", "AAAA"], check=True)
    assert "rcode: NOERROR" in done.stdout
    assert "fd00:99::2" in done.stdout
    assert "flags: qr aa rd" in done.stdout


def test_host(world: World) -> None:
    """It reads resolv.conf, and asks for A, AAAA and MX."""
    done = world.host.run(["host", "web"], check=True)
    assert done.stdout.splitlines() == ["web.machines.internal has address 10.99.0.2",
                                        "web.machines.internal has IPv6 address fd00:99::2"]
    assert "domain name pointer db.machines.internal." in world.host.run(["host", "10.99.0.3"], check=True).stdout
    assert world.host.run(["host", "nobody"]).returncode == 1


def test_delv(world: World) -> None:
    done = world.host.run(["delv", "-i", f"@{BRIDGE}", "web.machines.internal", "A"], check=True)
    assert "10.99.0.2" in done.stdout
    missing = world.host.run(["delv", "-i", f"@{BRIDGE}", "nobody.machines.internal", "A"])
    assert "ncache nxdomain" in missing.stdout + missing.stderr


def test_a_container_resolves_another_by_a_static_program(world: World) -> None:
    if shutil.which("musl-gcc") is None:
        pytest.skip("musl-gcc is not installed")
    # Where pytest keeps its folders, others may not look; a container's root is somebody else.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        program = f"{folder}/resolve"
        subprocess.run(["musl-gcc", "-static", "-Wall", "-Werror", "-o", program, SOURCE], check=True, timeout=60)
        for name in ("db", "db.machines.internal", "DB.Machines.Internal."):
            for asker in (world.host.run, world.web.exec):
                done = asker([program, name])
                assert sorted(done.stdout.split()) == ["10.99.0.3", "fd00:99::3"], (name, asker, done)
        assert world.web.exec([program, "nobody"]).returncode == 1


def test_a_container_sees_what_comes_and_goes(world: World) -> None:
    def seen() -> str:
        return world.web.exec(["dig", f"@{BRIDGE}", "+short", "new.machines.internal"]).stdout.strip()

    assert seen() == ""
    new = world.machine("new", 4)
    wait_for(lambda: seen() == "10.99.0.4", what="the new machine's address")
    new.add_address("10.99.0.44/24")
    wait_for(lambda: sorted(seen().split()) == ["10.99.0.4", "10.99.0.44"], what="its second address")
    new.kill()
    wait_for(lambda: seen() == "", what="its end")


def test_it_answers_while_the_daemon_is_killed_and_says_that_it_cannot_tell_when_it_is_stopped(world: World) -> None:
    world.daemon.kill9()
    assert world.dig(f"@{BRIDGE}", "+short", "web.machines.internal") == "10.99.0.2"
    daemon = world.host.start_daemon()
    assert world.dig(f"@{BRIDGE}", "+short", "web.machines.internal") == "10.99.0.2"
    daemon.stop()
    wait_for(lambda: "status: SERVFAIL" in world.dig(f"@{BRIDGE}", "web.machines.internal"), what="the table to go")
    assert "status: NOERROR" in world.dig(f"@{BRIDGE}", "machines.internal", "SOA")


def test_every_address_of_the_host_at_once_and_the_answer_comes_from_the_one_that_was_asked(world: World) -> None:
    """dig would not take it from another."""
    world.host.start_daemon(command("mymachines-dns"), "--listen=0.0.0.0:5300", "--listen=[::]:5300")
    world.ip("address add 10.99.0.99/24 dev br0", "address add fd00:99::99/64 dev br0 nodad")
    for server in (BRIDGE, "10.99.0.99", BRIDGE6, "fd00:99::99", "127.0.0.5", "::1"):
        for way in ("+notcp", "+tcp"):
            assert world.dig(f"@{server}", "-p", "5300", way, "+short", "db.machines.internal") == "10.99.0.3"
    done = world.web.exec(["dig", "@10.99.0.99", "-p", "5300", "+short", "db.machines.internal"])
    assert done.stdout.strip() == "10.99.0.3"


def test_an_address_that_comes_later(world: World) -> None:
    world.host.start_daemon(command("mymachines-dns"), "--listen=10.98.0.1", "--listen=[fd00:98::1]:53")
    world.ip("link add br1 type bridge", "link set br1 up", "address add 10.98.0.1/24 dev br1")
    assert world.dig("@10.98.0.1", "+short", "db.machines.internal") == "10.99.0.3"


FLOOD = f"""
# Queries in another's name: {BRIDGE} would answer to 10.99.0.3.
import socket, struct, sys
query = bytes.fromhex(sys.argv[1])
udp = struct.pack("!4H", 999, 53, 8 + len(query), 0) + query
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0,
                   socket.inet_aton("10.99.0.3"), socket.inet_aton("{BRIDGE}"))
for _ in range(int(sys.argv[2])):
    raw.sendto(head + udp, ("{BRIDGE}", 53))
"""

LISTEN = """
# What arrives at the victim, bytes of DNS, until a second is quiet.
import socket, sys
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
print("ready", flush=True)
raw.settimeout(5)
total = count = 0
try:
    while True:
        total += len(raw.recv(4096)) - 28
        count += 1
        raw.settimeout(1)
except TimeoutError:
    pass
print(total, count, flush=True)
"""


def test_a_spoofed_flood_gives_its_victim_little_more_than_what_it_cost(world: World) -> None:
    query = dns.message.make_query("nobody.machines.internal.", "ANY", use_edns=0, payload=4096).to_wire()
    victim = world.db.popen(["python3", "-c", LISTEN], stdout=subprocess.PIPE)
    assert victim.stdout is not None
    assert victim.stdout.readline() == b"ready\n"
    count = 20000
    done = world.web.exec(["python3", "-c", FLOOD, query.hex(), str(count)], timeout=60)
    assert done.returncode == 0, done.stderr
    total, arrived = map(int, victim.stdout.readline().split())
    victim.wait()
    assert arrived > 0
    # Each second its budget; the flood takes less than ten, on any machine.
    assert total < count * len(query) + 10 * EXCESS_MAX
    assert arrived < count
    assert world.dig(f"@{BRIDGE}", "+short", "web.machines.internal") == "10.99.0.2"
