# SPDX-License-Identifier: MIT
"""What getaddrinfo gives of the same containers: with systemd-machined and its module, then with ours. As root:

    python -m tests.compare_addresses

boots a Debian 13, starts real systemd-nspawn containers in it, asks, has mymachinesd take the place, asks again, and
prints the table of docs/addresses.md.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from tests.host.booted import BootedHost
from tests.host.conftest import take_place
from tests.host.guests import Guest, start_shell
from tests.lab import wait_for

PORT = 7000
SETTLE_SECONDS = 20.0   # for link-local addresses and carriers to be there

SERVER = f"""
import socket
server = socket.create_server(("::", {PORT}), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    server.accept()[0].close()
"""

ASK = f"""
import json, socket, sys
answers = {{}}
for name in sys.argv[1:]:
    try:
        found = socket.getaddrinfo(name, {PORT}, type=socket.SOCK_STREAM)
    except OSError as error:
        answers[name] = [[], error.strerror]
        continue
    given = [socket.getnameinfo(address, socket.NI_NUMERICHOST)[0] for *_, address in found]
    try:
        with socket.socket(found[0][0], socket.SOCK_STREAM) as connection:
            connection.settimeout(2)
            connection.connect(found[0][4])
        outcome = "connects"
    except OSError as error:
        outcome = error.strerror or "no answer"
    answers[name] = [given, outcome]
print(json.dumps(answers))
"""

SYSTEMDS_MODULE = "/usr/lib/x86_64-linux-gnu"   # before ours in the linker's order only where it is told so

Answers = dict[str, tuple[list[str], str]]


@dataclass(frozen=True)
class Topology:
    """A container, how it is connected, and what is done on the host's side and inside, as lines of `ip -batch`."""

    name: str
    text: str
    options: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()


TOPOLOGIES = (
    Topology("bare", "veth, link-local addresses alone"),
    Topology("dhcp", "veth, 169.254.0.0/16 and another address", host=(
        "address add 169.254.7.1/16 dev ve-dhcp", "address add 10.1.0.1/24 dev ve-dhcp"), inside=(
        "address add 169.254.7.2/16 dev host0", "address add 10.1.0.2/24 dev host0")),
    Topology("docker", "veth, and a docker bridge inside", host=(
        "address add 10.2.0.1/24 dev ve-docker",), inside=(
        "link add docker0 type bridge", "address add 172.17.0.1/16 dev docker0", "link set docker0 up",
        "address add 10.2.0.2/24 dev host0")),
    Topology("inner", "veth, link-local alone, and a docker bridge inside", inside=(
        "link add docker0 type bridge", "address add 172.17.0.1/16 dev docker0", "link set docker0 up")),
    Topology("two", "two veths, one of them unknown to the host", ("--network-veth-extra=ve-more:more",), host=(
        "address add 10.3.0.1/24 dev ve-two", "link set ve-more up"), inside=(
        "address add 10.30.0.2/24 dev more", "link set more up", "address add 10.3.0.2/24 dev host0")),
    Topology("port", "veth, a port of a bridge", ("--network-bridge=br0",), inside=(
        "address add 10.4.0.2/24 dev host0",)),
    Topology("mac", "macvlan (from the host itself nothing connects)", ("--network-macvlan=up0",), inside=(
        "address add 10.5.0.2/24 dev mv-up0", "link set mv-up0 up")),
    Topology("flags", "veth; IPv6: one tentative, one deprecated, one good", host=(
        "address add fd00:6::1/64 dev ve-flags nodad",), inside=(
        "address add fd00:6::3/64 dev host0 nodad preferred_lft 0", "address add fd00:6::2/64 dev host0 nodad",
        "address add fd00:6::4/64 dev host0")),
    Topology("liar", "veth; the guest also claims 8.8.8.8", host=("address add 10.7.0.1/24 dev ve-liar",), inside=(
        "address add 8.8.8.8/32 dev host0", "address add 10.7.0.2/24 dev host0")),
    Topology("guest", "virtual machine behind a bridge, that the host has talked to"),
    Topology("plain", "no network of its own"),
)


def main() -> int:
    with BootedHost() as host, ExitStack() as last_first:
        host.run("systemctl stop systemd-networkd.socket systemd-networkd.service")     # addresses are given here
        ip(host, "link add br0 type bridge", "address add 10.4.0.1/24 dev br0", "link set br0 up",
           "link add up0 type veth peer name down0", "address add 10.5.0.1/24 dev up0", "link set up0 up",
           "link set down0 up", "route add default via 10.5.0.254")
        for topology in TOPOLOGIES:
            MAKE.get(topology.name, start)(host, topology, last_first)
        names = [topology.name for topology in TOPOLOGIES]
        version = host.out("systemctl --version | head -n 1")
        theirs = ask(host, names, {"LD_LIBRARY_PATH": SYSTEMDS_MODULE})
        take_place(host)
        wait_for(lambda: ask(host, ["guest"], {})["guest"][0], SETTLE_SECONDS, "the virtual machine to be seen")
        ours = ask(host, names, {})
    print(f"| connected by | {version.partition(' (')[0]} | first one | mymachines | first one |")
    print("| --- | --- | --- | --- | --- |")
    for topology in TOPOLOGIES:
        cells = [cell for answers in (theirs, ours) for cell in as_cells(answers[topology.name])]
        print(f"| {topology.text} | {' | '.join(cells)} |")
    return 0


def as_cells(answer: tuple[list[str], str]) -> tuple[str, str]:
    given, outcome = answer
    return (", ".join(f"`{address}`" for address in given), outcome) if given else ("-", "-")


def ask(host: BootedHost, names: list[str], environment: dict[str, str]) -> Answers:
    variables = [f"{name}={value}" for name, value in environment.items()]
    found: Answers = json.loads(host.out(["env", *variables, "python3", "-c", ASK, *names], timeout=60))
    return found


def start(host: BootedHost, topology: Topology, last_first: ExitStack) -> None:
    guest = start_shell(host, topology.name, *topology.options)
    last_first.callback(guest.remove)
    ip(host, *(f"link set {name} up" for name in host_ends(host, topology.name)), *topology.host)
    inside(host, guest.leader, "ip link set host0 up")
    last_first.callback(stop, serve(host, guest.leader))
    wait_for(lambda: settled(host, guest), SETTLE_SECONDS, f"{topology.name}'s link-local address")
    # What is tentative stays so for as long as this lasts.
    inside(host, guest.leader, "sysctl -qw net.ipv6.conf.host0.dad_transmits=200")
    inside(host, guest.leader, "ip -batch -", stdin="\n".join(topology.inside))


def start_plain(host: BootedHost, topology: Topology, _last_first: ExitStack) -> None:
    register(host, topology.name, "container", 0, "sleep infinity")


def start_virtual_machine(host: BootedHost, topology: Topology, last_first: ExitStack) -> None:
    """A stand-in: a network namespace behind a tap's place at the bridge; its leader is on the host, as QEMU is."""
    ip(host, "netns add vm", "link add vnet0 type veth peer name eth0 netns vm", "link set vnet0 master br0",
       "link set vnet0 up")
    host.run("ip -n vm address add 10.4.0.9/24 dev eth0 && ip -n vm link set eth0 up && ip -n vm link set lo up")
    last_first.callback(stop, host.popen(["ip", "netns", "exec", "vm", "python3", "-c", SERVER]))
    index = int(host.out(["cat", "/sys/class/net/vnet0/ifindex"]))
    register(host, topology.name, "vm", index, "sleep infinity")
    talk = f"import socket; socket.create_connection(('10.4.0.9', {PORT}), 1).close()"
    wait_for(lambda: host.run(["python3", "-c", talk], check=False).returncode == 0, SETTLE_SECONDS,
             "the virtual machine to answer")


def register(host: BootedHost, name: str, machine_class: str, interface: int, command: str) -> None:
    host.run(f"systemd-run --quiet --unit={name} --slice=machine.slice --collect {command}")
    interfaces = ["1", str(interface)] if interface else ["0"]
    host.run(["busctl", "call", "org.freedesktop.machine1", "/org/freedesktop/machine1",
              "org.freedesktop.machine1.Manager", "RegisterMachineWithNetwork", "sayssusai", name, "0", "test",
              machine_class, str(host.main_pid(f"{name}.service")), "", *interfaces])


MAKE: dict[str, Callable[[BootedHost, Topology, ExitStack], None]] = {
    "plain": start_plain, "guest": start_virtual_machine}


def host_ends(host: BootedHost, name: str) -> list[str]:
    found = host.out(["ls", "/sys/class/net"]).split()
    return [end for end in (f"ve-{name}", f"vb-{name}") if end in found]


def settled(host: BootedHost, guest: Guest) -> bool:
    shown = inside(host, guest.leader, "ip -6 -o address show dev host0 scope link")
    return "fe80" in shown and "tentative" not in shown


def ip(host: BootedHost, *lines: str) -> None:
    host.run(["ip", "-batch", "-"], stdin="\n".join(lines))


def inside(host: BootedHost, leader: int, command: str, stdin: str = "") -> str:
    return host.run(["nsenter", f"--net=/proc/{leader}/ns/net", "sh", "-c", command], stdin=stdin).stdout


def serve(host: BootedHost, leader: int) -> "subprocess.Popen[bytes]":
    return host.popen(["nsenter", f"--net=/proc/{leader}/ns/net", "python3", "-c", SERVER])


def stop(child: "subprocess.Popen[bytes]") -> None:
    child.kill()
    child.communicate()


if __name__ == "__main__":
    sys.exit(main())
