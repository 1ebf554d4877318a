# SPDX-License-Identifier: MIT
"""The usual way to start a container: `machinectl start` asks for its image, and then starts the template unit."""

import errno

from tests.host.booted import BootedHost
from tests.host.guests import BOOT_SECONDS
from tests.lab import wait_for

from .clients import SYSTEM, bus_fails, call_fails, fails, listed, shown
from .conftest import RUNS_SECONDS, Images

WANTS = "/etc/systemd/system/machines.target.wants"
TEMPLATE = "/usr/lib/systemd/system/systemd-nspawn@.service"


def machines(host: BootedHost) -> set[str]:
    return {line.split()[0] for line in host.out(["machinectl", "list", "--no-legend"]).splitlines()}


def links(host: BootedHost) -> dict[str, str]:
    """The units that machines.target wants, and where their links lead."""
    found = host.run(f"cd {WANTS} && for link in *; do echo $link $(readlink $link); done", check=False).stdout
    return {line.split()[0]: line.split()[1] for line in found.splitlines()}


def test_web_boots_and_is_powered_off(booted: BootedHost, images: Images) -> None:
    images.start("web")
    assert "web" in machines(booted)
    assert booted.out(["machinectl", "show", "web", "-p", "Unit", "--value"]) == "systemd-nspawn@web.service"
    assert booted.out(["machinectl", "show", "web", "-p", "RootDirectory", "--value"]) == "/var/lib/machines/web"
    wait_for(lambda: booted.run(["systemctl", "-M", "web", "is-system-running"], check=False).stdout.strip() in (
        "running", "degraded"), BOOT_SECONDS, "web to be up")
    assert booted.out(["machinectl", "list-images", "--no-legend"]).split()[0] == "web"
    booted.run(["machinectl", "poweroff", "web"])
    wait_for(lambda: booted.out(["systemctl", "is-active", "systemd-nspawn@web.service"], check=False) == "inactive",
             BOOT_SECONDS)
    wait_for(lambda: "web" not in machines(booted), RUNS_SECONDS)


def test_start_and_enable_and_disable(booted: BootedHost, images: Images) -> None:
    for name in ("tiny", "other"):
        images.bootable(name)
    images.start("tiny", "other")
    assert {"tiny", "other"} <= machines(booted)
    text = booted.out(["machinectl", "enable", "tiny", "other"])
    assert text == "" or TEMPLATE in text
    assert links(booted) == {f"systemd-nspawn@{name}.service": TEMPLATE for name in ("tiny", "other")}
    assert booted.out(["systemctl", "is-enabled", "systemd-nspawn@tiny.service"]) == "enabled"
    booted.run(["machinectl", "disable", "other"])
    assert links(booted) == {"systemd-nspawn@tiny.service": TEMPLATE}
    booted.run(["machinectl", "disable", "tiny"])
    assert links(booted) == {}
    booted.run(["machinectl", "poweroff", "tiny", "other"])
    wait_for(lambda: not machines(booted) & {"tiny", "other"}, RUNS_SECONDS)


def test_enable_and_disable_now(booted: BootedHost, images: Images) -> None:
    images.bootable("tiny")
    images.start("tiny", verb=("enable", "--now"))
    assert "tiny" in machines(booted)
    assert len(links(booted)) == 1
    booted.run(["machinectl", "disable", "--now", "tiny"], timeout=RUNS_SECONDS)
    wait_for(lambda: "tiny" not in machines(booted), RUNS_SECONDS)
    assert links(booted) == {}


def test_what_has_no_image_is_not_started(booted: BootedHost) -> None:
    for verb in ("start", "enable", "disable"):
        assert fails(booted, verb, "nosuch") == "Machine image 'nosuch' does not exist."
    for name in ("..", "a/b", ""):
        assert fails(booted, "start", name) != ""
    assert links(booted) == {}


def test_what_runs_is_busy(booted: BootedHost, images: Images) -> None:
    images.bootable("tiny")
    images.directory("other")
    images.start("tiny")
    for arguments in (["remove", "tiny"], ["rename", "tiny", "free"], ["read-only", "tiny", "yes"]):
        fails(booted, *arguments)
    for method, signature, *arguments in (("RemoveImage", "s", "tiny"), ("RenameImage", "ss", "tiny", "free"),
                                          ("MarkImageReadOnly", "sb", "tiny", "true")):
        assert bus_fails(booted, method, signature, *arguments) == "Busy"
    assert bus_fails(booted, "Remove", image="tiny") == "Busy"
    assert call_fails(booted, "Remove", name="tiny") == (SYSTEM, errno.EBUSY)
    assert call_fails(booted, "Update", name="tiny", newName="free") == (SYSTEM, errno.EBUSY)
    assert set(listed(booted)) == {"other", "tiny", "web"}
    assert shown(booted, "tiny")["ReadOnly"] == "no"
    assert "tiny" in machines(booted)
    booted.run(["machinectl", "terminate", "tiny"])
    wait_for(lambda: "tiny" not in machines(booted), RUNS_SECONDS)
    wait_for(lambda: booted.run(["machinectl", "remove", "tiny"], check=False).returncode == 0, RUNS_SECONDS)
    assert set(listed(booted)) == {"other", "web"}
