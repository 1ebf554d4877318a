# SPDX-License-Identifier: MIT
"""What a user may who is not root, and what polkit's rules make of it."""

import re
from collections.abc import Iterator

import pytest

from tests.host.booted import USER, USER_ID, BootedHost
from tests.lab import wait_for

from .clients import (
    MANAGER,
    NOT_ALLOWED,
    SOCKET,
    as_alice,
    bus,
    bus_fails,
    call_fails,
    fails,
    listed,
    machinectl,
    varlinkctl,
)
from .conftest import Images

RULES = "/etc/polkit-1/rules.d/10-test.rules"
RULE_SECONDS = 20.0     # polkitd notices a file by inotify
REFUSED = re.compile("denied|(?i:authentication)")
RULE = """polkit.addRule(function(action, subject) {
    if (action.id == "org.freedesktop.machine1.manage-images" && subject.user == "USER" &&
        ["tiny", "mine"].indexOf(action.lookup("image") || action.lookup("machine")) >= 0)
        return polkit.Result.YES;
});""".replace("USER", USER)
"""257 names the image `machine` where a limit is set."""


@pytest.fixture
def rules(booted: BootedHost) -> Iterator[str]:
    """The file that polkit reads; it goes with the test."""
    yield RULES
    booted.run(["rm", "-f", RULES])


def timeless(text: str) -> str:
    return re.sub(r"; .* ago", "", text)


def test_reading_is_for_all(booted: BootedHost, images: Images) -> None:
    images.directory("tiny")
    for argv in (["machinectl", "list-images"], ["machinectl", "image-status", "tiny"],
                 ["machinectl", "show-image", "tiny"], ["machinectl", "show-image"],
                 ["busctl", "call", *MANAGER, "GetImageOSRelease", "s", "tiny"],
                 ["busctl", "call", *MANAGER, "ListImages"],
                 ["busctl", "introspect", MANAGER[0], "/org/freedesktop/machine1/image/tiny"],
                 ["varlinkctl", "call", SOCKET, "io.systemd.MachineImage.List",
                  '{"name":"tiny","acquireMetadata":"yes"}']):
        code, text = as_alice(booted, argv)
        assert (code, timeless(text)) == (0, timeless(booted.run(argv).stdout)), argv


def test_changing_is_not(booted: BootedHost, images: Images) -> None:
    images.directory("tiny")
    images.directory(".hidden")
    before = images.entries()
    for arguments in (["clone", "tiny", "x"], ["rename", "tiny", "x"], ["remove", "tiny"], ["read-only", "tiny"],
                      ["set-limit", "tiny", "1G"], ["set-limit", "1G"], ["clean"], ["start", "tiny"],
                      ["enable", "tiny"]):
        assert REFUSED.search(fails(booted, *arguments, uid=USER_ID)), arguments
    for method, parameters in (("Remove", {}), ("Clone", {"newName": "x"}), ("Update", {"newName": "x"}),
                               ("Update", {"readOnly": True})):
        failure = call_fails(booted, method, uid=USER_ID, name="tiny", **parameters)
        assert failure == NOT_ALLOWED, method
    for method, *words in (("Remove",), ("Rename", "s", "x"), ("Clone", "sb", "x", "false"),
                           ("MarkReadOnly", "b", "true"), ("SetLimit", "t", "1000000")):
        assert bus_fails(booted, method, *words, image="tiny", uid=USER_ID) == "Not allowed", method
    for method, *words in (("RemoveImage", "s", "tiny"), ("CleanPool", "s", "all"), ("SetPoolLimit", "t", "1000000")):
        assert bus_fails(booted, method, *words, uid=USER_ID) == "Not allowed", method
    assert images.entries() == before
    assert set(listed(booted)) == {"tiny", "web"}


def test_what_a_rule_allows_is_done(booted: BootedHost, images: Images, rules: str) -> None:
    """By the image that is changed; a new name does not make it another's."""
    images.directory("tiny")
    images.directory("other")
    booted.run(["tee", rules], stdin=RULE)
    wait_for(lambda: machinectl(booted, "read-only", "tiny", "no", uid=USER_ID).returncode == 0, RULE_SECONDS)
    for arguments in (["clone", "tiny", "mine"], ["read-only", "mine", "yes"], ["rename", "mine", "theirs"]):
        done = machinectl(booted, *arguments, uid=USER_ID)
        assert done.returncode == 0, done
    assert bus_fails(booted, "SetImageLimit", "st", "tiny", "1000000", uid=USER_ID) == "Not supported"
    assert set(listed(booted)) == {"other", "theirs", "tiny", "web"}
    for arguments in (["remove", "theirs"], ["rename", "other", "mine"], ["clone", "other", "mine"],
                      ["read-only", "other", "yes"], ["set-limit", "1G"], ["clean"]):
        assert REFUSED.search(fails(booted, *arguments, uid=USER_ID)), arguments
    assert varlinkctl(booted, "Clone", uid=USER_ID, name="tiny", newName="mine").returncode == 0
    assert varlinkctl(booted, "Update", uid=USER_ID, name="mine", readOnly=True).returncode == 0
    assert varlinkctl(booted, "Remove", uid=USER_ID, name="mine").returncode == 0
    assert call_fails(booted, "Remove", uid=USER_ID, name="other") == NOT_ALLOWED
    done = machinectl(booted, "remove", "tiny", uid=USER_ID)
    assert done.returncode == 0, done
    assert set(listed(booted)) == {"other", "theirs", "web"}
    assert bus(booted, "GetImageHostname", "s", "other") == 's "other-host"'
