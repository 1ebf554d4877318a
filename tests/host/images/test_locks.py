# SPDX-License-Identifier: MIT
"""What systemd-nspawn runs from without the template unit: it holds locks on it, and nobody else says so."""

from collections.abc import Callable, Iterator

import pytest

from tests.host.booted import BootedHost
from tests.host.guests import MACHINES

from .clients import bus_fails, listed, shown
from .conftest import RUNS_SECONDS, Images

UNIT = "test-nspawn.service"
Run = Callable[..., None]


@pytest.fixture
def run(booted: BootedHost) -> Iterator[Run]:
    """run("tiny", options of systemd-nspawn): returns when the container is up."""
    def begin(name: str, *options: str) -> None:
        booted.run(["systemd-run", "--quiet", f"--unit={UNIT}", "--service-type=notify", "--property=NotifyAccess=all",
                    "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--settings=no", "--bind-ro=/usr",
                    f"--directory={MACHINES}/{name}", *options, "/bin/sleep", "infinity"], timeout=RUNS_SECONDS)

    yield begin
    booted.run(["systemctl", "kill", "--signal=KILL", UNIT], check=False)
    booted.run(["systemctl", "stop", UNIT], check=False)
    booted.run(["systemctl", "reset-failed", UNIT], check=False)


def runs(host: BootedHost) -> bool:
    return host.out(["systemctl", "is-active", UNIT], check=False) == "active"


@pytest.mark.parametrize("options", [(), ("--read-only", "--volatile=state")], ids=["writable", "read-only"])
def test_busy(booted: BootedHost, images: Images, run: Run, options: tuple[str, ...]) -> None:
    images.bootable("tiny")
    run("tiny", *options)
    assert runs(booted)
    for method, signature, *arguments in (("RemoveImage", "s", "tiny"), ("RenameImage", "ss", "tiny", "free"),
                                          ("MarkImageReadOnly", "sb", "tiny", "true")):
        assert bus_fails(booted, method, signature, *arguments) == "Busy"
    booted.run(["machinectl", "clone", "tiny", "copy"])     # what lies on the disk now
    assert set(listed(booted)) == {"copy", "tiny", "web"}
    assert shown(booted, "tiny")["ReadOnly"] == "no"
    booted.run(["systemctl", "stop", UNIT], timeout=RUNS_SECONDS)
    booted.run(["machinectl", "remove", "tiny", "copy"])


def test_by_another_path(booted: BootedHost, images: Images, run: Run) -> None:
    """The inode is locked too."""
    images.bootable("tiny")
    booted.run(["ln", "-s", f"{MACHINES}/tiny", f"{MACHINES}/link"])
    run("link")
    for name in ("tiny", "link"):
        assert bus_fails(booted, "RemoveImage", "s", name) == "Busy"
    booted.run(["systemctl", "stop", UNIT], timeout=RUNS_SECONDS)
    booted.run(["machinectl", "remove", "link", "tiny"])


def test_an_ephemeral_copy_leaves_the_image_free(booted: BootedHost, images: Images, run: Run) -> None:
    """And is no image itself."""
    images.bootable("tiny")
    run("tiny", "--ephemeral")
    assert set(listed(booted, "--all")) == {".host", "tiny", "web"}
    booted.run(["machinectl", "rename", "tiny", "other"])
    booted.run(["machinectl", "read-only", "other", "yes"])
    booted.run(["machinectl", "remove", "other"])
    assert runs(booted)
