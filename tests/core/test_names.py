# SPDX-License-Identifier: MIT
"""Which names machines may have, and the labels that stand for long ones."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.core.errors import InvalidArgument
from resolver.core.names import LABEL_MAX, alias_of, check_machine_name, name_key, short_label

DNS_LABELS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,10}[A-Za-z0-9])?", fullmatch=True)
NAMES = st.lists(DNS_LABELS, min_size=1, max_size=5).map(".".join).filter(
    lambda name: not name.lower().endswith("localhost"))


@pytest.mark.parametrize("name", [
    "web", "Web-1", "a", "1", "a.b.c", "x" * 63, f"{'x' * 60}.abc", "a--b", "localhost1"])
def test_host_names_are_taken(name: str) -> None:
    assert check_machine_name(name) == name


@pytest.mark.parametrize("name", [
    "", "x" * 65, "x" * 64, "a/b", "..", ".", "a..b", ".host", "a.", "-a", "a-", "a_b", "_gateway", "web\n", "we b",
    "\0", "wéb", "web\ud800", "localhost", "LocalHost", "x.localhost", "localhost.localdomain",
    "../etc/passwd", "#web"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_machine_name(name)
    assert caught.value.field == "name"


def test_the_hosts_own_name_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="own name"):
        check_machine_name("Big", own_names={"big", "big.example"})


def test_a_dot_needs_privilege() -> None:
    assert check_machine_name("github.com") == "github.com"
    with pytest.raises(InvalidArgument, match="root"):
        check_machine_name("github.com", single_label=True)


@given(st.text())
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        check_machine_name(text)
    except InvalidArgument:
        return
    assert text.isascii()
    assert len(text) <= 64
    assert "/" not in text


@given(NAMES)
def test_names_compare_without_case_and_final_dot(name: str) -> None:
    assert name_key(name) == name_key(name.upper()) == name_key(name + ".") == name_key(name_key(name))


def test_only_ascii_letters_have_two_cases() -> None:
    assert name_key("\u212a") == "\u212a"  # KELVIN SIGN, whose lower case is 'k'


@given(NAMES, st.integers(0, 3))
def test_a_label_is_short_stable_and_never_taken(name: str, clashes: int) -> None:
    taken: set[str] = set()
    labels = []
    for _ in range(clashes + 1):
        labels.append(short_label(name, taken.__contains__))
        taken.add(labels[-1])
    assert len(set(labels)) == clashes + 1
    assert labels[0] == short_label(name.upper(), lambda _: False)
    for label in labels:
        assert len(label) <= LABEL_MAX
        assert set(label) <= set(string.ascii_lowercase + string.digits + "-")
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", label)


def test_what_a_machine_manager_put_before_a_name_can_be_left_out() -> None:
    assert alias_of("qemu-3-web") == "web"
    assert alias_of("LXC-12-Web-1") == "web-1"
    assert alias_of("qemu-3-qemu-4-web") == "qemu-4-web"
    for plain in ("web", "qemu-web", "qemu-3", "qemu-3-", "qemu--web", "qemu-x-web", "my-qemu-3-web", "qemu-3-.web"):
        assert alias_of(plain) == "", plain


def test_an_alias_is_none_of_the_names_that_nobody_may_have() -> None:
    assert alias_of("qemu-3-localhost") == ""
    assert alias_of("qemu-3-thishost", {"thishost"}) == ""
    assert alias_of("qemu-3-github.com") == ""
    assert alias_of("qemu-3-" + "x" * 57) == ""  # cut off by libvirt, it may be
