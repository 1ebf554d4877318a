# SPDX-License-Identifier: MIT
"""Addresses of VM stand-ins, from a real kernel's tables and a real dnsmasq's leases. The host is a namespace."""

import asyncio
import ipaddress
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from resolver.core.machine import Address, AddressSource
from resolver.host.neighbours import GROUPS
from resolver.host.process import Process
from resolver.leases.dnsmasq import parse_dnsmasq
from resolver.leases.objects import parse_libvirt
from resolver.leases.places import Place, dnsmasq_places
from resolver.outside import OutsideAddresses
from tests.hostside.dhcp_client import DHCP_CLIENT
from tests.hostside.guests import VethGuest, add_bridge, netlink_in, tap_guest, veth_guest
from tests.hostside.worlds import in_net, needs_root, sleeper
from tests.lab.processes import end
from tests.lab.waiting import wait_for

pytestmark = needs_root
MAC_A, MAC_B = "52:54:00:00:00:0a", "52:54:00:00:00:0b"
LEASESHELPER = "/usr/lib/libvirt/libvirt_leaseshelper"


@pytest.fixture
def host() -> Iterator[int]:
    """Its bridge br0 has 10.1.0.1/24."""
    with sleeper("-n") as pid:
        add_bridge(pid, "br0", "10.1.0.1/24", "fd01::1/64")
        yield pid


@pytest.fixture
def vm(host: int) -> Iterator[VethGuest]:
    with veth_guest(host, "vm0", MAC_A, "br0") as guest:
        yield guest


class Watch:
    def __init__(self) -> None:
        self.outside: OutsideAddresses
        self.told: list[str] = []
        self._news = asyncio.Event()

    def on_change(self, name: str) -> None:
        self.told.append(name)
        self._news.set()

    def all(self, name: str) -> list[tuple[str, str]]:
        """Address and source, in the order given; without those of link-local scope."""
        return [(text(a), a.source.value) for a in self.outside.addresses(name) if a.scope == 0]

    async def until(self, name: str, *expected: tuple[str, str], seconds: float = 10) -> None:
        try:
            async with asyncio.timeout(seconds):
                while self.all(name) != list(expected):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{self.all(name)} and not {expected}") from None


def text(address: Address) -> str:
    return str(ipaddress.ip_address(address.packed))


def watching(host: int, places: list[Place], test: Callable[[Watch], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        watch = Watch()
        with Process.open(host) as process:
            watch.outside = OutsideAddresses(
                watch.on_change, await netlink_in(process, GROUPS), places)
            try:
                await asyncio.wait_for(watch.outside.known(), 5)
                await test(watch)
            finally:
                watch.outside.close()
                watch.outside.close()

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(run())
    assert len(os.listdir("/proc/self/fd")) == before


@contextmanager
def dnsmasq(host: int, folder: Path, *options: str, **environment: str) -> Iterator[Path]:
    """A real one, that leases 10.1.0.100 to 10.1.0.200. Gives its lease file."""
    if shutil.which("dnsmasq") is None:
        pytest.skip("dnsmasq is not installed")
    file, log = folder / "dnsmasq.leases", folder / "log"
    process = subprocess.Popen(
        ["nsenter", "-t", str(host), "-n", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0",
         "--interface=br0", "--bind-interfaces", "--user=root", f"--pid-file={folder / 'pid'}",
         "--dhcp-range=10.1.0.100,10.1.0.200,2m", "--dhcp-authoritative", "--no-ping", f"--log-facility={log}",
         *options, *([] if options else [f"--dhcp-leasefile={file}"])],
        stdin=subprocess.DEVNULL, env=os.environ | environment)
    try:
        wait_for(lambda: log.exists() and "DHCP, IP range" in log.read_text(), what="dnsmasq")
        yield file
    finally:
        process.terminate()
        end(process)


def dhcp(guest: VethGuest, *what: str) -> str:
    """Ask for an address, and take it; or give it back. Returns it."""
    done = subprocess.run(["nsenter", "-t", str(guest.pid), "-n", sys.executable, str(DHCP_CLIENT), "eth0", *what],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def plain(folder: Path) -> list[Place]:
    return [Place(str(folder), re.compile(r"dnsmasq\.leases"), parse_dnsmasq)]


def silence(host: int, guest: VethGuest) -> None:
    """The kernel has not heard of it."""
    in_net(host, "ip", "neighbour", "flush", "dev", "br0")


def test_from_lease_to_release(host: int, vm: VethGuest, tmp_path: Path) -> None:
    async def test(watch: Watch) -> None:
        with dnsmasq(host, tmp_path):
            watch.outside.follow("vm", [vm.port])
            address = await asyncio.to_thread(dhcp, vm, "take")
            assert address.startswith("10.1.0.1")
            await watch.until("vm", (address, "lease"))
            (found,) = (a for a in watch.outside.addresses("vm") if a.scope == 0)
            assert found == Address(2, ipaddress.ip_address(address).packed, watch.outside._hood.index_of("br0"),
                                    source=AddressSource.LEASE)
            await asyncio.to_thread(vm.reach, "10.1.0.1")
            await watch.until("vm", (address, "lease"))
            assert watch.outside.port_of(found.ifindex, 2, found.packed) == vm.port
            await asyncio.to_thread(dhcp, vm, "release", address)
            # It still answers there, and says so.
            await watch.until("vm", (address, "neighbour"))
            vm.ip("address", "flush", "dev", "eth0")
            await asyncio.to_thread(in_net, host, "ip", "neighbour", "flush", "dev", "br0")
            await watch.until("vm")

    watching(host, plain(tmp_path), test)


def test_a_lease_that_is_not_renewed(host: int, vm: VethGuest, tmp_path: Path) -> None:
    """dnsmasq's shortest lease is two minutes, so the end of this one is brought near in its file."""
    async def test(watch: Watch) -> None:
        with dnsmasq(host, tmp_path) as file:
            watch.outside.follow("vm", [vm.port])
            address = await asyncio.to_thread(dhcp, vm, "take")
            await watch.until("vm", (address, "lease"))
        silence(host, vm)
        soon = int(time.time()) + 2
        file.write_text(re.sub(r"^\d+", str(soon), file.read_text()))
        await watch.until("vm")
        assert time.time() >= soon

    watching(host, plain(tmp_path), test)


def test_a_guest_that_is_silent_is_known_by_its_lease(host: int, vm: VethGuest, tmp_path: Path) -> None:
    """What the host has forgotten of it: its MAC address at the bridge, its address in the neighbour table."""
    async def test(watch: Watch) -> None:
        with dnsmasq(host, tmp_path):
            watch.outside.follow("vm", [vm.port])
            address = await asyncio.to_thread(dhcp, vm, "take")
            await watch.until("vm", (address, "lease"))
            await asyncio.to_thread(in_net, host, "ip", "link", "set", "vm0", "type", "bridge_slave", "fdb_flush")
            silence(host, vm)
            vm.ip("address", "add", "10.1.0.77/24", "dev", "eth0")
            await asyncio.to_thread(in_net, vm.pid, "ping", "-qc1", "-W5", "-I", "10.1.0.77", "10.1.0.1")
            await watch.until("vm", ("10.1.0.77", "neighbour"), (address, "lease"))

    watching(host, plain(tmp_path), test)


def test_libvirts_status_file(host: int, vm: VethGuest, tmp_path: Path) -> None:
    """Written by libvirt's own helper, that a real dnsmasq calls as libvirt has it do."""
    if not os.path.exists(LEASESHELPER):
        pytest.skip("libvirt_leaseshelper is not installed")
    # It writes to /var/lib/libvirt/dnsmasq and /run, so a mount namespace of its own has these.
    helper = tmp_path / "helper"
    for folder in ("lib", "run"):
        (tmp_path / folder).mkdir()
    (tmp_path / "lib" / "dnsmasq").mkdir()
    helper.write_text(f"""#!/bin/sh
exec unshare -m sh -c 'mkdir -p /var/lib/libvirt && mount --bind {tmp_path}/lib /var/lib/libvirt &&
mount --bind {tmp_path}/run /run && exec {LEASESHELPER} "$@"' sh "$@"
""")
    helper.chmod(0o755)
    place = Place(str(tmp_path / "lib" / "dnsmasq"), re.compile(r"(?P<interface>.+)\.status"), parse_libvirt)

    async def test(watch: Watch) -> None:
        with dnsmasq(host, tmp_path, f"--dhcp-script={helper}", "--leasefile-ro", VIR_BRIDGE_NAME="br0"):
            watch.outside.follow("vm", [vm.port])
            address = await asyncio.to_thread(dhcp, vm, "take")
            await watch.until("vm", (address, "lease"))
            await asyncio.to_thread(dhcp, vm, "release", address)
            silence(host, vm)
            await watch.until("vm")

    watching(host, [place], test)


def test_a_lease_on_another_bridge_is_another_machines(host: int, vm: VethGuest, tmp_path: Path) -> None:
    """Copies of a VM have the same MAC address, each on a bridge of its own."""
    add_bridge(host, "br1", "10.2.0.1/24")
    place = Place(str(tmp_path), re.compile(r"(?P<interface>.+)\.status"), parse_libvirt)

    async def test(watch: Watch) -> None:
        with veth_guest(host, "copy0", MAC_A, "br1", "10.2.0.50/24") as copy:
            vm.ip("address", "add", "10.1.0.50/24", "dev", "eth0")
            watch.outside.follow("vm", [vm.port])
            watch.outside.follow("copy", [copy.port])
            await asyncio.to_thread(vm.reach, "10.1.0.1")
            await asyncio.to_thread(copy.reach, "10.2.0.1")
            await watch.until("vm", ("10.1.0.50", "neighbour"))
            await watch.until("copy", ("10.2.0.50", "neighbour"))
            (tmp_path / "br1.status").write_text(f'[{{"ip-address": "10.2.0.99", "mac-address": "{MAC_A}"}}]')
            (tmp_path / "br9.status").write_text(f'[{{"ip-address": "10.9.0.99", "mac-address": "{MAC_A}"}}]')
            await watch.until("copy", ("10.2.0.50", "neighbour"), ("10.2.0.99", "lease"))
            assert watch.all("vm") == [("10.1.0.50", "neighbour")]

    watching(host, [place], test)


def test_a_tap_that_has_said_nothing_yet_has_its_lease(host: int, tmp_path: Path) -> None:
    """As after a restart of the daemon: libvirt's tap tells of the MAC address."""
    (tmp_path / "dnsmasq.leases").write_text(f"0 {MAC_A} 10.1.0.5 x *\n0 {MAC_B} 10.1.0.6 vm *\n")

    async def test(watch: Watch) -> None:
        with tap_guest(host, "vnet0", "fe" + MAC_A[2:], "br0") as vm:
            watch.outside.follow("vm", [vm.port])
            await watch.until("vm", ("10.1.0.5", "lease"))

    watching(host, plain(tmp_path), test)


# The hostile guest, evil: its tap is MAC_B's.


def test_answering_at_an_address_that_is_leased_to_another(host: int, tmp_path: Path) -> None:
    async def test(watch: Watch) -> None:
        with tap_guest(host, "vm0", "fe" + MAC_A[2:], "br0") as vm, \
                tap_guest(host, "evil0", "fe" + MAC_B[2:], "br0") as evil:
            watch.outside.follow("evil", [evil.port])
            evil.ask(MAC_B, "10.1.0.5", "10.1.0.1")  # before anybody has it
            await watch.until("evil", ("10.1.0.5", "neighbour"))
            watch.outside.follow("vm", [vm.port])
            (tmp_path / "dnsmasq.leases").write_text(f"0 {MAC_A} 10.1.0.5 evil *\n")
            await watch.until("vm", ("10.1.0.5", "lease"))
            await watch.until("evil")

    watching(host, plain(tmp_path), test)


def test_leases_that_were_asked_for_in_anothers_name(host: int, tmp_path: Path) -> None:
    """The server gives an address to the MAC that a request names; who asked uses it from his own."""
    async def test(watch: Watch) -> None:
        with tap_guest(host, "vm0", "fe" + MAC_A[2:], "br0") as vm, \
                tap_guest(host, "evil0", "fe" + MAC_B[2:], "br0") as evil:
            watch.outside.follow("vm", [vm.port])
            watch.outside.follow("evil", [evil.port])
            vm.ask(MAC_A, "10.1.0.5", "10.1.0.1")
            (tmp_path / "dnsmasq.leases").write_text(f"0 {MAC_A} 10.1.0.6 vm *\n0 {MAC_A} 10.1.0.5 vm *\n")
            await watch.until("vm", ("10.1.0.5", "lease"), ("10.1.0.6", "lease"))
            evil.ask(MAC_B, "10.1.0.6", "10.1.0.1")
            await watch.until("vm", ("10.1.0.5", "lease"))
            await watch.until("evil")

    watching(host, plain(tmp_path), test)


def test_the_one_lease_of_a_machine_stays_whoever_answers_there(host: int, tmp_path: Path) -> None:
    (tmp_path / "dnsmasq.leases").write_text(f"0 {MAC_A} 10.1.0.5 vm *\n")

    async def test(watch: Watch) -> None:
        with tap_guest(host, "vm0", "fe" + MAC_A[2:], "br0") as vm, \
                tap_guest(host, "evil0", "fe" + MAC_B[2:], "br0") as evil:
            watch.outside.follow("vm", [vm.port])
            watch.outside.follow("evil", [evil.port])
            await watch.until("vm", ("10.1.0.5", "lease"))
            evil.ask(MAC_B, "10.1.0.5", "10.1.0.1")
            evil.ask(MAC_B, "10.1.0.7", "10.1.0.1")
            await watch.until("evil", ("10.1.0.7", "neighbour"))
            assert watch.all("vm") == [("10.1.0.5", "lease")]

    watching(host, plain(tmp_path), test)


def test_sources_and_places_are_changed(host: int, vm: VethGuest, tmp_path: Path) -> None:
    """While it runs: what is not to be used is gone, and back when it is."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    leased = ("10.1.0.77", "lease")
    (elsewhere / "mine").write_text(f"{int(time.time()) + 600} {MAC_A} {leased[0]} * *\n")

    async def test(watch: Watch) -> None:
        watch.outside.follow("vm", [vm.port])
        vm.ip("address", "add", "10.1.0.2/24", "dev", "eth0")
        await asyncio.to_thread(vm.reach, "10.1.0.1")
        seen = ("10.1.0.2", "neighbour")
        await watch.until("vm", seen)
        everything = frozenset(AddressSource)
        more = [*plain(tmp_path), *dnsmasq_places([str(elsewhere / "mine")])]
        await watch.outside.use(everything, more)
        await watch.until("vm", seen, leased)
        await watch.outside.use(everything - {AddressSource.NEIGHBOUR}, more)
        await watch.until("vm", leased)
        await watch.outside.use(everything - {AddressSource.LEASE}, more)
        await watch.until("vm", seen)
        await watch.outside.use(everything, plain(tmp_path))
        await watch.until("vm", seen)

    watching(host, plain(tmp_path), test)
