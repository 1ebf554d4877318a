# SPDX-License-Identifier: MIT
"""What is killed half-way, or left by whoever asked for it: there is the old state or the new, and nothing between."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.host.booted import AGAINST_MACHINED, USER_ID, BootedHost
from tests.host.conftest import TAKE_OVER_SECONDS, serves
from tests.host.guests import MACHINES
from tests.lab import wait_for

from .clients import MANAGER, listed, machinectl, workers
from .conftest import Images

pytestmark = pytest.mark.skipif(AGAINST_MACHINED, reason="257 leaves half an image under its name, or finishes nothing")

FOLDERS, FILES = 100, 80
"""What takes half a second or more to copy, and to remove."""
OPERATION_SECONDS = 120.0   # on a busy disk


@pytest.fixture
def big(booted: BootedHost, images: Images) -> Path:
    """An image of many files."""
    tree = images.directory("big")
    for folder in range(FOLDERS):
        (tree / f"usr/{folder}").mkdir()
        for file in range(FILES):
            (tree / f"usr/{folder}/{file}").write_bytes(b"%d" % file)
    return tree


def files(tree: Path) -> int:
    """How many there are; those that go meanwhile aside."""
    done = subprocess.run(["find", str(tree), "-type", "f"], capture_output=True, text=True)
    return len(done.stdout.splitlines())


@contextmanager
def begun(host: BootedHost, *arguments: str, half: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """machinectl does something, and is half-way: it is seen to have begun, and its worker is there."""
    asking = host.popen(["machinectl", *arguments])
    try:
        wait_for(lambda: asking.poll() is not None or half(), OPERATION_SECONDS, "it to begin")
        assert asking.poll() is None, f"it ended too early for this test: {asking.communicate()}"
        yield asking
    finally:
        asking.kill()
        asking.communicate()


def hidden_files(host: BootedHost, before: set[str], images: Images) -> int:
    """In what has come into the pool: the copy before it has its name."""
    return sum(files(host.path(f"{MACHINES}/{name}")) for name in images.entries() - before)


def kill_daemon(host: BootedHost) -> None:
    """And wait for the next."""
    old = host.main_pid()
    host.run("systemctl kill --signal=KILL --kill-whom=main mymachinesd.service")
    wait_for(lambda: host.main_pid() not in (0, old) and serves(host), TAKE_OVER_SECONDS)


def kill_worker(host: BootedHost) -> None:
    found = workers(host)
    assert found, "nobody works"
    host.run(["kill", "-KILL", *map(str, found)])


KILLS: dict[str, Callable[[BootedHost], None]] = {"daemon": kill_daemon, "worker": kill_worker}


@pytest.mark.parametrize("whom", KILLS)
def test_a_clone_that_is_killed_was_never_there(booted: BootedHost, images: Images, big: Path, whom: str) -> None:
    before = images.entries()
    with begun(booted, "clone", "big", "other", half=lambda: hidden_files(booted, before, images) > FILES) as asking:
        assert "other" not in listed(booted, "--all"), "half a clone has its name"
        KILLS[whom](booted)
        assert asking.wait(OPERATION_SECONDS) != 0
    assert set(listed(booted, "--all")) == {".host", "big", "web"}
    assert not booted.path(f"{MACHINES}/other").exists()
    if whom == "worker":    # the daemon is there, and the next who does something finds what is left
        booted.run(["machinectl", "read-only", "big", "no"])
        booted.run(["machinectl", "clone", "big", ".small"], timeout=OPERATION_SECONDS)
        booted.run(["machinectl", "remove", ".small"], timeout=OPERATION_SECONDS)
    wait_for(lambda: images.entries() == before, OPERATION_SECONDS, "what is left to be deleted")
    assert files(big) == FOLDERS * FILES + 2
    booted.run(["machinectl", "clone", "big", "other"], timeout=OPERATION_SECONDS)      # the name is free
    assert files(booted.path(f"{MACHINES}/other")) == FOLDERS * FILES + 2


@pytest.mark.parametrize("whom", KILLS)
def test_what_is_removed_is_whole_or_gone(booted: BootedHost, images: Images, big: Path, whom: str) -> None:
    before = images.entries()
    whole = FOLDERS * FILES + 2
    with begun(booted, "remove", "big", half=lambda: not big.exists()) as asking:
        KILLS[whom](booted)
        assert asking.wait(OPERATION_SECONDS) != 0
    seen = set(listed(booted, "--all"))
    assert seen in ({".host", "web"}, {".host", "big", "web"})
    if "big" in seen:
        assert files(big) == whole
        booted.run(["machinectl", "remove", "big"], timeout=OPERATION_SECONDS)
    if whom == "worker":
        images.directory("small")
        booted.run(["machinectl", "remove", "small"])
    wait_for(lambda: images.entries() == before - {"big"}, OPERATION_SECONDS, "what is left to be deleted")


def test_a_raw_clone_that_is_killed_was_never_there(booted: BootedHost, images: Images) -> None:
    disk = images.raw("disk", size=400 << 20)
    booted.run(f"head --bytes=400M /dev/zero >{MACHINES}/disk.raw")     # no hole
    before = images.entries()
    with begun(booted, "clone", "disk", "other", half=lambda: bool(workers(booted))):
        assert "other" not in listed(booted, "--all")
        kill_daemon(booted)
    found = listed(booted, "--all")
    assert set(found) in ({".host", "disk", "web"}, {".host", "disk", "other", "web"})
    if "other" in found:    # it was ready before the kill
        assert booted.path(f"{MACHINES}/other.raw").stat().st_size == disk.stat().st_size
        assert booted.run(["cmp", f"{MACHINES}/disk.raw", f"{MACHINES}/other.raw"]).returncode == 0
    wait_for(lambda: images.entries() - {"other.raw"} == before, OPERATION_SECONDS, "what is left to be deleted")


def test_what_has_begun_goes_on_without_who_asked_for_it(booted: BootedHost, images: Images, big: Path) -> None:
    before = images.entries()
    with begun(booted, "clone", "big", "other", half=lambda: hidden_files(booted, before, images) > FILES) as asking:
        asking.send_signal(signal.SIGKILL)
        asking.wait()
    wait_for(lambda: "other" in listed(booted), OPERATION_SECONDS, "the clone")
    assert files(booted.path(f"{MACHINES}/other")) == FOLDERS * FILES + 2
    assert images.entries() == before | {"other"}


def test_a_daemon_that_is_stopped_leaves_nothing_half_done(booted: BootedHost, images: Images, big: Path) -> None:
    before = images.entries()
    with begun(booted, "clone", "big", "other", half=lambda: hidden_files(booted, before, images) > FILES) as asking:
        booted.run(["systemctl", "restart", "mymachinesd.service"], timeout=OPERATION_SECONDS)
        assert asking.wait(OPERATION_SECONDS) != 0
    wait_for(lambda: serves(booted), TAKE_OVER_SECONDS)
    assert set(listed(booted, "--all")) == {".host", "big", "web"}
    wait_for(lambda: images.entries() == before, OPERATION_SECONDS, "what is left to be deleted")


def test_others_are_answered_meanwhile(booted: BootedHost, images: Images, big: Path) -> None:
    """And what is worked on is not taken away under the work."""
    before = images.entries()
    images.directory("small")
    with begun(booted, "clone", "big", "other",
               half=lambda: hidden_files(booted, before | {"small"}, images) > FILES) as asking:
        assert "small" in booted.unit_run(["machinectl", "list-images", "--no-legend"], uid=USER_ID).stdout
        assert booted.out(["busctl", "call", *MANAGER, "GetImageHostname", "s", "small"]) == 's "small-host"'
        booted.run(["machinectl", "rename", "small", "tiny"])
        again = machinectl(booted, "clone", "tiny", "other")
        assert again.returncode != 0, "two clones of one name"
        assert asking.wait(OPERATION_SECONDS) == 0
    assert files(booted.path(f"{MACHINES}/other")) == FOLDERS * FILES + 2
    assert set(listed(booted)) == {"big", "other", "tiny", "web"}


def test_the_log_tells(booted: BootedHost, images: Images) -> None:
    """What was done to which image; once each."""
    images.directory("tiny")
    booted.run(["machinectl", "clone", "tiny", "told-of"])
    booted.run(["machinectl", "remove", "told-of"])

    def lines() -> list[str]:
        text = booted.out(["journalctl", "-b", "--output=cat", "--unit=mymachinesd.service"])
        return [line for line in text.splitlines() if "tiny" in line or "told-of" in line]

    wait_for(lambda: any("remove" in line for line in lines()), TAKE_OVER_SECONDS)
    assert any("clone" in line for line in lines())
