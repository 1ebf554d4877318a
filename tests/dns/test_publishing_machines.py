# SPDX-License-Identifier: MIT
"""The whole of it: containers on a host, the daemon, mymachines-dns-publish, and BIND 9 that answers."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.endtoend.conftest import World
from tests.lab import Container, TestHost, command, wait_for
from tests.lab.processes import end

from .site import ADDRESS, ZONE, Bind

SECONDS = 20.0


@pytest.fixture
def world(host: TestHost) -> World:
    return World(host, host.start_daemon())


@pytest.fixture
def site(host: TestHost, tmp_path: Path) -> Iterator[Bind]:
    folder = tmp_path / "site"
    folder.mkdir()
    with Bind(folder, host) as server:
        yield server


def arguments(site: Bind, *more: str) -> list[str]:
    return [*command("mymachines-dns-publish"), f"--server={ADDRESS}", f"--port={site.port}", f"--zone={ZONE}",
            "--name=host1", f"--key-file={site.key_file}", *more]


@contextlib.contextmanager
def publishing(site: Bind, *more: str) -> Iterator["subprocess.Popen[bytes]"]:
    assert site.host is not None
    process = site.host.popen(arguments(site, *more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        end(process)


def plain(container: Container) -> set[str]:
    """Its addresses without their networks."""
    return {address.partition("/")[0] for address in container.addresses}


def becomes(site: Bind, expected: dict[str, set[str]]) -> None:
    wait_for(lambda: site.addresses() == expected, SECONDS, f"{expected}, not {site.addresses()}")


def test_containers_by_dns_update(world: World, site: Bind) -> None:
    with publishing(site) as process:
        web = world.machine("web")
        becomes(site, {"web.host1": plain(web)})
        # A name that resolves on its host is one that others get, and the other way round.
        assert site.dig(f"web.host1.{ZONE}", "A", "+short").strip() in world.addresses("ahostsv4", "web")
        # The daemon is away: machines are still there, and what comes meanwhile follows.
        world.daemon.kill9()
        db = world.host.container("db")
        assert site.addresses()
        world.restart()
        world.register(db)
        becomes(site, {"web.host1": plain(web), "db.host1": plain(db)})
        web.close()
        becomes(site, {"db.host1": plain(db)})
        process.terminate()
        assert process.wait(SECONDS) == 0
        assert not site.zone()


def test_only_addresses_that_others_reach(world: World, site: Bind) -> None:
    world.machine("web", addresses=["10.99.1.2/24"], host_addresses=["10.99.1.1/24"])
    world.machine("db", addresses=["10.99.2.2/24"], host_addresses=["10.99.2.1/24"])
    with publishing(site, "--network=10.99.1.0/24", "--network=fd00::/8"):
        becomes(site, {"web.host1": {"10.99.1.2"}})


def test_what_a_lost_host_has_left_is_withdrawn_by_hand(world: World, site: Bind) -> None:
    web = world.machine("web")
    with publishing(site) as process:
        becomes(site, {"web.host1": plain(web)})
        process.kill()
    becomes(site, {"web.host1": plain(web)})
    done = world.host.run(arguments(site, "--withdraw"))
    assert done.returncode == 0, done.stderr
    assert not site.zone()


@pytest.mark.parametrize(("wrong", "meaning"), [
    (["--server=ns.example"], "invalid ip_address value"),
    (["--name=host1.elsewhere."], "is no name below"),
    (["--key-file=/nowhere"], "No such file"),
    (["--port=0"], "invalid"),
    (["--ttl=-1"], "invalid"),
])
def test_what_cannot_be_right_is_told_at_once(world: World, site: Bind, wrong: list[str], meaning: str) -> None:
    done = world.host.run(arguments(site, *wrong), check=False)
    assert done.returncode == 2
    assert meaning in done.stderr
