# SPDX-License-Identifier: MIT
"""What a user may who is not root, and what polkit's rules make of it."""

import json
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

DETAILS = ["image", "machine", "mode", "new_name", "read_only", "verb"]
RULE_OF_DETAILS = """polkit.addRule(function(action, subject) {
    var told = {};
    NAMES.forEach(function(name) { if (action.lookup(name)) told[name] = action.lookup(name); });
    if (subject.user == "USER" && action.id == "org.freedesktop.machine1." + ACTION &&
        JSON.stringify(told) == JSON.stringify(EXPECTED))
        return polkit.Result.YES;
});""".replace("USER", USER).replace("NAMES", json.dumps(DETAILS))


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


def test_what_a_rule_is_told(booted: BootedHost, images: Images, rules: str) -> None:
    """Names and values that rules are written by; the calls are allowed to those alone that guess all of them."""
    images.directory("tiny")
    def change(method: str, **parameters: str | bool) -> list[str]:
        return ["varlinkctl", "call", SOCKET, f"io.systemd.MachineImage.{method}", json.dumps(parameters)]

    ctl = ["machinectl", "--no-ask-password"]
    for action, argv, details in (
            ("manage-images", [*ctl, "clone", "tiny", "copy"], {"image": "tiny", "new_name": "copy", "verb": "clone"}),
            ("manage-images", [*ctl, "rename", "copy", "new"], {"image": "copy", "new_name": "new", "verb": "rename"}),
            ("manage-images", [*ctl, "read-only", "new", "yes"],
             {"image": "new", "read_only": "1", "verb": "mark_read_only"}),
            ("manage-images", [*ctl, "read-only", "new", "no"],
             {"image": "new", "read_only": "0", "verb": "mark_read_only"}),
            ("manage-images", [*ctl, "set-limit", "new", "1G"], {"machine": "new", "verb": "set_limit"}),
            ("manage-machines", [*ctl, "set-limit", "1G"], {"verb": "set_pool_limit"}),
            ("manage-images", [*ctl, "remove", "new"], {"image": "new", "verb": "remove"}),
            ("manage-machines", [*ctl, "clean"], {"mode": "hidden", "verb": "clean_pool"}),
            ("manage-images", change("Clone", name="tiny", newName="copy"),
             {"image": "tiny", "new_name": "copy", "verb": "clone"}),
            ("manage-images", change("Update", name="copy", newName="new", readOnly=False),
             {"image": "copy", "verb": "update"}),
            ("manage-images", change("Remove", name="new"), {"image": "new", "verb": "remove"})):
        text = RULE_OF_DETAILS.replace("ACTION", json.dumps(action)).replace("EXPECTED", json.dumps(details))
        booted.run(["tee", rules], stdin=text)

        def allowed(argv: list[str] = argv) -> bool:
            return not REFUSED.search(as_alice(booted, argv)[1])

        wait_for(allowed, RULE_SECONDS, f"{argv} to be allowed by {details}")
