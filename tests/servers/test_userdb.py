# SPDX-License-Identifier: MIT
"""io.systemd.UserDatabase's answers, from a directory of one machine."""

from typing import Any

import pytest

from resolver.core.users import IdAnswer
from resolver.userdb.records import INTERFACE, UserDatabase, user_database_interface
from resolver.varlink.call import Call
from resolver.varlink.errors import VarlinkError
from resolver.varlink.service import Service

SHIFT = 1587085312
SERVICE = "io.systemd.Machine"
INVALID = "org.varlink.service.InvalidParameter"

# As `userdbctl -j user vu-web-5` of systemd 257 prints them, asked of systemd-machined, but for the host's ids.
USER = {
    "userName": "vu-web-5",
    "uid": SHIFT + 5,
    "gid": 65534,
    "realName": "UID 5 of Container web",
    "homeDirectory": "/",
    "shell": "/usr/sbin/nologin",
    "locked": True,
    "service": "io.systemd.Machine",
    "disposition": "container",
}
GROUP = {
    "groupName": "vg-web-5",
    "gid": SHIFT + 5,
    "description": "GID 5 of Container web",
    "service": "io.systemd.Machine",
    "disposition": "container",
}


class Unavailable(Exception):
    """As the table's reader raises it."""


class OneMachine:
    """The ids 0 to 9 of the machine `web`."""

    def __init__(self, *, available: bool = True) -> None:
        self._available = available

    def user_by_id(self, uid: int) -> IdAnswer | None:
        return self._by_id("vu", uid)

    def user_by_name(self, name: str) -> IdAnswer | None:
        return self._by_name("vu", name)

    def group_by_id(self, gid: int) -> IdAnswer | None:
        return self._by_id("vg", gid)

    def group_by_name(self, name: str) -> IdAnswer | None:
        return self._by_name("vg", name)

    def _by_id(self, prefix: str, number: int) -> IdAnswer | None:
        if not self._available:
            raise Unavailable
        inside = number - SHIFT
        return IdAnswer("web", f"{prefix}-web-{inside}", number, inside) if 0 <= inside < 10 else None

    def _by_name(self, prefix: str, name: str) -> IdAnswer | None:
        return next((self._by_id(prefix, SHIFT + n) for n in range(10) if name == f"{prefix}-web-{n}"),
                    None if self._available else self._by_id(prefix, 0))


class Anybody:
    uid = gid = pid = 1000
    pidfd = None


def ask(method: str, available: bool = True, **parameters: Any) -> Any:
    """The reply's parameters, or the error's name, with the field for an invalid one."""
    database = UserDatabase(OneMachine(available=available), Unavailable)
    service = Service("", "", "", "", [user_database_interface()], {INTERFACE: database})
    try:
        reply = service.start(Call(f"{INTERFACE}.{method}", {"service": SERVICE, **parameters}, Anybody()))
    except VarlinkError as error:
        name = error.name.removeprefix(f"{INTERFACE}.")
        return (name, error.parameters["parameter"]) if error.parameters else name
    return reply


def user(**parameters: Any) -> Any:
    reply = ask("GetUserRecord", **parameters)
    return reply["record"] if isinstance(reply, dict) else reply


def group(**parameters: Any) -> Any:
    reply = ask("GetGroupRecord", **parameters)
    return reply["record"] if isinstance(reply, dict) else reply


def test_records_are_systemd_machineds_field_by_field() -> None:
    for found in (user(uid=SHIFT + 5), user(userName="vu-web-5"), user(uid=SHIFT + 5, userName="vu-web-5")):
        assert list(found.items()) == list(USER.items())
    for found in (group(gid=SHIFT + 5), group(groupName="vg-web-5"), group(gid=SHIFT + 5, groupName="vg-web-5")):
        assert list(found.items()) == list(GROUP.items())


# What systemd-machined 257 answers, asked with varlinkctl.
@pytest.mark.parametrize(("asked", "answer"), [
    ({}, "EnumerationNotSupported"),
    ({"uid": None, "userName": None}, "EnumerationNotSupported"),     # 257 refuses null; to us, null is absent
    ({"service": "io.systemd.Other"}, "BadService"),
    ({"service": "io.systemd.Other", "uid": -1}, "BadService"),
    ({"service": 5}, (INVALID, "service")),
    ({"uid": SHIFT + 10}, "NoRecordFound"),
    ({"uid": 0}, "NoRecordFound"),
    ({"uid": 65534}, "NoRecordFound"),
    ({"userName": "vu-web-10"}, "NoRecordFound"),
    ({"userName": "vu-web-05"}, "NoRecordFound"),
    ({"userName": "vg-web-5"}, "NoRecordFound"),
    ({"userName": "root"}, "NoRecordFound"),
    ({"userName": "x" * 300}, "NoRecordFound"),
    ({"userName": "a b"}, "NoRecordFound"),
    ({"uid": SHIFT + 6, "userName": "vu-web-5"}, "ConflictingRecordFound"),
    ({"uid": SHIFT + 5, "userName": "vu-none-5"}, "ConflictingRecordFound"),
    ({"uid": SHIFT + 5, "userName": "root"}, "ConflictingRecordFound"),
    ({"uid": 12345, "userName": "vu-web-5"}, "NoRecordFound"),
    ({"uid": 12345, "userName": "root"}, "NoRecordFound"),
    ({"uid": -1}, (INVALID, "uid")),
    ({"uid": 65535}, (INVALID, "uid")),
    ({"uid": 2**32 - 1}, (INVALID, "uid")),
    ({"uid": 2**32}, (INVALID, "uid")),
    ({"uid": SHIFT + 5 + 2**32}, (INVALID, "uid")),
    ({"uid": "5"}, (INVALID, "uid")),
    ({"uid": 5.5}, (INVALID, "uid")),
    ({"uid": True}, (INVALID, "uid")),
    ({"userName": ""}, (INVALID, "userName")),
    ({"userName": "5"}, (INVALID, "userName")),
    ({"userName": "a/b"}, (INVALID, "userName")),
    ({"userName": "a:b"}, (INVALID, "userName")),
    ({"userName": "vu-web-5\0"}, (INVALID, "userName")),
    ({"userName": "vu-web-5\n"}, (INVALID, "userName")),
])
def test_answers_without_a_record(asked: dict[str, Any], answer: Any) -> None:
    assert user(**asked) == answer
    renamed = {{"uid": "gid", "userName": "groupName"}.get(name, name): value for name, value in asked.items()}
    for name, value in renamed.items():
        if isinstance(value, str):
            renamed[name] = value.replace("vg-", "vX-").replace("vu-", "vg-").replace("vX-", "vu-")
    if isinstance(answer, tuple):
        answer = (answer[0], {"uid": "gid", "userName": "groupName"}.get(answer[1], answer[1]))
    assert group(**renamed) == answer


@pytest.mark.parametrize(("filters", "matches"), [
    ({"dispositionMask": ["container"]}, True),
    ({"dispositionMask": ["system", "container"]}, True),
    ({"dispositionMask": ["system"]}, False),
    ({"dispositionMask": []}, False),
    ({"uidMin": SHIFT + 5, "uidMax": SHIFT + 5}, True),
    ({"uidMin": SHIFT + 6}, False),
    ({"uidMax": SHIFT + 4}, False),
    ({"uidMin": 0, "uidMax": 2**64 - 1}, True),
    ({"fuzzyNames": ["WEB"]}, True),
    ({"fuzzyNames": ["other", "of container"]}, True),
    ({"fuzzyNames": ["other"]}, False),
    ({"uuid": "6f2c9a1e-0000-0000-0000-000000000000"}, False),
    ({"uuid": None, "fuzzyNames": None, "uidMin": None}, True),
    ({"aFilterOfTomorrow": {"x": 1}}, True),
])
def test_filters_of_newer_clients(filters: dict[str, Any], matches: bool) -> None:
    for asked in ({"uid": SHIFT + 5}, {"userName": "vu-web-5"}):
        assert user(**asked, **filters) == (USER if matches else "NonMatchingRecordFound")
    renamed = {name.replace("uidM", "gidM"): value for name, value in filters.items()}
    assert group(gid=SHIFT + 5, **renamed) == (GROUP if matches else "NonMatchingRecordFound")


def test_filters_do_not_make_a_question() -> None:
    assert user(uidMin=SHIFT, uidMax=SHIFT + 9) == "EnumerationNotSupported"
    assert user(uid=SHIFT + 5, userName="root", uuid="x") == "ConflictingRecordFound"


def test_memberships_are_none() -> None:
    for asked in ({}, {"userName": "vu-web-5"}, {"groupName": "vg-web-5"}, {"new": 1}):
        assert ask("GetMemberships", **asked) == "NoRecordFound"
    assert ask("GetMemberships", service="io.systemd.Other") == "BadService"


def test_without_a_table_nobody_is_known() -> None:
    for asked in ({"uid": SHIFT + 5}, {"userName": "vu-web-5"}, {"uid": SHIFT + 5, "userName": "root"}):
        assert ask("GetUserRecord", available=False, **asked) == "NoRecordFound"
    assert ask("GetGroupRecord", available=False, gid=SHIFT + 5) == "NoRecordFound"
    assert ask("GetUserRecord", available=False) == "EnumerationNotSupported"
