# SPDX-License-Identifier: MIT
"""Publishing to the servers that sites run: BIND 9 and Knot DNS, as Debian has them."""

import asyncio
import functools
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.name
import dns.tsig
import pytest

from resolver.dns.publish import publisher as publishing
from resolver.dns.publish.keys import load_key
from resolver.dns.publish.messages import Place
from resolver.dns.publish.publisher import Publisher
from resolver.dns.publish.records import NAMES_IN_UPDATE
from resolver.dns.publish.server import Server
from tests.lab import wait_for

from .site import ADDRESS, KEY_NAME, ZONE, Bind, Knot, SiteServer

SECONDS = 30.0


@pytest.fixture(params=[Bind, Knot], ids=["bind", "knot"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SiteServer]:
    folder = tmp_path / "site"
    folder.mkdir()
    with request.param(folder) as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes minutes with a server that is away takes moments here."""
    monkeypatch.setattr(publishing, "RETRY_FIRST_SECONDS", 0.05)
    monkeypatch.setattr(publishing, "RETRY_LAST_SECONDS", 0.3)
    monkeypatch.setattr(publishing, "CHECK_SECONDS", 0.3)
    monkeypatch.setattr(publishing, "BATCH_SECONDS", 0.01)


def publisher_of(site: SiteServer, host: str = "host1", owner: str = "a" * 32,
                 key: dns.tsig.Key | None = None) -> Publisher:
    place = Place(dns.name.from_text(ZONE), dns.name.from_text(f"{host}.{ZONE}"), 60)
    key = key or load_key(str(site.key_file))
    return Publisher(Server(ADDRESS, site.port, place, key), place, key, owner)


@asynccontextmanager
async def running(*publishers: Publisher) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each.run()) for each in publishers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), result


async def becomes(site: SiteServer, expected: dict[str, set[str]]) -> None:
    await until(lambda: site.addresses() == expected)


async def until(true: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_for, true, SECONDS)


def run(steps: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(3 * SECONDS):
            await steps()

    asyncio.run(main())


def test_machines_come_change_and_go(site: SiteServer) -> None:
    async def steps() -> None:
        publisher = publisher_of(site)
        publisher.machine("Web", ["10.0.0.2", "fd00::2", "fe80::2", "169.254.3.4"])
        async with running(publisher):
            await becomes(site, {"web.host1": {"10.0.0.2", "fd00::2"}})
            publisher.machine("db.prod", ["10.0.0.3"])
            publisher.machine("web", ["10.0.0.4"])
            await becomes(site, {"web.host1": {"10.0.0.4"}, "db.prod.host1": {"10.0.0.3"}})
            publisher.gone("WEB")
            await becomes(site, {"db.prod.host1": {"10.0.0.3"}})
        await publisher.withdraw()
        assert not site.zone()

    run(steps)


def test_many_at_once_take_few_updates(site: SiteServer) -> None:
    wanted = {f"m{number}.host1": {f"10.1.{number // 250}.{number % 250}"} for number in range(3 * NAMES_IN_UPDATE)}

    async def steps() -> None:
        publisher = publisher_of(site)
        for name, addresses in wanted.items():
            publisher.machine(name.removesuffix(".host1"), addresses)
        async with running(publisher):
            await becomes(site, wanted)
        # The serial moves once an update (RFC 2136 section 3.6), and has begun with 1.
        assert int(site.dig(ZONE, "SOA", "+short").split()[2]) <= 1 + 3
        await publisher.withdraw()
        assert not site.zone()

    run(steps)


def test_a_server_that_is_away_for_a_while(site: SiteServer, caplog: pytest.LogCaptureFixture) -> None:
    async def steps() -> None:
        publisher = publisher_of(site)
        publisher.machine("web", ["10.0.0.2"])
        async with running(publisher):
            await becomes(site, {"web.host1": {"10.0.0.2"}})
            await asyncio.to_thread(site.stop, signal.SIGKILL)
            publisher.machine("db", ["10.0.0.3"])
            publisher.gone("web")
            await until(lambda: "cannot be published" in caplog.text)
            await asyncio.to_thread(site.start)
            await becomes(site, {"db.host1": {"10.0.0.3"}})
        assert caplog.text.count("cannot be published") <= 3, "each state is told once"

    run(steps)


def test_a_server_that_comes_back_with_an_old_zone(site: SiteServer, tmp_path: Path) -> None:
    async def steps() -> None:
        publisher = publisher_of(site)
        publisher.machine("web", ["10.0.0.2"])
        publisher.machine("old", ["10.0.0.9"])
        async with running(publisher):
            await becomes(site, {"web.host1": {"10.0.0.2"}, "old.host1": {"10.0.0.9"}})
            await asyncio.to_thread(site.stop)
            site.snapshot(tmp_path / "copy")
            await asyncio.to_thread(site.start)
            publisher.gone("old")
            publisher.machine("db", ["10.0.0.3"])
            new = {"web.host1": {"10.0.0.2"}, "db.host1": {"10.0.0.3"}}
            await becomes(site, new)
            await asyncio.to_thread(site.stop)
            site.restore(tmp_path / "copy")
            await asyncio.to_thread(site.start)
            await becomes(site, new)  # nothing of ours has changed: it is the look at the mark that tells

    run(steps)


def test_a_crash_leaves_nothing_that_the_next_run_does_not_find(site: SiteServer) -> None:
    async def steps() -> None:
        before = publisher_of(site)
        before.machine("web", ["10.0.0.2"])
        before.machine("gone", ["10.0.0.9"])
        async with running(before):
            await becomes(site, {"web.host1": {"10.0.0.2"}, "gone.host1": {"10.0.0.9"}})
        after = publisher_of(site)
        after.machine("web", ["10.0.0.2"])
        async with running(after):
            await becomes(site, {"web.host1": {"10.0.0.2"}})

    run(steps)


def test_a_restart_that_finds_what_it_expects_changes_nothing(site: SiteServer) -> None:
    async def steps() -> None:
        for publisher in (publisher_of(site), publisher_of(site)):
            publisher.machine("web", ["10.0.0.2"])
            async with running(publisher):
                await becomes(site, {"web.host1": {"10.0.0.2"}})
                await until(functools.partial(getattr, publisher, "in_step"))
        assert site.dig(ZONE, "SOA", "+short").split()[2] == "2"

    run(steps)


@pytest.mark.parametrize(("name", "secret", "meaning"), [
    (KEY_NAME, "d3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmcgd3I=", "another secret"),
    ("nobody", "d3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmcgd3Jvbmcgd3I=", "does not know this key"),
])
def test_a_wrong_key_is_told_and_nothing_is_lost(site: SiteServer, caplog: pytest.LogCaptureFixture, name: str,
                                                secret: str, meaning: str) -> None:
    async def steps() -> None:
        wrong = publisher_of(site, key=dns.tsig.Key(name, secret, "hmac-sha256"))
        wrong.machine("web", ["10.0.0.2"])
        async with running(wrong):
            await until(lambda: meaning in caplog.text)
        assert not site.zone()
        right = publisher_of(site)
        right.machine("web", ["10.0.0.2"])
        async with running(right):
            await becomes(site, {"web.host1": {"10.0.0.2"}})

    run(steps)


def test_two_hosts_with_a_machine_of_one_name(site: SiteServer) -> None:
    async def steps() -> None:
        one, two = publisher_of(site, "host1"), publisher_of(site, "host2", "b" * 32)
        one.machine("web", ["10.0.0.2"])
        two.machine("web", ["10.0.1.2"])
        async with running(one, two):
            await becomes(site, {"web.host1": {"10.0.0.2"}, "web.host2": {"10.0.1.2"}})
        await one.withdraw()
        assert site.addresses() == {"web.host2": {"10.0.1.2"}}

    run(steps)


def test_two_hosts_of_one_name_never_overwrite_each_other(site: SiteServer, caplog: pytest.LogCaptureFixture) -> None:
    async def steps() -> None:
        first, second = publisher_of(site, owner="a" * 32), publisher_of(site, owner="b" * 32)
        first.machine("web", ["10.0.0.2"])
        second.machine("web", ["10.0.1.2"])
        second.machine("db", ["10.0.1.3"])
        async with running(first):
            await becomes(site, {"web.host1": {"10.0.0.2"}})
            async with running(second):
                await until(lambda: "another host publishes as host1" in caplog.text)
                first.machine("web", ["10.0.0.5"])
                await becomes(site, {"web.host1": {"10.0.0.5"}})
        # When the first has gone in good order, the name is free.
        await first.withdraw()
        async with running(second):
            await becomes(site, {"web.host1": {"10.0.1.2"}, "db.host1": {"10.0.1.3"}})
        await publisher_of(site, owner="c" * 32).withdraw(whose_ever=True)
        assert not site.zone()

    run(steps)


def test_what_others_keep_in_the_zone_stays(site: SiteServer) -> None:
    async def steps() -> None:
        other, publisher = publisher_of(site, "host10", "b" * 32), publisher_of(site)
        other.machine("web", ["10.0.10.2"])
        publisher.machine("web", ["10.0.0.2"])
        async with running(other):
            await becomes(site, {"web.host10": {"10.0.10.2"}})
        async with running(publisher):
            await becomes(site, {"web.host10": {"10.0.10.2"}, "web.host1": {"10.0.0.2"}})
        await publisher.withdraw()
        assert site.addresses() == {"web.host10": {"10.0.10.2"}}

    run(steps)


def test_a_server_that_gives_no_transfer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is wanted is published all the same; that old names may stay is said."""
    folder = tmp_path / "site"
    folder.mkdir()
    bind = Bind(folder)
    conf = folder / "named.conf"
    conf.write_text(conf.read_text().replace(f'allow-transfer {{ key "{KEY_NAME}"; }}', "allow-transfer { none; }"))

    def address(name: str) -> str:
        return bind.dig(f"{name}.host1.{ZONE}", "A", "+short").strip()

    async def steps() -> None:
        before = publisher_of(bind)
        before.machine("web", ["10.0.0.2"])
        before.machine("gone", ["10.0.0.9"])
        async with running(before):
            await until(lambda: address("gone") == "10.0.0.9")
        after = publisher_of(bind)
        after.machine("web", ["10.0.0.5"])
        async with running(after):
            await until(lambda: address("web") == "10.0.0.5")
        assert "old names may stay" in caplog.text

    with bind:
        run(steps)
