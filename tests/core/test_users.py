# SPDX-License-Identifier: MIT
"""Names of machines' users."""

import re

from hypothesis import given
from hypothesis import strategies as st

from resolver.core.idmap import Extent, IdMap
from resolver.core.machine import Machine, MachineClass, ProcessId
from resolver.core.registry import Registry
from resolver.core.users import USER_NAME_MAX, IdAnswer, group_record, split_id_name, user_record
from tests.core.test_names import NAMES

STRICT = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,30}")  # systemd.io, User/Group Name Syntax


def one_machine(name: str, inside_first: int = 0) -> Registry:
    registry = Registry()
    ids = IdMap((Extent(inside_first, 100000, 65536),))
    registry.add(Machine(name, MachineClass.CONTAINER, ProcessId(2), uid_map=ids, gid_map=ids))
    return registry


@given(NAMES.filter(lambda name: len(name) <= 64), st.integers(0, 2**32 - 65538), st.integers(0, 65535))
def test_every_name_passes_the_strict_rule_and_leads_back(name: str, inside_first: int, offset: int) -> None:
    registry = one_machine(name, inside_first)
    user, group = registry.user_by_id(100000 + offset), registry.group_by_id(100000 + offset)
    assert user is not None
    assert group is not None
    assert STRICT.fullmatch(user.name)
    assert len(user.name) <= USER_NAME_MAX
    assert user.inside_id == inside_first + offset
    assert registry.user_by_name(user.name) == user
    assert registry.group_by_name(group.name) == group
    assert registry.user_by_name(group.name) is None


def test_a_name_that_fits_is_kept() -> None:
    assert one_machine("web").user_by_id(101000) == IdAnswer("web", "vu-web-1000", 101000, 1000)
    assert one_machine("Web").group_by_id(100000) == IdAnswer("Web", "vg-Web-0", 100000, 0)


def test_one_id_has_one_name() -> None:
    registry = one_machine("web")
    assert registry.user_by_name("vu-web-1000") is not None
    for name in ("vu-Web-1000", "vu-web-01000", "vu-web-+1", "vu-web-", "vu-web", "vu--1", "web-1", "vu-web-1000 ",
                 "vu-web-65536", "vu-web-4294967295", "vu-web-99999999999", "vu-web.-1", "", "vu-", "vu-web-\u0661"):
        assert registry.user_by_name(name) is None


@given(st.text(), st.text())
def test_any_text_may_be_asked_for(prefix: str, text: str) -> None:
    split_id_name(prefix, text)
    assert one_machine("web").user_by_name("vu-web-" + text) is None or (text.isdecimal() and int(text) < 65536)


def test_records_hold_what_systemds_documents_name() -> None:
    answer = IdAnswer("web", "vu-web-7", 100007, 7)
    assert user_record(answer) == {
        "userName": "vu-web-7", "uid": 100007, "gid": 65534, "realName": "UID 7 of Container web",
        "homeDirectory": "/", "shell": "/usr/sbin/nologin", "locked": True, "service": "io.systemd.Machine",
        "disposition": "container"}
    assert group_record(IdAnswer("web", "vg-web-7", 100007, 7)) == {
        "groupName": "vg-web-7", "gid": 100007, "description": "GID 7 of Container web",
        "service": "io.systemd.Machine", "disposition": "container"}
