# SPDX-License-Identifier: MIT
"""Which images there are, and what machinectl and busctl tell of them."""

import json
import re

import pytest

from tests.host.booted import BootedHost
from tests.host.guests import MACHINES

from .clients import BAD_NAMES, BUS_ERRORS, MANAGER, bus, bus_error, bus_fails, fails, listed, machinectl, shown
from .conftest import MACHINE_ID, OTHERS, Images

NOTHING = 2**64 - 1
"""What a number is on the bus where there is none; machinectl prints a limit of this as infinity."""
NO_NUMBER = str(NOTHING)


def test_the_table(booted: BootedHost, images: Images) -> None:
    images.directory("tiny")
    images.directory(".hidden")
    images.raw("disk", size=3 << 20)
    lines = booted.out(["machinectl", "list-images"]).splitlines()
    assert lines[0].split() == ["NAME", "TYPE", "RO", "USAGE", "CREATED", "MODIFIED"]
    assert lines[-2:] == ["", "3 images listed."]
    rows = {line.split()[0]: line for line in lines[1:-2]}
    assert list(rows) == ["disk", "tiny", "web"]
    time = r"\w{3} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    assert re.fullmatch(rf"disk +raw +no +0B +{time} +{time}", rows["disk"])
    assert re.fullmatch(rf"tiny +directory +no +{time} +- *", rows["tiny"])
    short = booted.out(["machinectl", "list-images", "--no-legend"]).splitlines()
    assert [line.split()[0] for line in short] == ["disk", "tiny", "web"]


def test_what_is_hidden_is_listed_where_it_is_asked_for(booted: BootedHost, images: Images) -> None:
    images.directory(".hidden")
    images.raw(".hidden-disk")
    assert set(listed(booted)) == {"web"}
    assert set(listed(booted, "--all")) == {".hidden", ".hidden-disk", ".host", "web"}
    assert shown(booted, ".hidden")["Path"] == f"{MACHINES}/.hidden"


def test_json(booted: BootedHost, images: Images) -> None:
    images.directory("tiny")
    disk = images.raw("disk", size=8 << 20, data=b"x" * 70_000)
    images.raw("locked").chmod(0o444)
    found = listed(booted)
    assert found["tiny"] == {"name": "tiny", "type": "directory", "ro": False, "usage": None,
                             "created": found["tiny"]["created"], "modified": 0}
    assert abs(found["tiny"]["created"] / 1e6 - images.since) < 3600
    status = disk.stat()
    assert found["disk"] == {"name": "disk", "type": "raw", "ro": False, "usage": status.st_blocks * 512,
                             "created": found["disk"]["created"], "modified": status.st_mtime_ns // 1000}
    assert found["locked"]["ro"] is True
    pretty = json.loads(booted.out(["machinectl", "list-images", "--output=json-pretty"]))
    assert {image["name"] for image in pretty} == set(found)


def test_image_status(booted: BootedHost, images: Images) -> None:
    images.directory("tiny", machine_id=f"{MACHINE_ID}\n")
    images.raw("disk", size=3 << 20)
    text = booted.out(["machinectl", "image-status", "tiny", "disk"])
    tiny, disk = (re.split(r"\n\n", text)[number] for number in (0, 1))
    assert tiny.splitlines()[0] == "tiny"
    for line in ("Type: directory", f"Path: {MACHINES}/tiny", "Hostname: tiny-host", f"Machine ID: {MACHINE_ID}",
                 "OS: Tiny Linux", "RO: writable"):
        assert line in tiny
    assert "Created: " in tiny
    assert "Modified: " not in tiny
    for line in ("Type: raw", f"Path: {MACHINES}/disk.raw", "RO: writable", "Modified: ", "Usage: 0B", "Limit: 3M"):
        assert line in disk
    assert "OS: Debian GNU/Linux 13 (trixie)" in booted.out(["machinectl", "image-status", "web"])
    assert f"Path: {MACHINES}" in booted.out(["machinectl", "image-status"])
    assert fails(booted, "image-status", "nosuch") == "Could not get path to image: No image 'nosuch' known"


def test_show_image(booted: BootedHost, images: Images) -> None:
    images.directory("tiny")
    images.raw("disk", size=3 << 20)
    tiny = shown(booted, "tiny")
    assert tiny.pop("CreationTimestamp").endswith("UTC")
    assert tiny == {"Name": "tiny", "Path": f"{MACHINES}/tiny", "Type": "directory", "ReadOnly": "no",
                    "Usage": NO_NUMBER, "Limit": "infinity", "UsageExclusive": NO_NUMBER, "LimitExclusive": "infinity"}
    disk = shown(booted, "disk")
    assert disk["ModificationTimestamp"].endswith("UTC")
    for key, value in (("Path", f"{MACHINES}/disk.raw"), ("Type", "raw"), ("Usage", "0"), ("Limit", str(3 << 20)),
                       ("UsageExclusive", "0"), ("LimitExclusive", str(3 << 20))):
        assert disk[key] == value, key
    several = booted.out(["machinectl", "show-image", "tiny", "disk", "-p", "Name", "-p", "Type"])
    assert several == "Name=tiny\nType=directory\n\nName=disk\nType=raw"
    assert booted.out(["machinectl", "show-image", "disk", "-p", "Type", "--value"]) == "raw"
    done = machinectl(booted, "show-image", "tiny", "nosuch", "disk")
    assert (done.returncode, done.stderr) == (1, "Could not get path to image: No image 'nosuch' known\n")
    assert done.stdout.startswith("Name=tiny\n")


def test_the_pool(booted: BootedHost) -> None:
    """Off btrfs there are no numbers."""
    assert booted.out(["machinectl", "show-image"]).splitlines() == [
        f"PoolPath={MACHINES}", f"PoolUsage={NO_NUMBER}", f"PoolLimit={NO_NUMBER}"]


def test_the_search_path(booted: BootedHost, images: Images) -> None:
    """In the order of machinectl(1); what the vendor has is not to be changed, but can be cloned."""
    places = [*OTHERS[:2], MACHINES, *OTHERS[2:]]
    for place in reversed(places):
        images.directory("same", folder=place)
        assert shown(booted, "same")["Path"] == f"{place}/same"
        assert shown(booted, "same")["ReadOnly"] == ("yes" if place.startswith("/usr/") else "no")
    images.directory("vendors", folder="/usr/lib/machines")
    assert set(listed(booted)) == {"same", "vendors", "web"}
    for method, signature, *arguments in (("RemoveImage", "s", "vendors"), ("RenameImage", "ss", "vendors", "ours"),
                                          ("MarkImageReadOnly", "sb", "vendors", "true")):
        assert bus_fails(booted, method, signature, *arguments) == "Read-only"
    booted.run(["machinectl", "clone", "vendors", "ours"])
    assert shown(booted, "ours")["Path"] == f"{MACHINES}/ours"
    assert shown(booted, "ours")["ReadOnly"] == "no"


def test_what_is_an_image(booted: BootedHost, images: Images) -> None:
    """Directories and raw files, by a symlink also elsewhere; nothing half made, no file of another kind."""
    images.directory("tiny")
    links = {"link": "/srv/tree", "disk.raw": "/srv/disk.raw", "dangling": "/srv/none", "null": "/dev/null"}
    booted.run(["mkdir", "-p", "/srv/tree", f"{MACHINES}/.#half", f"{MACHINES}/we ird", f"{MACHINES}/empty"])
    try:
        booted.run(["truncate", "--size=1M", "/srv/disk.raw"])
        for name, target in links.items():
            booted.run(["ln", "-s", target, f"{MACHINES}/{name}"])
        booted.run(f"touch {MACHINES}/file {MACHINES}/tiny.nspawn; mkfifo {MACHINES}/pipe {MACHINES}/pipe.raw")
        found = listed(booted, "--all")
        assert set(found) == {".host", "web", "tiny", "link", "disk", "we ird", "empty"}
        assert found["disk"]["type"] == "raw"
        assert shown(booted, "link")["Path"] == f"{MACHINES}/link"
        booted.run(["machinectl", "remove", "link", "disk"])    # the link, not where it leads
        assert booted.out(["ls", "/srv"]).split() == ["disk.raw", "tree"]
        assert set(listed(booted)) == {"web", "tiny", "we ird", "empty"}
    finally:
        booted.run(["rm", "-rf", "/srv/tree", "/srv/disk.raw"])


def test_objects(booted: BootedHost, images: Images) -> None:
    images.directory("my-image.1")
    path = "/org/freedesktop/machine1/image/my_2dimage_2e1"
    assert bus(booted, "GetImage", "s", "my-image.1") == f'o "{path}"'
    assert '"my-image.1" "directory" false' in bus(booted, "ListImages")
    assert f'"{path}"' in bus(booted, "ListImages")
    text = booted.out(["busctl", "introspect", "--list", MANAGER[0], path, "org.freedesktop.machine1.Image"])
    members = {line.split()[0]: line.split()[1:3] for line in text.splitlines()[1:]}
    assert members == {
        ".Clone": ["method", "sb"], ".GetHostname": ["method", "-"], ".GetMachineID": ["method", "-"],
        ".GetMachineInfo": ["method", "-"], ".GetOSRelease": ["method", "-"], ".MarkReadOnly": ["method", "b"],
        ".Remove": ["method", "-"], ".Rename": ["method", "s"], ".SetLimit": ["method", "t"],
        ".CreationTimestamp": ["property", "t"], ".Limit": ["property", "t"], ".LimitExclusive": ["property", "t"],
        ".ModificationTimestamp": ["property", "t"], ".Name": ["property", "s"], ".Path": ["property", "s"],
        ".ReadOnly": ["property", "b"], ".Type": ["property", "s"], ".Usage": ["property", "t"],
        ".UsageExclusive": ["property", "t"]}
    tree = booted.out(["busctl", "tree", "--list", MANAGER[0]]).splitlines()
    assert {path, "/org/freedesktop/machine1/image/_2ehost", "/org/freedesktop/machine1/image/web"} <= set(tree)
    booted.run(["rm", "-r", f"{MACHINES}/my-image.1"])
    assert path not in booted.out(["busctl", "tree", "--list", MANAGER[0]]).splitlines()
    assert bus_fails(booted, "GetHostname", image="my_2dimage_2e1") == "No such object"


def test_metadata(booted: BootedHost, images: Images) -> None:
    images.directory("tiny", machine_id=f"{MACHINE_ID}\n", machine_info='PRETTY_HOSTNAME="Tiny Box"\nICON_NAME=box\n')
    id_bytes = " ".join(str(byte) for byte in bytes.fromhex(MACHINE_ID))
    for method, expected in (
            ("GetHostname", 's "tiny-host"'), ("GetMachineID", f"ay 16 {id_bytes}"),
            ("GetMachineInfo", 'a{ss} 2 "PRETTY_HOSTNAME" "Tiny Box" "ICON_NAME" "box"'),
            ("GetOSRelease", 'a{ss} 3 "ID" "tiny" "VERSION_ID" "7" "PRETTY_NAME" "Tiny Linux"')):
        assert bus(booted, method.replace("Get", "GetImage"), "s", "tiny") == expected
        assert booted.out(["busctl", "call", MANAGER[0], "/org/freedesktop/machine1/image/tiny",
                           "org.freedesktop.machine1.Image", method]) == expected
    images.directory("bare", hostname="", os_release="", machine_id="uninitialized\n")
    for method, expected in (("GetImageHostname", 's ""'), ("GetImageMachineID", "ay 0"),
                             ("GetImageMachineInfo", "a{ss} 0"), ("GetImageOSRelease", "a{ss} 0")):
        assert bus(booted, method, "s", "bare") == expected
    for text, expected in (("# name\nnamed\n", "named"), ("FOO.example.\n", "FOO.example")):
        (images.host.path(f"{MACHINES}/bare/etc/hostname")).write_text(text)
        assert bus(booted, "GetImageHostname", "s", "bare") == f's "{expected}"'
    assert bus(booted, "GetImageHostname", "s", ".host") == 's "labhost"'
    assert '"ID" "debian"' in bus(booted, "GetImageOSRelease", "s", ".host")
    images.raw("disk")
    assert bus_error(booted, "GetImageOSRelease", "s", "disk").name in (
        "org.freedesktop.DBus.Error.FileNotFound", "org.freedesktop.DBus.Error.NotSupported")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names(booted: BootedHost, images: Images, name: str) -> None:
    images.directory("tiny")
    message = f"Image name '{name}' is invalid."
    for method, signature, *arguments in (
            ("RemoveImage", "s", name), ("RenameImage", "ss", "tiny", name), ("RenameImage", "ss", name, "other"),
            ("CloneImage", "ssb", "tiny", name, "false"), ("CloneImage", "ssb", name, "other", "false"),
            ("MarkImageReadOnly", "sb", name, "true"), ("SetImageLimit", "st", name, "1000000"),
            ("GetImageHostname", "s", name), ("GetImageMachineID", "s", name), ("GetImageMachineInfo", "s", name),
            ("GetImageOSRelease", "s", name)):
        failure = bus_error(booted, method, signature, *arguments)
        assert (failure.name, failure.message.endswith(message)) == (BUS_ERRORS["Invalid"], True), (method, failure)
    for method, *arguments in (("Rename", "s", name), ("Clone", "sb", name, "false")):
        assert bus_fails(booted, method, *arguments, image="tiny") == "Invalid", method
    assert bus_fails(booted, "GetImage", "s", name) == "No such image"
    assert set(listed(booted, "--all")) == {".host", "tiny", "web"}
