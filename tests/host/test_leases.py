# SPDX-License-Identifier: MIT
"""systemd-networkd's DHCP server, and the file that it keeps of its leases."""

import asyncio
import ipaddress
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from resolver.leases.lease import Lease
from resolver.leases.places import PLACES
from resolver.leases.watcher import LeaseFiles
from tests.hostside.dhcp_client import DHCP_CLIENT

from .booted import BootedHost

DIRECTORY = "/var/lib/systemd/network/dhcp-server-lease"
LEASE_SECONDS = 8
MAC = "52:54:00:aa:bb:cc"
FILES = {
    "/etc/systemd/network/10-lease0.netdev": "[NetDev]\nName=lease0\nKind=bridge\n",
    "/etc/systemd/network/10-lease0.network": (
        "[Match]\nName=lease0\n[Network]\nAddress=10.1.0.1/24\nDHCPServer=yes\nConfigureWithoutCarrier=yes\n"
        f"IPv6AcceptRA=no\n[DHCPServer]\nDefaultLeaseTimeSec={LEASE_SECONDS}\n"),
    "/etc/systemd/network/10-leaseport0.network": "[Match]\nName=leaseport0\n[Network]\nBridge=lease0\n",
}


@pytest.fixture
def serving(plain_host: BootedHost) -> Iterator[BootedHost]:
    """The host with a bridge lease0 on which it leases addresses, and a namespace `guest` behind a port of that."""
    host = plain_host
    for path, text in FILES.items():
        host.path(path).write_text(text)
    host.path("/root/dhcp_client.py").write_text(DHCP_CLIENT.read_text())
    try:
        host.run("systemctl restart systemd-networkd && ip netns add guest && ip link add leaseport0 type veth peer "
                 f"name eth0 address {MAC} netns guest && ip link set leaseport0 up && ip -n guest link set eth0 up")
        host.run(["/usr/lib/systemd/systemd-networkd-wait-online", "--timeout=20", "--interface=lease0:routable",
                  "--interface=leaseport0:enslaved"], timeout=30)
        yield host
    finally:
        for path in FILES:
            host.path(path).unlink()
        host.run("ip link del leaseport0; ip netns del guest; systemctl restart systemd-networkd; ip link del lease0",
                 check=False)


def test_leases_of_systemd_networkd(serving: BootedHost) -> None:
    place = next(place for place in PLACES if place.directory == DIRECTORY)

    async def client(*verb: str) -> str:
        return (await asyncio.to_thread(
            serving.out, ["ip", "netns", "exec", "guest", "python3", "/root/dhcp_client.py", "eth0", *verb])).strip()

    async def run() -> None:
        news = asyncio.Event()
        leases = LeaseFiles(lambda _: news.set(), [replace(place, directory=str(serving.path(DIRECTORY)))])
        try:
            async with asyncio.timeout(30):
                await leases.known.wait()
                assert not leases.of_mac(bytes.fromhex("5400aabbcc"))
                address = await client("take")
                while not (found := leases.of_mac(bytes.fromhex("5400aabbcc"))):    # the file may come before the lease
                    await news.wait()
                    news.clear()
                (lease,) = found
                assert lease == Lease(bytes.fromhex("525400aabbcc"), 2, ipaddress.ip_address(address).packed,
                                      lease.expires, "lease0")
                assert 0 < lease.expires - time.time() <= LEASE_SECONDS
                # Nothing is done for it to go: networkd leaves it in its file until the next one is given.
                while leases.of_mac(bytes.fromhex("5400aabbcc")):
                    await news.wait()
                    news.clear()
                assert time.time() >= lease.expires
                assert '"Address":[' + address.replace(".", ",") in serving.path(f"{DIRECTORY}/lease0").read_text()
        finally:
            leases.close()

    asyncio.run(run())
