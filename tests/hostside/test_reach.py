# SPDX-License-Identifier: MIT
"""The host's way to a machine, and which of the host's changes concern it: by a real kernel's routes and events."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from resolver.core.addresses import AF_INET, Way
from resolver.core.machine import Address
from resolver.host import netlink
from resolver.host.host_watcher import _GROUPS, change_of
from resolver.host.links import HostLinks
from resolver.host.process import Process
from resolver.host.reach import NETWORKS_MAX, HostChange, Prefix, Reach
from tests.hostside.guests import netlink_in
from tests.hostside.worlds import in_net, needs_root, sleeper

pytestmark = needs_root


class Host:
    """A host with an uplink, and a bridge that has the way out to the world and a machine's port `ve-web`."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.ip("link add br0 type bridge", "link add ve-web type veth peer name host0",
                "link add up0 type veth peer name up1", "link set ve-web master br0",
                *(f"link set {name} up" for name in ("br0", "ve-web", "host0", "up0", "up1")),
                "address add 10.0.0.1/24 dev br0", "address add 192.0.2.1/24 dev up0",
                "route add default via 10.0.0.254")
        self.links = HostLinks(asyncio.run(netlink_in(process, 0)))
        self._events = asyncio.run(netlink_in(process, _GROUPS))

    def close(self) -> None:
        self.links.close()
        self._events.close()

    def ip(self, *lines: str) -> None:
        for line in lines:
            in_net(self.process.pid, "ip", *line.split())

    def index(self, name: str) -> int:
        return int(in_net(self.process.pid, "ip", "-o", "link", "show", "dev", name).partition(":")[0])

    def reach(self, port: int = 0, registered: str = "ve-web") -> Reach:
        return Reach(self.links, self.process, (self.index(registered),), (), {}, lambda *_: port)

    def change(self, *lines: str) -> HostChange:
        """What the watcher makes of what these lines of ip do."""
        self._read()
        self.ip(*lines)
        return change_of(self._read())

    def _read(self) -> list[netlink.Message]:
        messages: list[netlink.Message] = []
        while True:  # the kernel has told when ip has ended
            try:
                messages.extend(netlink.parse(self._events.recv(65536, socket.MSG_DONTWAIT)))
            except BlockingIOError:
                return messages


@pytest.fixture
def host() -> Iterator[Host]:
    with sleeper("-n") as pid, Process.open(pid) as process:
        host = Host(process)
        yield host
        host.close()


def ipv4(text: str) -> Address:
    return Address(AF_INET, bytes(map(int, text.split("."))), 2)


def test_ways(host: Host) -> None:
    reach = host.reach()
    assert reach.way(ipv4("10.0.0.2")) is Way.STRAIGHT
    assert reach.way(ipv4("10.0.0.1")) is Way.HOST
    assert reach.way(ipv4("192.0.2.7")) is Way.ELSEWHERE
    # By the same bridge, and to a router: whoever that knows is not the machine.
    assert reach.way(ipv4("8.8.8.8")) is Way.ELSEWHERE
    host.ip("route add blackhole 10.0.0.9/32", "route add 10.7.0.0/24 dev br0 scope link")
    assert reach.way(ipv4("10.0.0.9")) is Way.ELSEWHERE
    assert reach.way(ipv4("10.7.0.9")) is Way.STRAIGHT
    assert host.reach(port=host.index("ve-web")).way(ipv4("10.0.0.2")) is Way.STRAIGHT
    assert host.reach(port=host.index("up0")).way(ipv4("10.0.0.2")) is Way.ANOTHER_PORT


def test_the_link_below_is_beside(host: Host) -> None:
    """As for macvlan: the guest tells of an interface of the host's that leads to no interface of its own."""
    reach = Reach(host.links, host.process, (), ((7, host.index("up0")),), {}, lambda *_: 0)
    assert reach.way(ipv4("192.0.2.7")) is Way.BESIDE
    assert reach.way(ipv4("10.0.0.2")) is Way.ELSEWHERE
    assert reach.interfaces == ()


@pytest.mark.parametrize(("line", "concerned"), [
    ("route add 10.0.0.0/25 dev up0", True),
    ("route add 10.0.0.2/32 dev up0", True),
    ("route add 10.0.1.0/24 dev up0", False),
    ("route add 8.0.0.0/8 dev up0", True),
    ("link set ve-web nomaster", True),
    ("link set br0 down", True),
    ("address add 10.0.9.1/24 dev br0", True),
    ("link set up1 down", False),
    ("route add default dev up0 metric 5", False),
    ("route del default", True),
    ("rule add to 10.0.0.0/24 lookup 7", True),
    ("link add br9 type bridge", False),
    ("-6 route add fd00:9::/64 dev up0", False),
])
def test_which_changes_concern_a_machine(host: Host, line: str, concerned: bool) -> None:
    reach = host.reach()
    assert (reach.way(ipv4("10.0.0.2")), reach.way(ipv4("8.8.8.8"))) == (Way.STRAIGHT, Way.ELSEWHERE)
    change = host.change(line)
    assert change != HostChange()
    assert reach.concern().by(change) is concerned


def test_more_routes_than_are_told_apart_are_everything(host: Host) -> None:
    few = host.change(*(f"route add 198.51.100.{n}/32 dev up0" for n in range(3)))
    assert len(few.networks) == 3
    many = host.change(*(f"route add 203.0.113.{n}/32 dev up0" for n in range(NETWORKS_MAX + 1)))
    assert many.everything
    assert host.reach().concern().by(many)
    # What waits for its turn is bounded too.
    together = HostChange()
    for number in range(NETWORKS_MAX + 1):
        together |= HostChange(networks=frozenset({Prefix(AF_INET, number << 24, 8, 5)}))
    assert together == HostChange(everything=True)


def test_prefixes() -> None:
    network = Prefix(AF_INET, 10 << 24, 8, 0)
    assert network.holds(AF_INET, (10 << 24) + 77)
    assert not network.holds(AF_INET, 11 << 24)
    assert not network.holds(10, 10 << 24)
    assert Prefix(AF_INET, 0, 0, 0).holds(AF_INET, 2**32 - 1)
    assert Prefix.of_address(ipv4("10.0.0.2")).holds(AF_INET, (10 << 24) + 2)
    assert not Prefix.of_address(ipv4("10.0.0.2")).holds(AF_INET, (10 << 24) + 3)
