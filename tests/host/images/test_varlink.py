# SPDX-License-Identifier: MIT
"""io.systemd.MachineImage by varlinkctl 257."""

import errno

import pytest

from tests.host.booted import BootedHost
from tests.host.guests import MACHINES

from .clients import (
    BAD_NAMES,
    INVALID,
    NO_SUCH,
    SYSTEM,
    bus,
    call,
    call_fails,
    listed,
    replies,
    shown,
    varlinkctl,
)
from .conftest import MACHINE_ID, Images

METADATA = {"hostname", "machineId", "machineInfo", "OSRelease"}


def test_list_of_all(booted: BootedHost, images: Images) -> None:
    images.directory("tiny")
    images.directory(".hidden")
    images.raw("disk", size=3 << 20)
    found = {image["name"]: image for image in call(booted, "List", more=True)}
    assert set(found) == {".hidden", ".host", "disk", "tiny", "web"}
    assert not METADATA & {key for image in found.values() for key in image}
    assert call_fails(booted, "List") == "org.varlink.service.ExpectedMore"
    booted.run(["machinectl", "remove", "tiny"])
    assert {image["name"] for image in call(booted, "List", more=True)} == {".hidden", ".host", "disk", "web"}


def test_one(booted: BootedHost, images: Images) -> None:
    images.directory("tiny")
    images.raw("disk", size=3 << 20)
    [tiny] = call(booted, "List", name="tiny")
    created = listed(booted)["tiny"]["created"]
    assert tiny == {"name": "tiny", "path": f"{MACHINES}/tiny", "type": "directory", "class": "machine",
                    "readOnly": False, "creationTimestamp": created}
    assert call(booted, "List", more=True, name="tiny") == [tiny]
    [disk] = call(booted, "List", name="disk")
    told = listed(booted)["disk"]
    assert disk == {"name": "disk", "path": f"{MACHINES}/disk.raw", "type": "raw", "class": "machine",
                    "readOnly": False, "creationTimestamp": told["created"], "modificationTimestamp": told["modified"],
                    "usage": 0, "usageExclusive": 0, "limit": 3 << 20, "limitExclusive": 3 << 20}
    assert call_fails(booted, "List", name="nosuch") == NO_SUCH
    [host] = call(booted, "List", name=".host")
    assert (host["path"], host["type"]) == ("/", "directory")


def test_metadata(booted: BootedHost, images: Images) -> None:
    """Only where it is asked for; yes is all or an error, graceful is what can be had."""
    images.directory("tiny", machine_id=f"{MACHINE_ID}\n", machine_info='PRETTY_HOSTNAME="Tiny Box"\n')
    [full] = call(booted, "List", name="tiny", acquireMetadata="yes")
    assert {key: full[key] for key in full.keys() & METADATA} == {
        "hostname": "tiny-host", "machineId": MACHINE_ID, "machineInfo": ["PRETTY_HOSTNAME=Tiny Box"],
        "OSRelease": ["ID=tiny", "VERSION_ID=7", "PRETTY_NAME=Tiny Linux"]}
    assert call(booted, "List", name="tiny", acquireMetadata="graceful") == [full]
    [plain] = call(booted, "List", name="tiny", acquireMetadata="no")
    assert plain == {key: value for key, value in full.items() if key not in METADATA}
    images.directory("bare", hostname="", os_release="", machine_id="uninitialized\n")
    [bare] = call(booted, "List", name="bare", acquireMetadata="yes")
    assert not METADATA & bare.keys()
    everything = {image["name"]: image for image in call(booted, "List", more=True, acquireMetadata="yes")}
    assert everything["tiny"] == full
    assert everything[".host"]["hostname"] == "labhost"
    assert "ID=debian" in everything["web"]["OSRelease"]
    assert call_fails(booted, "List", name="tiny", acquireMetadata="perhaps") == (
        INVALID, "acquireMetadata")


def test_metadata_that_cannot_be_had(booted: BootedHost, images: Images) -> None:
    images.directory("tiny")
    images.raw("disk")
    assert call_fails(booted, "List", name="disk", acquireMetadata="yes")[0] == SYSTEM
    [disk] = call(booted, "List", name="disk", acquireMetadata="graceful")
    assert disk["type"] == "raw"
    assert not METADATA & disk.keys()
    done = varlinkctl(booted, "List", more=True, acquireMetadata="yes")
    assert done.returncode != 0
    assert SYSTEM in done.stderr
    done = varlinkctl(booted, "List", more=True, acquireMetadata="graceful")
    assert done.returncode == 0
    found = {image["name"]: image for image in replies(done)}
    assert set(found) == {".host", "disk", "tiny", "web"}
    assert found["tiny"]["hostname"] == "tiny-host"


def test_clone(booted: BootedHost, images: Images) -> None:
    images.directory("tiny")
    assert call(booted, "Clone", name="tiny", newName="other") == [{}]
    assert call(booted, "Clone", name="tiny", newName="locked", readOnly=True) == [{}]
    [locked] = call(booted, "List", name="locked", acquireMetadata="yes")
    assert (locked["readOnly"], locked["hostname"]) == (True, "tiny-host")
    assert call(booted, "List", name="other")[0]["readOnly"] is False
    assert call_fails(booted, "Clone", name="tiny", newName="other") == (SYSTEM, errno.EEXIST)
    assert call_fails(booted, "Clone", name="nosuch", newName="x") == NO_SUCH
    assert call_fails(booted, "Clone", name="tiny") == (INVALID, "newName")
    assert call_fails(booted, "Clone", name="tiny", newName="x", wings=2) == (INVALID, "wings")
    assert set(listed(booted)) == {"locked", "other", "tiny", "web"}


def test_update(booted: BootedHost, images: Images) -> None:
    images.directory("tiny")
    images.directory("taken")
    assert call(booted, "Update", name="tiny") == [{}]
    assert call(booted, "Update", name="tiny", newName="other", readOnly=True) == [{}]
    assert call_fails(booted, "List", name="tiny") == NO_SUCH
    assert shown(booted, "other")["ReadOnly"] == "yes"
    assert call(booted, "Update", name="other", readOnly=False) == [{}]
    assert shown(booted, "other")["ReadOnly"] == "no"
    assert call(booted, "Update", name="other", newName="tiny") == [{}]
    assert call_fails(booted, "Update", name="other", newName="x") == NO_SUCH
    assert call_fails(booted, "Update", name="tiny", newName="taken") == (SYSTEM, errno.EEXIST)
    assert call_fails(booted, "Update", name="tiny", limit=1_000_000) == (SYSTEM, errno.EOPNOTSUPP)
    assert call_fails(booted, "Update", name=".host", readOnly=True) == (SYSTEM, errno.EROFS)
    assert set(listed(booted)) == {"taken", "tiny", "web"}
    assert bus(booted, "GetImageHostname", "s", "taken") == 's "taken-host"'


def test_remove(booted: BootedHost, images: Images) -> None:
    images.directory("tiny")
    images.raw("disk")
    before = images.entries()
    assert call(booted, "Remove", name="tiny") == [{}]
    assert call(booted, "Remove", name="disk") == [{}]
    assert images.entries() == before - {"tiny", "disk.raw"}
    assert call_fails(booted, "Remove", name="tiny") == NO_SUCH
    assert call_fails(booted, "Remove", name=".host") == (SYSTEM, errno.EROFS)
    assert call_fails(booted, "Remove") == (INVALID, "name")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names(booted: BootedHost, images: Images, name: str) -> None:
    images.directory("tiny")
    before = images.entries()
    for method, more in (("List", {}), ("Remove", {}), ("Clone", {"newName": "x"}), ("Update", {"newName": "x"})):
        assert call_fails(booted, method, name=name, **more) == (INVALID, "name"), method
    for method in ("Clone", "Update"):
        assert call_fails(booted, method, name="tiny", newName=name) == (INVALID, "newName"), method
    assert images.entries() == before
