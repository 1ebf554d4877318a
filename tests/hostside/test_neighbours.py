# SPDX-License-Identifier: MIT
"""Who is behind which port, from a real kernel's tables: bridges, veths and taps in a host that is a namespace."""

import asyncio
import errno
import ipaddress
import logging
import os
import socket
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from resolver.host import neighbourhood as neighbourhood_module
from resolver.host import neighbours as neighbours_module
from resolver.host import netlink
from resolver.host import port as port_module
from resolver.host.neighbourhood import Neighbourhood
from resolver.host.neighbours import GROUPS, NeighbourWatcher
from resolver.host.netlink import RTM_DELLINK, RTM_NEWLINK, RTM_NEWNEIGH, Link, Message, Neighbour
from resolver.host.process import Process
from tests.hostside.guests import VethGuest, add_bridge, index, netlink_in, tap_guest, veth_guest
from tests.hostside.worlds import in_net, needs_root, sleeper

pytestmark = needs_root
MAC_A, MAC_B = "52:54:00:00:00:0a", "52:54:00:00:00:0b"


@pytest.fixture
def host() -> Iterator[int]:
    with sleeper("-n") as pid:
        yield pid


@pytest.fixture
def br0(host: int) -> int:
    return add_bridge(host, "br0", "10.1.0.1/24", "fd01::1/64")


@pytest.fixture
def web(host: int, br0: int) -> Iterator[VethGuest]:
    with veth_guest(host, "web0", MAC_A, "br0", "10.1.0.10/24", "fd01::10/64") as guest:
        yield guest


class Watch:
    """A watcher, and waiting for what it tells."""

    def __init__(self, host: Process) -> None:
        self.host = host
        self.calls: list[set[str]] = []
        self._news = asyncio.Event()
        self.watcher: NeighbourWatcher

    async def open(self) -> None:
        self.watcher = NeighbourWatcher(self._on_change, await netlink_in(self.host, GROUPS))

    def _on_change(self, names: set[str]) -> None:
        self.calls.append(names)
        self._news.set()

    def addresses(self, name: str) -> set[str]:
        hood = self.watcher.neighbourhood
        return {str(ipaddress.ip_address(key[1])) for port in hood.ports(name) for key, _ in hood.neighbours(port)}

    def macs(self, name: str) -> set[str]:
        return {mac.hex(":") for port in self.watcher.neighbourhood.ports(name) for mac in port.macs}

    async def until(self, predicate: Callable[[], bool], seconds: float = 5) -> None:
        async with asyncio.timeout(seconds):
            while not predicate():
                self._news.clear()
                await self._news.wait()

    async def settled(self) -> None:
        """All that the kernel has said so far is taken in: a link that is made now is told of last."""
        port = next(iter(self.watcher.neighbourhood._ports.values()))
        before = port.generation
        self.watcher.neighbourhood.dump_wanted = True
        self.watcher._wake_if_wanted()
        async with asyncio.timeout(5):
            while port.generation == before or self.watcher._dump is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


def watching(host: int, test: Callable[[Watch], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        with Process.open(host) as process:
            watch = Watch(process)
            await watch.open()
            try:
                await test(watch)
            finally:
                watch.watcher.close()

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(run())
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_guest_behind_a_bridge(host: int, br0: int, web: VethGuest) -> None:
    async def test(watch: Watch) -> None:
        watch.watcher.follow("web", [web.port])
        await watch.watcher.known.wait()
        await asyncio.to_thread(web.reach, "10.1.0.1")
        await watch.until(lambda: "10.1.0.10" in watch.addresses("web"))
        await asyncio.to_thread(web.reach, "fd01::1")
        await watch.until(lambda: "fd01::10" in watch.addresses("web"))
        assert watch.macs("web") == {MAC_A}
        (port,) = watch.watcher.neighbourhood.ports("web")
        assert (port.index, port.link) == (web.port, br0)
        assert {key[0] for key, _ in watch.watcher.neighbourhood.neighbours(port)} == {br0}
        assert set.union(*watch.calls) == {"web"}

    watching(host, test)


def test_what_was_there_before(host: int, web: VethGuest) -> None:
    web.reach("10.1.0.1")
    web.reach("fd01::1")

    async def test(watch: Watch) -> None:
        watch.watcher.follow("web", [web.port])
        await watch.until(lambda: {"10.1.0.10", "fd01::10"} <= watch.addresses("web"))
        watch.watcher.forget("web")
        assert watch.addresses("web") == set()
        assert not watch.watcher.neighbourhood._neighbours
        assert not watch.watcher.neighbourhood._owners
        # and once more, long after the first dump
        await asyncio.sleep(0)
        watch.watcher.follow("web", [web.port])
        await watch.until(lambda: {"10.1.0.10", "fd01::10"} <= watch.addresses("web"))

    watching(host, test)


def test_each_has_what_is_behind_its_own_port(host: int, web: VethGuest) -> None:
    async def test(watch: Watch) -> None:
        with veth_guest(host, "db0", MAC_B, "br0", "10.1.0.11/24") as db:
            watch.watcher.follow("web", [web.port])
            watch.watcher.follow("db", [db.port])
            for guest in (web, db):
                await asyncio.to_thread(guest.reach, "10.1.0.1")
            await watch.until(lambda: watch.addresses("web") == {"10.1.0.10"} and "10.1.0.11" in watch.addresses("db"))
            assert watch.addresses("db") == {"10.1.0.11"}

    watching(host, test)


def test_a_port_of_no_bridge_is_a_link_of_its_own(host: int) -> None:
    async def test(watch: Watch) -> None:
        with veth_guest(host, "vm0", MAC_A, "", "10.2.0.2/24") as vm:
            await asyncio.to_thread(in_net, host, "ip", "address", "add", "10.2.0.1/24", "dev", "vm0")
            watch.watcher.follow("vm", [vm.port])
            await asyncio.to_thread(vm.reach, "10.2.0.1")
            await watch.until(lambda: "10.2.0.2" in watch.addresses("vm"))
            assert watch.macs("vm") == {MAC_A}

    watching(host, test)


def test_an_interface_that_comes_later_and_then_joins_a_bridge(host: int, br0: int) -> None:
    async def test(watch: Watch) -> None:
        watch.watcher.follow("vm", [77])
        await watch.watcher.known.wait()
        with sleeper("-n") as pid:
            for command in (f"link add vm0 index 77 type veth peer name eth0 address {MAC_A} netns {pid}",
                            "link set vm0 up", "link set vm0 master br0"):
                await asyncio.to_thread(in_net, host, "ip", *command.split())
            for command in ("link set eth0 up", "address add 10.1.0.10/24 dev eth0"):
                await asyncio.to_thread(in_net, pid, "ip", *command.split())
            await asyncio.to_thread(in_net, pid, "ping", "-qc1", "-W5", "10.1.0.1")
            await watch.until(lambda: "10.1.0.10" in watch.addresses("vm"))
            await asyncio.to_thread(in_net, host, "ip", "link", "set", "vm0", "nomaster")
            await watch.until(lambda: watch.addresses("vm") == set())
            assert watch.macs("vm") == set()

    watching(host, test)


def test_a_neighbour_that_fails_or_goes(host: int, web: VethGuest) -> None:
    async def test(watch: Watch) -> None:
        watch.watcher.follow("web", [web.port])
        await asyncio.to_thread(web.reach, "10.1.0.1")
        await watch.until(lambda: "10.1.0.10" in watch.addresses("web"))
        await asyncio.to_thread(in_net, host, "ip", "neighbour", "change", "10.1.0.10", "dev", "br0", "nud", "failed")
        await watch.until(lambda: "10.1.0.10" not in watch.addresses("web"))
        await asyncio.to_thread(web.reach, "10.1.0.1")
        await watch.until(lambda: "10.1.0.10" in watch.addresses("web"))
        await asyncio.to_thread(in_net, host, "ip", "neighbour", "flush", "dev", "br0")
        await watch.until(lambda: "10.1.0.10" not in watch.addresses("web"))
        assert watch.macs("web") == {MAC_A}

    watching(host, test)


@pytest.mark.parametrize(("state", "counts"), [("reachable", True), ("stale", True), ("delay", True), ("probe", True),
                                               ("permanent", True), ("noarp", False), ("failed", False)])
def test_states_that_count(host: int, web: VethGuest, state: str, counts: bool) -> None:
    web.reach("10.1.0.1")
    in_net(host, "ip", "neighbour", "add", "10.1.0.99", "lladdr", MAC_A, "dev", "br0", "nud", state)

    async def test(watch: Watch) -> None:
        watch.watcher.follow("web", [web.port])
        await watch.until(lambda: "10.1.0.10" in watch.addresses("web"))
        assert ("10.1.0.99" in watch.addresses("web")) == counts

    watching(host, test)


def test_a_mac_address_stays_when_the_bridge_has_forgotten_it(host: int, web: VethGuest) -> None:
    in_net(web.pid, "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")  # it speaks without being asked

    async def test(watch: Watch) -> None:
        watch.watcher.follow("web", [web.port])
        await asyncio.to_thread(web.reach, "10.1.0.1")
        await watch.until(lambda: bool(watch.addresses("web")))
        await asyncio.to_thread(in_net, host, "bridge", "fdb", "del", MAC_A, "dev", "web0", "master")
        await watch.settled()
        (port,) = watch.watcher.neighbourhood.ports("web")
        assert port.macs == {bytes.fromhex(MAC_A.replace(":", "")): False}
        assert watch.addresses("web") == {"10.1.0.10"}

    watching(host, test)


def test_the_ports_own_mac_address_is_not_the_guests(host: int, web: VethGuest) -> None:
    web.reach("10.1.0.1")

    async def test(watch: Watch) -> None:
        watch.watcher.follow("web", [web.port])
        await watch.until(lambda: bool(watch.macs("web")))
        assert watch.macs("web") == {MAC_A}

    watching(host, test)


@pytest.mark.parametrize("name", ["br0", "real0"])
def test_what_others_are_behind_is_no_machines(host: int, web: VethGuest, name: str) -> None:
    """A bridge; and an interface of no kind that guests have, for which a macvlan stands in."""
    in_net(host, "ip", "link", "add", "link", "br0", "name", "real0", "type", "macvlan", "mode", "bridge")
    other = index(host, name)

    async def test(watch: Watch) -> None:
        watch.watcher.follow("thief", [other])
        watch.watcher.follow("web", [web.port])
        await asyncio.to_thread(web.reach, "10.1.0.1")
        await watch.until(lambda: "10.1.0.10" in watch.addresses("web"))
        assert watch.addresses("thief") == set()

    watching(host, test)


def test_the_first_machine_with_an_interface_has_it(host: int, web: VethGuest) -> None:
    web.reach("10.1.0.1")

    async def test(watch: Watch) -> None:
        watch.watcher.follow("web", [web.port])
        watch.watcher.follow("late", [web.port])
        await watch.until(lambda: bool(watch.addresses("web")))
        assert not watch.addresses("late")
        watch.watcher.forget("web")
        await watch.until(lambda: watch.addresses("late") == {"10.1.0.10"})

    watching(host, test)


def test_neighbours_on_a_vlan_of_the_bridge(host: int, web: VethGuest) -> None:
    try:
        in_net(host, "ip", "link", "add", "link", "br0", "name", "br0.7", "type", "vlan", "id", "7")
    except subprocess.CalledProcessError:
        pytest.skip("this kernel has no vlan")
    for command in ("link set br0.7 up", "address add 10.7.0.1/24 dev br0.7"):
        in_net(host, "ip", *command.split())
    for command in ("link add link eth0 name eth0.7 type vlan id 7", "link set eth0.7 up",
                    "address add 10.7.0.10/24 dev eth0.7"):
        web.ip(*command.split())

    async def test(watch: Watch) -> None:
        watch.watcher.follow("web", [web.port])
        await asyncio.to_thread(web.reach, "10.7.0.1")
        await watch.until(lambda: "10.7.0.10" in watch.addresses("web"))
        assert watch.addresses("web") == {"10.7.0.10"}
        (key,) = (key for port in watch.watcher.neighbourhood.ports("web") for key in port.keys if key[1][1] == 7)
        assert key[0] == index(host, "br0.7")

    watching(host, test)


def test_what_the_kernel_forgets_is_kept_until_something_else_is_known(host: int, web: VethGuest) -> None:
    """A bridge's new MAC address has it forget all its neighbours, without asking any of them."""
    async def test(watch: Watch) -> None:
        watch.watcher.follow("web", [web.port])
        await asyncio.to_thread(web.reach, "10.1.0.1")
        await asyncio.to_thread(web.reach, "fd01::1")
        await watch.until(lambda: {"10.1.0.10", "fd01::10"} <= watch.addresses("web"))
        await asyncio.to_thread(in_net, host, "ip", "link", "set", "br0", "address", "02:00:00:00:00:02")
        assert in_net(host, "ip", "neighbour", "show", "10.1.0.10") == ""
        await watch.settled()
        assert {"10.1.0.10", "fd01::10"} <= watch.addresses("web")
        web.ip("address", "flush", "dev", "eth0", "scope", "global")
        web.ip("address", "add", "10.1.0.20/24", "dev", "eth0")
        await asyncio.to_thread(web.reach, "10.1.0.1")
        await watch.until(lambda: "10.1.0.20" in watch.addresses("web"))
        assert "10.1.0.10" not in watch.addresses("web")
        assert "fd01::10" in watch.addresses("web")

    watching(host, test)


# The hostile guest.


def test_gratuitous_arp_takes_nothing_over(host: int, web: VethGuest, caplog: pytest.LogCaptureFixture) -> None:
    async def test(watch: Watch) -> None:
        with tap_guest(host, "evil0", "02:00:00:00:00:0e", "br0") as evil:
            watch.watcher.follow("evil", [evil.port])
            watch.watcher.follow("web", [web.port])
            await asyncio.to_thread(web.reach, "10.1.0.1")
            await watch.until(lambda: watch.addresses("web") == {"10.1.0.10"})
            evil.ask(MAC_B, "10.1.0.66", "10.1.0.1")
            await watch.until(lambda: watch.addresses("evil") == {"10.1.0.66"})

            def stolen() -> bool:
                evil.ask(MAC_B, "10.1.0.10", "10.1.0.1")  # again and again: the kernel locks an entry for a second
                return MAC_B in in_net(host, "ip", "neighbour", "show", "10.1.0.10")

            await eventually(stolen)
            await watch.settled()
            assert watch.addresses("web") == {"10.1.0.10"}
            assert watch.addresses("evil") == {"10.1.0.66"}
            # The thief does not answer, so the entry fails. That is not the owner's doing.
            await asyncio.to_thread(in_net, host, "ip", "neighbour", "flush", "dev", "br0")
            await watch.settled()
            assert watch.addresses("web") == {"10.1.0.10"}
            # When the owner goes, who else says so has it.
            evil.ask(MAC_B, "10.1.0.10", "10.1.0.1")
            await eventually(lambda: MAC_B in in_net(host, "ip", "neighbour", "show", "10.1.0.10"))
            await watch.settled()
            assert watch.addresses("web") == {"10.1.0.10"}
            watch.watcher.forget("web")
            await watch.until(lambda: "10.1.0.10" in watch.addresses("evil"))

    with caplog.at_level(logging.WARNING):
        watching(host, test)
    assert [r.message for r in caplog.records] == [
        "machine evil claims the IP address of machine web; it is not believed"]


def test_anothers_mac_address_is_not_believed(host: int, web: VethGuest, caplog: pytest.LogCaptureFixture) -> None:
    async def test(watch: Watch) -> None:
        with tap_guest(host, "evil0", "02:00:00:00:00:0e", "br0") as evil:
            watch.watcher.follow("web", [web.port])
            watch.watcher.follow("evil", [evil.port])
            await asyncio.to_thread(web.reach, "10.1.0.1")
            await watch.until(lambda: bool(watch.addresses("web")))

            def moved() -> bool:
                evil.ask(MAC_A, "10.1.0.66", "10.1.0.1")
                return f"{MAC_A} dev evil0" in in_net(host, "bridge", "fdb", "show", "br", "br0")

            await eventually(moved)
            await watch.settled()
            assert (watch.macs("web"), watch.macs("evil")) == ({MAC_A}, set())
            assert watch.addresses("evil") == set()

    with caplog.at_level(logging.WARNING):
        watching(host, test)
    assert [r.message for r in caplog.records] == [
        "machine evil sends from the MAC address of machine web; it is not believed"]


def test_a_tap_tells_of_its_guests_mac_address_and_that_counts_more(host: int, br0: int) -> None:
    """As libvirt makes them. The other was there first, and said that it had that address."""
    async def test(watch: Watch) -> None:
        with tap_guest(host, "evil0", "fe:54:00:00:00:0e", "br0") as evil:
            watch.watcher.follow("evil", [evil.port])
            evil.ask(MAC_A, "10.1.0.10", "10.1.0.1")
            await watch.until(lambda: watch.addresses("evil") == {"10.1.0.10"})
            with tap_guest(host, "vm0", "fe:54:00:00:00:0a", "br0") as vm:
                watch.watcher.follow("vm", [vm.port])
                await watch.until(lambda: watch.addresses("vm") == {"10.1.0.10"} and not watch.addresses("evil"))
                evil.ask(MAC_A, "10.1.0.77", "10.1.0.1")
                await eventually(lambda: MAC_A in in_net(host, "ip", "neighbour", "show", "10.1.0.77"))
                await watch.settled()
                assert watch.macs("evil") == set()
                assert watch.addresses("evil") == set()

    watching(host, test)


def test_a_guest_that_answers_for_a_whole_network(host: int, br0: int, monkeypatch: pytest.MonkeyPatch,
                                                  caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(neighbourhood_module, "ADDRESSES_KEPT_MAX", 20)

    async def test(watch: Watch) -> None:
        with tap_guest(host, "evil0", "02:00:00:00:00:0e", "br0") as evil, \
                veth_guest(host, "web0", MAC_A, "br0", "10.1.0.254/24") as web:
            watch.watcher.follow("evil", [evil.port])
            watch.watcher.follow("web", [web.port])
            for i in range(2, 102):
                evil.ask(MAC_B, f"10.1.0.{i}", "10.1.0.1")
            await asyncio.to_thread(web.reach, "10.1.0.1")
            await watch.until(lambda: watch.addresses("web") == {"10.1.0.254"})
            await watch.until(lambda: len(watch.addresses("evil")) == 20)
            await watch.settled()
            assert len(watch.watcher.neighbourhood._neighbours) == 21
            # Half of the room is free again: what was left out is asked for.
            kept = watch.addresses("evil")
            for address in kept:
                await asyncio.to_thread(in_net, host, "ip", "neighbour", "del", address, "dev", "br0")
            await watch.until(lambda: not watch.addresses("evil") & kept and len(watch.addresses("evil")) > 10)

    with caplog.at_level(logging.WARNING):
        watching(host, test)
    assert len([r for r in caplog.records if "more than 20 addresses" in r.message]) == 1


def test_a_guest_with_thousands_of_mac_addresses(host: int, web: VethGuest, monkeypatch: pytest.MonkeyPatch,
                                                 caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(neighbourhood_module, "UNOWNED_KEPT_MAX", 50)

    async def test(watch: Watch) -> None:
        with tap_guest(host, "evil0", "02:00:00:00:00:0e", "br0") as evil:
            watch.watcher.follow("evil", [evil.port])
            watch.watcher.follow("web", [web.port])
            for i in range(3000):
                evil.ask(f"02:66:00:00:{i // 256:02x}:{i % 256:02x}", f"10.1.0.{i % 200 + 20}", "10.1.0.1")
            await asyncio.to_thread(web.reach, "10.1.0.1")
            await watch.until(lambda: watch.addresses("web") == {"10.1.0.10"})
            await watch.until(lambda: len(watch.macs("evil")) == port_module.MACS_KEPT_MAX)
            await watch.settled()
            assert len(watch.watcher.neighbourhood._owners) == port_module.MACS_KEPT_MAX + 1
            assert len(watch.watcher.neighbourhood._unowned) <= 50
            # Those that the bridge has forgotten make room.
            await asyncio.to_thread(in_net, host, "ip", "link", "set", "evil0", "type", "bridge_slave", "fdb_flush")
            evil.ask(MAC_B, "10.1.0.11", "10.1.0.1")
            await watch.until(lambda: MAC_B in watch.macs("evil"))
            assert len(watch.macs("evil")) == port_module.MACS_KEPT_MAX

    with caplog.at_level(logging.WARNING):
        watching(host, test)
    assert len([r for r in caplog.records if "more than 64 MAC addresses" in r.message]) == 1


def test_the_first_dump_is_read_without_pauses(host: int, web: VethGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next one with."""
    monkeypatch.setattr(neighbours_module, "WAKE_BYTES", 1)
    monkeypatch.setattr(neighbours_module, "PAUSE_SECONDS", 3600)
    monkeypatch.setattr(neighbours_module, "PAUSE_MAX_SECONDS", 3600)

    async def test(watch: Watch) -> None:
        watch.watcher.follow("web", [web.port])
        async with asyncio.timeout(5):
            await watch.watcher.known.wait()
        assert watch.watcher._timer is not None
        assert watch.watcher._timer.when() - asyncio.get_running_loop().time() > 3000
    watching(host, test)


def test_lost_events_lead_to_a_new_dump(host: int, web: VethGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours_module, "RECEIVE_BUFFER", 1)  # the kernel makes 2304 of it: two or three events
    lost = 0
    receive = socket.socket.recvfrom_into

    class Counting(socket.socket):
        def recvfrom_into(self, *arguments: Any) -> Any:
            nonlocal lost
            try:
                return receive(self, *arguments)
            except OSError as error:
                lost += error.errno == errno.ENOBUFS
                raise

    monkeypatch.setattr(socket, "socket", Counting)
    lines = "".join(f"neighbour {{}} 10.1.0.{i} lladdr {MAC_A} dev br0 nud reachable\n" for i in range(20, 120))

    async def test(watch: Watch) -> None:
        watch.watcher.follow("web", [web.port])
        await asyncio.to_thread(web.reach, "10.1.0.1")
        await watch.until(lambda: watch.addresses("web") == {"10.1.0.10"})
        for verb, count in (("add", 101), ("del", 1), ("add", 101)):
            await asyncio.to_thread(in_net, host, "sh", "-c", f"ip -batch - <<EOF\n{lines.replace('{}', verb)}\nEOF")
            await watch.until(lambda count=count: len(watch.addresses("web")) == count)  # type: ignore[misc]

    watching(host, test)
    assert lost > 0


def test_a_flood_costs_a_bounded_share(host: int, web: VethGuest, tmp_path: Path) -> None:
    """Changes as fast as the kernel makes them; then the right picture."""
    flapping = "".join(f"neighbour {verb} 10.1.0.{i % 100 + 20} lladdr {MAC_A} dev br0 nud reachable\n"
                       for i in range(3000) for verb in ("add", "del"))
    last = f"neighbour add 10.1.0.200 lladdr {MAC_A} dev br0 nud reachable\n"
    (file := tmp_path / "batch").write_text(flapping + last)

    async def test(watch: Watch) -> None:
        watch.watcher.follow("web", [web.port])
        await asyncio.to_thread(web.reach, "10.1.0.1")
        await watch.until(lambda: watch.addresses("web") == {"10.1.0.10"})
        loop = asyncio.get_running_loop()
        began, calls = loop.time(), len(watch.calls)
        await asyncio.to_thread(in_net, host, "ip", "-force", "-batch", str(file))
        await watch.until(lambda: watch.addresses("web") == {"10.1.0.10", "10.1.0.200"})
        assert len(watch.calls) - calls <= (loop.time() - began) / neighbours_module.PAUSE_SECONDS + 2

    watching(host, test)


# Without a kernel: what this one may lack, and how it is with many.


def told(hood: Neighbourhood, body: Link | Neighbour, kind: int = 0) -> None:
    kind = kind or (RTM_NEWLINK if isinstance(body, Link) else RTM_NEWNEIGH)
    hood.apply(Message(kind, 0, False, body))


def test_a_vlan_upon_a_bridge_is_the_bridges_link() -> None:
    hood, mac = Neighbourhood(), bytes.fromhex("525400000001")
    hood.follow("vm", [5])
    told(hood, Link(9, "br0", kind="bridge"))
    told(hood, Link(5, "vnet0", 9, "bridge", kind="tun"))
    told(hood, Link(7, "br0.7", link=9, kind="vlan"))
    told(hood, Neighbour(netlink.AF_BRIDGE, 5, 2, 0, hardware=mac, master=9))
    told(hood, Neighbour(2, 7, 2, 0, bytes([10, 7, 0, 5]), mac))
    told(hood, Neighbour(2, 8, 2, 0, bytes([10, 8, 0, 5]), mac))  # another interface
    (port,) = hood.ports("vm")
    assert [key for key, _ in hood.neighbours(port)] == [(7, bytes([10, 7, 0, 5]))]
    assert (hood.index_of("br0.7"), hood.link_of(7), hood.index_of("br0"), hood.link_of(8)) == (7, 9, 9, 0)


def test_nothing_is_left_of_those_that_went() -> None:
    hood = Neighbourhood()
    for i in range(1000):
        mac = (2**41 + i).to_bytes(6, "big")
        hood.follow(f"vm{i}", [i + 10])
        told(hood, Link(i + 10, f"vnet{i}", 9, "bridge", kind="tun", hardware=b"\xfe" + mac[1:]))
        told(hood, Neighbour(netlink.AF_BRIDGE, i + 10, 2, 0, hardware=mac, master=9))
        told(hood, Neighbour(2, 9, 2, 0, bytes([10, 1, i // 256, i % 256]), mac))
        told(hood, Neighbour(2, 9, 2, 0, bytes([10, 2, i // 256, i % 256]), b"\x02\xff" + mac[2:]))
    assert sum(len(port.keys) for i in range(1000) for port in hood.ports(f"vm{i}")) == 1000
    for i in range(1000):
        if i % 2:
            told(hood, Link(i + 10, f"vnet{i}", kind="tun"), RTM_DELLINK)
        hood.forget(f"vm{i}")
    left = {name: value for name, value in vars(hood).items() if isinstance(value, dict | set) and value}
    assert set(left) <= {"changed", "_names", "_named"}


async def eventually(predicate: Callable[[], bool]) -> None:
    """For what has no event. The loop goes on between two looks."""
    async with asyncio.timeout(10):
        while not await asyncio.to_thread(predicate):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
