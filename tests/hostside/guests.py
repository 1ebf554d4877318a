# SPDX-License-Identifier: MIT
"""Guests that the host cannot look into: at the other end of a veth, or of a tap. The host is a network namespace."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

from resolver.host.netns import NetlinkOpener
from resolver.host.process import Process
from tests.hostside.worlds import in_net, sleeper
from tests.lab.processes import end
from tests.lab.waiting import Lines

# Frames, a line of hexadecimal digits each, go into a tap as if its VM had sent them. What comes out is thrown away.
TAP = """
import fcntl, os, struct, sys
fd = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", sys.argv[1].encode(), 0x1002))  # TUNSETIFF; IFF_TAP, IFF_NO_PI
print("attached", flush=True)
for line in sys.stdin:
    os.write(fd, bytes.fromhex(line))
"""


async def netlink_in(process: Process, groups: int, by_thread: bool | None = None) -> socket.socket:
    """A socket in the process's network namespace, as NetlinkOpener.open() gives it."""
    with closing(NetlinkOpener(by_thread)) as opener:
        return await opened_in(process, groups, opener)


async def opened_in(process: Process, groups: int, opener: NetlinkOpener) -> socket.socket:
    """The same, by that opener."""
    namespace = process.open_namespace("net")
    try:
        return await opener.open(namespace, groups)
    finally:
        os.close(namespace)


def index(pid: int, name: str) -> int:
    return int(in_net(pid, "ip", "-o", "link", "show", name).partition(":")[0])


def add_bridge(host: int, name: str, *addresses: str) -> int:
    """A bridge with the host's addresses. Returns its index.

    It forwards at once, and has a MAC address of its own: else it takes its ports' lowest, and whenever that changes
    the kernel forgets all neighbours.
    """
    in_net(host, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
    in_net(host, *f"ip link add {name} address 02:00:00:00:00:01 type bridge forward_delay 0".split())
    in_net(host, "ip", "link", "set", name, "up")
    for address in addresses:
        in_net(host, "ip", "address", "add", address, "dev", name)
    return index(host, name)


class VethGuest:
    """`port` is the index of the host's end."""

    def __init__(self, host: int, pid: int, name: str, mac: str) -> None:
        self.pid, self.mac = pid, mac
        in_net(host, *f"ip link add {name} type veth peer name eth0 address {mac} netns {pid}".split())
        self.port = index(host, name)

    def ip(self, *arguments: str) -> None:
        in_net(self.pid, "ip", *arguments)

    def reach(self, address: str) -> None:
        """Answers to a ping make neighbours of both."""
        in_net(self.pid, "ping", "-qc1", "-W5", address)


@contextmanager
def veth_guest(host: int, name: str, mac: str, bridge: str = "", *addresses: str) -> Iterator[VethGuest]:
    with sleeper("-n") as pid:
        in_net(pid, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")
        guest = VethGuest(host, pid, name, mac)
        if bridge:
            in_net(host, "ip", "link", "set", name, "master", bridge)
        in_net(host, "ip", "link", "set", name, "up")
        guest.ip("link", "set", "eth0", "up")
        for address in addresses:
            guest.ip("address", "add", address, "dev", "eth0")
        yield guest


class TapGuest:
    """What a VM's network card sends, frame by frame. It answers nothing: for a VM that does, a veth stands in."""

    def __init__(self, host: int, name: str, process: "subprocess.Popen[bytes]") -> None:
        self.port = index(host, name)
        self._process = process

    def send(self, frame: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(frame.hex().encode() + b"\n")
        self._process.stdin.flush()

    def ask(self, mac: str, address: str, whom: str) -> None:
        """An ARP request (RFC 826): whoever sees it learns the sender's addresses."""
        self.send(arp(mac, address, whom))


def arp(mac: str, sender: str, target: str) -> bytes:
    own = bytes.fromhex(mac.replace(":", ""))
    packed = [bytes(map(int, text.split("."))) for text in (sender, target)]
    return b"\xff" * 6 + own + bytes.fromhex("0806 0001 0800 0604 0001") + own + packed[0] + bytes(6) + packed[1]


@contextmanager
def tap_guest(host: int, name: str, mac: str, bridge: str = "") -> Iterator[TapGuest]:
    """`mac` is the tap's own, which the host chooses."""
    in_net(host, "ip", "tuntap", "add", name, "mode", "tap")
    in_net(host, "ip", "link", "set", name, "address", mac)
    if bridge:
        in_net(host, "ip", "link", "set", name, "master", bridge)
    in_net(host, "ip", "link", "set", name, "up")
    process = subprocess.Popen(["nsenter", "-t", str(host), "-n", sys.executable, "-c", TAP, name],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert Lines(process).next(10) == "attached"
        yield TapGuest(host, name, process)
    finally:
        end(process)
