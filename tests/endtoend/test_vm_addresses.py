# SPDX-License-Identifier: MIT
"""Virtual machines: their addresses come from neighbours and leases of the host.

The stand-in for a VM is a veth's end in a network namespace of its own, whose other end is a port of a bridge, as a
tap would be; its leader is a process of the host's, as QEMU is. The DHCP server is a real dnsmasq. The VM's DHCP client
is a few lines here: the packets are what counts, and no client is sure to be on the machine.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.endtoend.conftest import World
from tests.endtoend.topologies import connected, given, ip, ip_inside, serve
from tests.lab import Container, TestHost, wait_for

MAC = "52:54:00:12:34:56"

CLIENT = """
import os, socket, struct, subprocess, sys
interface, wanted, kind = sys.argv[1], sys.argv[2], sys.argv[3]
mac = bytes.fromhex(open(f"/sys/class/net/{interface}/address").read().strip().replace(":", ""))
number = os.urandom(4)

def packet(message, *options):  # RFC 2131 section 2, RFC 2132
    fixed = struct.pack("!BBBB4sHH4s12x16s192x", 1, 1, 6, 0, number, 0, 0x8000, ours, mac.ljust(16, b"\\0"))
    body = b"".join(bytes([code, len(value)]) + value for code, value in ((53, bytes([message])), *options))
    return fixed + bytes([99, 130, 83, 99]) + body + b"\\xff"

ours = bytes(4)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    s.bind(("", 68))
    s.settimeout(10)
    name = (12, b"github")  # the name that a guest claims is nobody's
    if kind == "release":
        ours = socket.inet_aton(wanted)
        s.sendto(packet(7, (54, socket.inet_aton(sys.argv[4]))), (sys.argv[4], 67))
        sys.exit()
    s.sendto(packet(1, name), ("255.255.255.255", 67))
    while True:
        offer = s.recv(2048)
        if offer[4:8] == number:
            break
    address = offer[16:20]
    options, at = {}, 240
    while offer[at] != 255:
        options[offer[at]] = offer[at + 2 : at + 2 + offer[at + 1]]
        at += 2 + offer[at + 1]
    s.sendto(packet(3, (50, address), (54, options[54]), name), ("255.255.255.255", 67))
    while True:
        answer = s.recv(2048)
        if answer[4:8] == number and answer[242] == 5:
            break
print(socket.inet_ntoa(address))
"""


def make_bridge(world: World) -> None:
    ip(world, "link add virbr0 type bridge", "address add 192.168.122.1/24 dev virbr0", "link set virbr0 up")


def make_vm(world: World, name: str, mac: str = MAC) -> Container:
    """Connected, and without an address."""
    vm = world.host.container(f"{name}-net", link=False)
    ip(world, f"link add vnet-{name} type veth peer name eth0 netns {vm.leader}", f"link set vnet-{name} master virbr0",
       f"link set vnet-{name} up")
    ip_inside(vm, f"link set eth0 address {mac}", "link set eth0 up")
    leader = world.host.popen(["sleep", "infinity"])
    world.ctl("register", name, "--leader", leader.pid, "--class", "vm", "--interface", f"vnet-{name}")
    return vm


def start_dnsmasq(world: World) -> None:
    program = shutil.which("dnsmasq", path="/usr/sbin:/usr/bin") or pytest.skip("dnsmasq is not installed")
    world.host.popen([program, "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=virbr0",
                      "--bind-interfaces", "--dhcp-range=192.168.122.50,192.168.122.60,2m", "--no-ping",
                      "--dhcp-leasefile=/var/lib/misc/dnsmasq.leases", "--user=root", "--dhcp-authoritative"])


def run_client(world: World, vm: Container, *arguments: str) -> str:
    inside = ["nsenter", f"--net=/proc/{vm.leader}/ns/net", "--", "unshare", "--mount", "sh", "-c",
              'mount -t sysfs sysfs /sys && exec "$@"', "sh"]
    return world.host.run([*inside, sys.executable, "-c", CLIENT, "eth0", *arguments]).stdout.strip()


def ask_for_lease(world: World, vm: Container) -> str:
    address = wait_for(lambda: run_client(world, vm, "", "ask"), 30, "a lease")
    ip_inside(vm, f"address add {address}/24 dev eth0")
    return address


@pytest.fixture
def world_of_dnsmasq(host: TestHost) -> World:
    """dnsmasq's place for leases is private to the host."""
    if not Path("/var/lib/misc").exists():
        pytest.skip("there is no /var/lib/misc")
    host.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/var/lib/misc"], check=True)
    return World(host, host.start_daemon())


def test_a_neighbour_that_answers_is_the_vms(world: World) -> None:
    make_bridge(world)
    vm = make_vm(world, "web")
    assert world.ctl("explain", "web").startswith("web has no addresses: ")
    ip_inside(vm, "address add 192.168.122.7/24 dev eth0")
    serve(world, vm)
    world.host.run(["ping", "-c1", "-W5", "192.168.122.7"], check=True)
    wait_for(lambda: connected(world, "web") == "192.168.122.7", what="a connection by name")
    assert world.getent("hosts", "192.168.122.7") == ["192.168.122.7 web"]
    assert "from the host's neighbours" in world.ctl("show", "web")
    # And where systemd's clients ask.
    shown = json.loads(world.ctl("show", "web", "--json"))[0]
    assert [192, 168, 122, 7] in [address["address"] for address in shown["addresses"]]
    world.daemon.kill9()
    world.restart()
    assert connected(world, "web") == "192.168.122.7"


def test_a_lease_of_a_real_dnsmasq(world_of_dnsmasq: World) -> None:
    world = world_of_dnsmasq
    make_bridge(world)
    vm = make_vm(world, "web")
    start_dnsmasq(world)
    address = ask_for_lease(world, vm)
    serve(world, vm)
    wait_for(lambda: connected(world, "web") == address, what="a connection by name")
    assert world.getent("hosts", address) == [f"{address} web"]
    wait_for(lambda: "lease" in world.ctl("explain", "web"), what="the lease to be known")
    assert world.getent("hosts", "github") == []  # the name that the guest gave to the DHCP server
    # Given back, and another one taken: the first is nobody's any more.
    run_client(world, vm, address, "release", "192.168.122.1")
    wait_for(lambda: address not in world.host.run(["cat", "/var/lib/misc/dnsmasq.leases"], check=True).stdout,
             what="dnsmasq to take it back")
    ip_inside(vm, f"address del {address}/24 dev eth0", "address add 192.168.122.88/24 dev eth0")
    world.host.run(["ip", "neighbour", "flush", "dev", "virbr0"], check=True)
    world.host.run(["ping", "-c1", "-W5", "192.168.122.88"], check=True)
    wait_for(lambda: world.addresses("ahostsv4", "web") == ["192.168.122.88"], what="the new address alone")
    assert world.getent("hosts", address) == []


def test_who_answers_for_anothers_lease_does_not_have_it(world_of_dnsmasq: World) -> None:
    world = world_of_dnsmasq
    make_bridge(world)
    vm = make_vm(world, "web")
    start_dnsmasq(world)
    address = ask_for_lease(world, vm)
    wait_for(lambda: world.addresses("ahostsv4", "web") == [address], what="the lease to be known")
    mallory = make_vm(world, "mallory", "52:54:00:66:66:66")
    ip_inside(mallory, f"address add {address}/24 dev eth0", "address add 192.168.122.99/24 dev eth0")
    world.host.run(["ping", "-c1", "-W5", "192.168.122.99"], check=True)
    wait_for(lambda: world.addresses("ahostsv4", "mallory") == ["192.168.122.99"], what="its own address alone")
    assert world.getent("hosts", address) == [f"{address} web"]


def test_on_a_bridge_a_neighbours_address_stays_the_neighbours(world: World) -> None:
    """Both list it; the host has found it behind the port of one."""
    make_bridge(world)
    pair = []
    for name, address in (("web", "192.168.122.7/24"), ("mallory", "192.168.122.66/24")):
        container = world.host.container(name, addresses=[address], host_addresses=[])
        ip(world, f"link set {container.host_interface} master virbr0")
        world.register(container)
        pair.append(container)
    serve(world, pair[0])
    wait_for(lambda: connected(world, "web") == "192.168.122.7", what="a connection by name")
    pair[1].add_address("192.168.122.7/32")
    wait_for(lambda: given(world, "mallory").get("192.168.122.7") == "another-port",
             what="the claim to be seen through")
    assert world.addresses("ahostsv4", "mallory") == ["192.168.122.66"]
    assert world.getent("hosts", "192.168.122.7") == ["192.168.122.7 web"]
    assert connected(world, "web") == "192.168.122.7"
