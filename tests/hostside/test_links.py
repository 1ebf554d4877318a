# SPDX-License-Identifier: MIT
"""Which of the host's interfaces leads to a machine. The host is a network namespace here."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resolver.host.addresses import GROUPS, AddressWatcher
from resolver.host.links import MASTERS_MAX, HostLinks
from resolver.host.netlink import Link
from resolver.host.process import Process
from resolver.host.readable import Readable
from tests.hostside.guests import netlink_in
from tests.hostside.worlds import PROJECT, in_net, needs_root, sleeper

pytestmark = needs_root


@pytest.fixture
def host() -> Iterator[Process]:
    with sleeper("-n") as pid, Process.open(pid) as process:
        yield process


@pytest.fixture
def links(host: Process) -> Iterator[HostLinks]:
    links = HostLinks(asyncio.run(netlink_in(host, 0)))
    yield links
    links.close()


@pytest.fixture
def guest(host: Process) -> Iterator[Process]:
    """Its link host0 is the other end of the host's ve-web."""
    with sleeper("-n") as pid, Process.open(pid) as process:
        in_net(host.pid, "ip", "link", "add", "ve-web", "type", "veth", "peer", "name", "host0", "netns", str(pid))
        yield process


def index(process: Process, name: str) -> int:
    return int(in_net(process.pid, "ip", "-o", "link", "show", name).partition(":")[0])


def peers(guest: Process) -> tuple[tuple[int, int], ...]:
    """As the watcher tells them."""
    async def run() -> tuple[tuple[int, int], ...]:
        readable = Readable()
        watcher = AddressWatcher("web", readable, lambda _: None)
        watcher.follow(await netlink_in(guest, GROUPS))
        async with asyncio.timeout(5):
            await watcher.known.wait()
        watcher.close()
        readable.close()
        return watcher.peers

    return asyncio.run(run())


def test_the_other_end_of_a_guests_link(host: Process, guest: Process, links: HostLinks) -> None:
    ve_web = index(host, "ve-web")
    assert peers(guest) == ((index(guest, "host0"), ve_web),)
    assert links.host_interface(guest, (), peers(guest)) == ve_web
    assert links.host_scope_id(guest, (), peers(guest)) == ve_web


def test_a_port_is_reached_through_its_bridge(host: Process, guest: Process, links: HostLinks) -> None:
    in_net(host.pid, "ip", "link", "add", "br0", "type", "bridge")
    in_net(host.pid, "ip", "link", "set", "ve-web", "master", "br0")
    assert links.host_scope_id(guest, (), peers(guest)) == index(host, "br0")
    in_net(host.pid, "ip", "link", "set", "ve-web", "nomaster")
    assert links.host_scope_id(guest, (), peers(guest)) == index(host, "ve-web")


@pytest.mark.parametrize(("kinds", "expected"), [
    (["bond", "bridge"], 3),
    (["bond", "bridge", "vrf"], 3),
    (["vrf"], 1),  # has no link-local addresses of its own; its ports keep theirs
    (["bridge"] * (MASTERS_MAX - 1), MASTERS_MAX),
    (["bridge"] * MASTERS_MAX, 0),
])
def test_masters_upon_masters(kinds: list[str], expected: int, links: HostLinks,
                              monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every kernel has bonds and VRFs: link 1 is a port of 2, which is one of 3..."""
    table = {i: Link(i, f"l{i}", i + 1, kind) for i, kind in enumerate(kinds, 1)}
    table[len(kinds) + 1] = Link(len(kinds) + 1, "last")
    monkeypatch.setattr(links, "_link", table.get)
    assert links.scope_id(1) == expected


def test_the_registered_interface_comes_first(host: Process, guest: Process, links: HostLinks) -> None:
    in_net(host.pid, "ip", "link", "add", "tap0", "type", "bridge")
    tap = index(host, "tap0")
    assert links.host_scope_id(guest, (tap,), peers(guest)) == tap
    # one that is gone, and numbers that are none
    assert links.host_scope_id(guest, (4711, 0, -1, 2**40), peers(guest)) == index(host, "ve-web")


def test_a_guest_cannot_claim_anothers_interface(host: Process, guest: Process, links: HostLinks) -> None:
    """It makes a pair of links to a namespace of its own, with the numbers that another machine's have."""
    ve_web, host0 = index(host, "ve-web"), index(guest, "host0")
    with sleeper("-n") as pid, sleeper("-n") as accomplice, Process.open(pid) as thief:
        in_net(pid, "ip", "link", "add", "x", "index", str(host0), "type", "veth", "peer", "name", "y",
               "index", str(ve_web), "netns", str(accomplice))
        assert peers(thief) == ((host0, ve_web),)
        assert links.host_scope_id(thief, (), peers(thief)) == 0
        assert links.host_scope_id(guest, (), peers(guest)) == ve_web


def test_the_numbers_have_to_match_on_both_sides(host: Process, guest: Process, links: HostLinks) -> None:
    ve_web, host0 = index(host, "ve-web"), index(guest, "host0")
    assert links.host_interface(guest, (), [(host0, ve_web)]) == ve_web
    assert links.host_interface(guest, (), [(host0 + 1, ve_web), (host0, ve_web + 1), (host0, 0), (host0, -1)]) == 0


def test_a_macvlans_lower_interface_is_not_the_machines(host: Process, links: HostLinks) -> None:
    with sleeper("-n") as pid, Process.open(pid) as guest:
        in_net(host.pid, "ip", "link", "add", "up0", "type", "bridge")
        try:
            in_net(host.pid, "ip", "link", "add", "mv", "link", "up0", "type", "macvlan")
        except subprocess.CalledProcessError:
            pytest.skip("this kernel has no macvlan")
        in_net(host.pid, "ip", "link", "set", "mv", "netns", str(pid))
        assert [there for _, there in peers(guest)] == [index(host, "up0")]
        assert links.host_scope_id(guest, (), peers(guest)) == 0


def test_peers_follow_the_guests_links(host: Process) -> None:
    with sleeper("-n") as pid, Process.open(pid) as guest:
        async def run() -> None:
            news = asyncio.Event()
            readable = Readable()
            watcher = AddressWatcher("web", readable, lambda _: news.set())
            watcher.follow(await netlink_in(guest, GROUPS))
            try:
                async with asyncio.timeout(5):
                    await news.wait()
                    assert not list(watcher.peers)
                    await asyncio.to_thread(in_net, host.pid, "ip", "link", "add", "ve-web", "type", "veth", "peer",
                                            "name", "host0", "netns", str(pid))
                    # A new link's event does not tell of its peer yet; the one of its coming up does.
                    await asyncio.to_thread(in_net, pid, "ip", "link", "set", "host0", "up")
                    while not watcher.peers:
                        news.clear()
                        await news.wait()
                    await asyncio.to_thread(in_net, host.pid, "ip", "link", "del", "ve-web")
                    while watcher.peers:
                        news.clear()
                        await news.wait()
            finally:
                watcher.close()
                readable.close()

        asyncio.run(run())


def test_the_real_host_has_a_loopback() -> None:
    links = HostLinks()
    try:
        assert links.scope_id(int(Path("/sys/class/net/lo/ifindex").read_text())) == 1
        assert links.scope_id(2**30) == 0
    finally:
        links.close()


ODD_NAME = r"""
import json, os, subprocess
from resolver.addressing import Followed
from resolver.namespaces import Judged
from resolver.core.addresses import Reason, Verdict
from resolver.core.machine import Address, AddressSource
subprocess.run([b"ip", b"link", b"add", b"name", b"ve-\xff\x1b[1m", b"type", b"bridge"], check=True)
index = int(subprocess.run(["ip", "-o", "link"], check=True, capture_output=True).stdout.split(b"\n")[1].split(b":")[0])
seen = Verdict(Address(2, bytes([10, 0, 0, 2]), index, source=AddressSource.LEASE), Reason.ROUTED)
[explained] = Followed("vm", None, judged=Judged(verdicts=(seen,))).explained()
print(json.dumps(explained.interface))
"""


def test_the_hosts_interfaces_may_have_names_that_are_no_text() -> None:
    """Where a virtual machine was seen is told by name, and JSON has no bytes."""
    done = subprocess.run(["unshare", "--net", sys.executable, "-c", ODD_NAME], capture_output=True, text=True,
                          timeout=30, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == "ve-\ufffd\x1b[1m"
