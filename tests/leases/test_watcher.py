# SPDX-License-Identifier: MIT
"""Lease files as servers make, replace and remove them, in directories that come and go."""

import asyncio
import ctypes
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from resolver.host import inotify
from resolver.host.alarm import Alarm
from resolver.leases import places as places_module
from resolver.leases import watcher as watcher_module
from resolver.leases.dnsmasq import parse_dnsmasq
from resolver.leases.lease import Lease
from resolver.leases.objects import parse_libvirt
from resolver.leases.places import PLACES, Place
from resolver.leases.watcher import LeaseFiles

MAC = "52:54:00:aa:bb:cc"


class Watch:
    """Two places, and what is told of their leases."""

    def __init__(self, root: Path) -> None:
        self.plain = root / "var" / "misc"
        self.libvirt = root / "var" / "libvirt" / "dnsmasq"
        self.changes: list[set[Lease]] = []
        self._news = asyncio.Event()
        self.files = LeaseFiles(self._on_change, [
            Place(str(self.plain), re.compile(r"dnsmasq(\..+)?\.leases"), parse_dnsmasq),
            Place(str(self.libvirt), re.compile(r"(?P<interface>.+)\.status"), parse_libvirt),
        ])

    def _on_change(self, leases: set[Lease]) -> None:
        self.changes.append(leases)
        self._news.set()

    def addresses(self) -> set[str]:
        return {".".join(map(str, lease.packed)) for lease in self.files._counts}

    async def until(self, *addresses: str) -> None:
        async with asyncio.timeout(5):
            while self.addresses() != set(addresses):
                self._news.clear()
                await self._news.wait()


def watching(root: Path, test: Callable[[Watch], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        watch = Watch(root)
        try:
            async with asyncio.timeout(5):
                await watch.files.known.wait()
            await test(watch)
        finally:
            watch.files.close()
            watch.files.close()

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(run())
    assert len(os.listdir("/proc/self/fd")) == before


def line(address: str, expires: float | None = None, mac: str = MAC) -> str:
    return f"{int(time.time()) + 3600 if expires is None else int(expires)} {mac} {address} web *\n"


def replace(path: Path, text: str) -> None:
    path.with_name(f".{path.name}.new").write_text(text)
    path.with_name(f".{path.name}.new").rename(path)


def test_what_is_there_is_known_first(tmp_path: Path) -> None:
    (tmp_path / "var" / "misc").mkdir(parents=True)
    (tmp_path / "var" / "misc" / "dnsmasq.leases").write_text(line("10.1.0.5"))
    (tmp_path / "var" / "misc" / "dnsmasq.br0.leases").write_text(line("10.2.0.5"))
    (tmp_path / "var" / "misc" / "others").write_text(line("10.3.0.5"))

    async def test(watch: Watch) -> None:
        assert watch.addresses() == {"10.1.0.5", "10.2.0.5"}
        assert {lease.packed for lease in watch.files.of_mac(bytes.fromhex("5400aabbcc"))} == {
            bytes([10, 1, 0, 5]), bytes([10, 2, 0, 5])}
        assert [lease.mac.hex(":") for lease in watch.files.of_address(bytes([10, 1, 0, 5]))] == [MAC]
        assert list(watch.files.of_mac(b"12345")) == list(watch.files.of_address(b"1234")) == []

    watching(tmp_path, test)


def test_directories_and_files_come_change_and_go(tmp_path: Path) -> None:
    async def test(watch: Watch) -> None:
        file = watch.plain / "dnsmasq.leases"
        watch.plain.mkdir(parents=True)
        file.write_text(line("10.1.0.5"))
        await watch.until("10.1.0.5")
        replace(file, line("10.1.0.6"))  # as libvirt and systemd do
        await watch.until("10.1.0.6")
        with file.open("r+") as held:  # as dnsmasq does: over it, and it stays open
            held.truncate()
            held.write(line("10.1.0.7") + line("10.1.0.8"))
            held.flush()
            await watch.until("10.1.0.7", "10.1.0.8")
        file.unlink()
        await watch.until()
        file.write_text(line("10.1.0.9"))
        await watch.until("10.1.0.9")
        # the directory goes, and is another when it comes again
        watch.plain.rename(tmp_path / "old")
        await watch.until()
        (tmp_path / "old" / "dnsmasq.leases").write_text(line("10.1.0.1"))
        watch.plain.mkdir()
        file.write_text(line("10.1.0.10"))
        await watch.until("10.1.0.10")
        # with all that is above it
        file.unlink()
        watch.plain.rmdir()
        (tmp_path / "var").rmdir()
        await watch.until()
        watch.libvirt.mkdir(parents=True)
        watch.plain.mkdir()
        file.write_text(line("10.1.0.11"))
        (watch.libvirt / "virbr0.status").write_text(
            f'[{{"ip-address": "10.4.0.5", "mac-address": "{MAC}", "expiry-time": 0}}]')
        await watch.until("10.1.0.11", "10.4.0.5")
        assert {lease.interface for lease in watch.files._counts} == {"", "virbr0"}

    watching(tmp_path, test)


def test_the_same_lease_in_two_files_goes_with_the_last(tmp_path: Path) -> None:
    async def test(watch: Watch) -> None:
        watch.plain.mkdir(parents=True)
        text = line("10.1.0.5")
        one, other = watch.plain / "dnsmasq.leases", watch.plain / "dnsmasq.b.leases"
        one.write_text(text + text)
        other.write_text(text + line("10.1.0.6"))
        await watch.until("10.1.0.5", "10.1.0.6")
        one.unlink()
        replace(other, text)
        await watch.until("10.1.0.5")
        other.unlink()
        await watch.until()
        assert not watch.files._by_mac
        assert not watch.files._by_address

    watching(tmp_path, test)


def test_a_lease_goes_when_it_expires(tmp_path: Path) -> None:
    async def test(watch: Watch) -> None:
        watch.plain.mkdir(parents=True)
        soon = int(time.time()) + 2
        (watch.plain / "dnsmasq.leases").write_text(
            line("10.1.0.4", time.time() - 1) + line("10.1.0.5", soon) + line("10.1.0.6") + line("10.1.0.7", 0))
        await watch.until("10.1.0.5", "10.1.0.6", "10.1.0.7")
        await watch.until("10.1.0.6", "10.1.0.7")
        assert time.time() >= soon
        assert watch.changes[-1] == {Lease(bytes.fromhex(MAC.replace(":", "")), 2, bytes([10, 1, 0, 5]), float(soon))}

    watching(tmp_path, test)


@pytest.mark.parametrize("how", ["link", "fifo", "directory", "big", "somebodys", "nobodys", "everybodys",
                                 "in everybodys", "in somebodys"])
def test_what_is_not_believed(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture,
                              monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    monkeypatch.setattr(places_module, "FILE_MAX", 1000)
    folder = tmp_path / "var" / "misc"
    folder.mkdir(parents=True)
    file = folder / "dnsmasq.leases"
    (tmp_path / "true").write_text(line("10.1.0.5"))
    if how == "link":
        file.symlink_to(tmp_path / "true")
    elif how == "fifo":
        os.mkfifo(file)
    elif how == "directory":
        file.mkdir()
    else:
        file.write_text(line("10.1.0.5") * (30 if how == "big" else 1))
    if how in ("somebodys", "nobodys"):
        os.chown(file, 1000 if how == "somebodys" else 65534, 0)
    if how == "everybodys":
        file.chmod(0o666)
    if how == "in everybodys":
        folder.chmod(0o777)
    if how == "in somebodys":
        os.chown(folder, 1000, 0)

    async def test(watch: Watch) -> None:
        assert watch.addresses() == set()
        other = watch.libvirt / "virbr0.status"
        watch.libvirt.mkdir(parents=True)
        other.write_text(f'[{{"ip-address": "10.4.0.5", "mac-address": "{MAC}"}}]')
        await watch.until("10.4.0.5")  # the others are read all the same

    with caplog.at_level(logging.WARNING):
        watching(tmp_path, test)
    assert len([r for r in caplog.records if "dnsmasq.leases: not read" in r.message]) == 1


@pytest.mark.parametrize("uid", [0, 110, 61184])
def test_a_services_file_is_believed(tmp_path: Path, uid: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    (tmp_path / "var" / "misc").mkdir(parents=True)
    (tmp_path / "var" / "misc" / "dnsmasq.leases").write_text(line("10.1.0.5"))
    os.chown(tmp_path / "var" / "misc" / "dnsmasq.leases", uid, 0)

    async def test(watch: Watch) -> None:
        assert watch.addresses() == {"10.1.0.5"}

    watching(tmp_path, test)


def test_problems_are_told_once_and_what_is_right_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(watch: Watch) -> None:
        watch.plain.mkdir(parents=True)
        file = watch.plain / "dnsmasq.leases"
        for address in ("10.1.0.5", "10.1.0.6"):
            replace(file, "rubbish\n" + line(address))
            await watch.until(address)
        replace(file, "other rubbish\n" * 9 + line("10.1.0.7"))
        await watch.until("10.1.0.7")

    with caplog.at_level(logging.WARNING):
        watching(tmp_path, test)
    first, second = (record.message for record in caplog.records)
    assert first.endswith("dnsmasq.leases: no lease: b'rubbish'")
    assert second.endswith("; and 4 more")


def test_a_queue_that_overflows_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = inotify.Inotify.read

    def overflown(self: inotify.Inotify) -> list[inotify.Event]:
        return [inotify.Event(-1, inotify.IN_Q_OVERFLOW, "")] if read(self) else []

    async def test(watch: Watch) -> None:
        watch.plain.mkdir(parents=True)
        (watch.plain / "dnsmasq.leases").write_text(line("10.1.0.5"))
        await watch.until("10.1.0.5")
        (watch.plain / "dnsmasq.leases").unlink()
        await watch.until()

    monkeypatch.setattr(inotify.Inotify, "read", overflown)
    watching(tmp_path, test)


def test_a_directory_that_comes_while_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = inotify.Inotify.add
    (tmp_path / "var").mkdir()

    def late(self: inotify.Inotify, path: str, mask: int) -> int:
        if path == str(tmp_path / "var"):  # the directory itself was not there
            (tmp_path / "var" / "misc").mkdir(exist_ok=True)
        return add(self, path, mask)

    async def test(watch: Watch) -> None:
        (watch.plain / "dnsmasq.leases").write_text(line("10.1.0.5"))
        await watch.until("10.1.0.5")

    monkeypatch.setattr(inotify.Inotify, "add", late)
    watching(tmp_path, test)


def test_a_disk_that_hangs_delays_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(watcher_module, "TURN_SECONDS", 0.05)
    released = threading.Event()
    real = places_module.read_place

    def hanging(*arguments: Any) -> Any:
        released.wait(10)
        return real(*arguments)

    monkeypatch.setattr(watcher_module, "read_place", hanging)

    async def test(watch: Watch) -> None:
        watch.plain.mkdir(parents=True)
        (watch.plain / "dnsmasq.leases").write_text(line("10.1.0.5"))
        assert watch.files._reading
        released.set()
        await watch.until("10.1.0.5")

    with caplog.at_level(logging.WARNING):
        watching(tmp_path, test)
    assert "takes long" in caplog.records[0].message


def test_a_busy_server_is_not_read_at_every_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0
    real = places_module.read_place

    def counting(*arguments: Any) -> Any:
        nonlocal turns
        turns += 1
        return real(*arguments)

    monkeypatch.setattr(watcher_module, "read_place", counting)

    async def test(watch: Watch) -> None:
        watch.plain.mkdir(parents=True)
        began = time.monotonic()
        for i in range(200):
            await asyncio.to_thread(replace, watch.plain / "dnsmasq.leases", line(f"10.1.0.{i + 1}"))
        await watch.until("10.1.0.200")
        assert turns <= (time.monotonic() - began) / watcher_module.SETTLE_SECONDS + 5

    watching(tmp_path, test)


def test_the_real_places() -> None:
    def finds(path: str) -> str | None:
        for place in PLACES:
            folder, _, name = path.rpartition("/")
            match = place.pattern.fullmatch(name) if place.directory == folder else None
            if match:
                return match.groupdict().get("interface", "")
        return None

    assert finds("/var/lib/misc/dnsmasq.leases") == finds("/var/lib/misc/dnsmasq.lxcbr0.leases") == ""
    assert finds("/var/lib/libvirt/dnsmasq/virbr0.status") == "virbr0"
    assert finds("/var/lib/systemd/network/dhcp-server-lease/ve-web") == "ve-web"
    assert finds("/run/systemd/netif/dhcp-server-lease/br0.7") == "br0.7"
    for other in ("/var/lib/libvirt/dnsmasq/virbr0.status.new", "/var/lib/libvirt/dnsmasq/default.conf",
                  "/var/lib/systemd/network/dhcp-server-lease/.#br0x", "/var/lib/misc/dnsmasq.leases~"):
        assert finds(other) is None


def test_an_alarm_that_is_late_and_one_that_is_not_set() -> None:
    async def run() -> None:
        rang = asyncio.Event()
        alarm = Alarm(rang.set)
        alarm.set(time.time() + 3600)
        alarm.set(None)
        alarm.set(time.time() - 5)
        async with asyncio.timeout(5):
            await rang.wait()
        alarm.close()
        alarm.close()

    asyncio.run(run())


def test_leases_come_and_go_with_a_clock_that_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forth and back, and twice. The kernel's word that the clock was set is injected, as the jump is."""
    offset, real = 0.0, time.time
    monkeypatch.setattr(time, "time", lambda: real() + offset)

    async def test(watch: Watch) -> None:
        nonlocal offset
        watch.plain.mkdir(parents=True)
        replace(watch.plain / "dnsmasq.leases", line("10.1.0.4") + line("10.1.0.5", real() + 86400)
                + line("10.1.0.6", 0))
        for _ in range(2):
            for jump, there in ((0.0, (4, 5, 6)), (7200.0, (5, 6)), (1e6, (6,)), (-1e6, (4, 5, 6)), (7200.0, (5, 6))):
                offset = jump
                watch.files._alarm._on_readable()
                await watch.until(*(f"10.1.0.{number}" for number in there))

    watching(tmp_path, test)


def test_events_that_are_cut_short() -> None:
    whole = inotify._EVENT.pack(1, inotify.IN_CREATE, 0, 16) + b"web".ljust(16, b"\0")
    assert list(inotify.parse(whole + whole[:7])) == [inotify.Event(1, inotify.IN_CREATE, "web")]
    assert list(inotify.parse(b"")) == []
    assert ctypes.sizeof(ctypes.c_int) == 4
