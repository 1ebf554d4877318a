# SPDX-License-Identifier: MIT
"""The real daemon and its workers, killed and stopped while they work."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab import wait_for
from tests.lab.processes import is_alive

from .conftest import WAIT_SECONDS, MakePool, Pool

FILE_SYSTEMS = ["tmpfs", "btrfs"]


def left(pool: Pool) -> set[str]:
    return {name for name in pool.entries() if name.startswith(".#mymachines-")}


def files(top: Path) -> int:
    """How many there are; those that go meanwhile aside."""
    return sum(len(names) for _, _, names in os.walk(top))


def cloned(pool: Pool, number: int) -> Callable[[], bool]:
    """Whether so many files of a clone are there."""
    return lambda: sum(files(pool.path(name)) for name in left(pool)) >= number


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
@pytest.mark.parametrize("whom", ["worker", "daemon"])
def test_a_clone(make_pool: MakePool, kind: str, whom: str) -> None:
    pool = make_pool(kind)
    whole = files(pool.big("web"))
    asking = pool.begin("Clone", name="web", newName="other")
    worker = pool.stopped_worker(cloned(pool, 500))
    assert set(pool.images()) == {"web"}
    assert pool.error("Clone", name="web", newName="other") == ("System", errno.EBUSY)
    if whom == "worker":
        os.kill(worker, signal.SIGKILL)
        assert asking.wait(WAIT_SECONDS) == 0       # an error is an answer
        assert left(pool)
        pool.path("small").mkdir()
        pool.do("Remove", name="small")             # the next operation tidies
    else:
        pool.daemon.kill9()
        asking.wait(WAIT_SECONDS)
        wait_for(lambda: not is_alive(worker), WAIT_SECONDS, "the worker to go with the daemon")
        assert left(pool)
        pool.restart()
    wait_for(lambda: not left(pool), WAIT_SECONDS, "what is left to be deleted")
    assert set(pool.images()) == {"web"}
    pool.idle()
    pool.do("Clone", name="web", newName="other")
    assert files(pool.path("other")) == files(pool.path("web")) == whole


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
@pytest.mark.parametrize("whom", ["worker", "daemon"])
def test_a_removal(make_pool: MakePool, kind: str, whom: str) -> None:
    pool = make_pool(kind)
    whole = files(pool.big("web"))
    asking = pool.begin("Remove", name="web")
    worker = pool.stopped_worker(lambda: not pool.path("web").exists())
    assert 0 < sum(files(pool.path(name)) for name in left(pool)) <= whole
    assert pool.images() == {}
    if whom == "worker":
        os.kill(worker, signal.SIGKILL)
        assert asking.wait(WAIT_SECONDS) == 0
        pool.path("small").mkdir()
        pool.do("Remove", name="small")
    else:
        pool.daemon.kill9()
        asking.wait(WAIT_SECONDS)
        pool.restart()
    wait_for(lambda: not left(pool), WAIT_SECONDS, "what is left to be deleted")
    assert pool.images() == {}


def test_who_asked_goes_away(pool: Pool) -> None:
    whole = files(pool.big("web"))
    asking = pool.begin("Clone", name="web", newName="other")
    worker = pool.stopped_worker(cloned(pool, 500))
    asking.kill()
    asking.wait(WAIT_SECONDS)
    os.kill(worker, signal.SIGCONT)
    pool.idle()
    assert files(pool.path("other")) == whole
    pool.daemon.expect_log("Images: clone of 'web' is done")


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_cancelled(make_pool: MakePool, kind: str) -> None:
    """By SIGTERM to its worker: it takes back what it has made, at once."""
    pool = make_pool(kind)
    pool.big("web")
    asking = pool.begin("Clone", name="web", newName="other")
    worker = pool.stopped_worker(cloned(pool, 500))
    os.kill(worker, signal.SIGTERM)
    os.kill(worker, signal.SIGCONT)
    assert asking.wait(WAIT_SECONDS) == 0
    pool.idle()
    assert pool.entries() == {"web"}
    pool.daemon.expect_log("Images: clone of 'web' has failed")


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_the_daemon_stops(make_pool: MakePool, kind: str) -> None:
    pool = make_pool(kind)
    pool.big("web")
    asking = pool.begin("Clone", name="web", newName="other")
    worker = pool.stopped_worker(cloned(pool, 500))
    pool.daemon.process.terminate()
    os.kill(worker, signal.SIGCONT)
    assert pool.daemon.stop() == 0
    asking.wait(WAIT_SECONDS)
    assert pool.entries() == {"web"}
    assert "is given up, for the daemon stops" in pool.daemon.log


def test_others_are_answered_meanwhile(pool: Pool) -> None:
    """While a clone stands still; and as many operations as are done at a time are no more."""
    pool.big("web")
    pool.path("small").mkdir()
    asking = pool.begin("Clone", name="web", newName="other")
    worker = pool.stopped_worker(cloned(pool, 500))
    assert set(pool.images()) == {"small", "web"}
    pool.do("Clone", name="small", newName="tiny")
    assert pool.error("Remove", name="web") == ("System", errno.EBUSY)       # it is being read
    pool.do("Clone", name="web", newName="third")
    os.kill(worker, signal.SIGCONT)
    assert asking.wait(WAIT_SECONDS) == 0
    assert set(pool.images()) == {"other", "small", "third", "tiny", "web"}
