# SPDX-License-Identifier: MIT
"""io.systemd.UserDatabase: users and groups of machines, from a directory of them.

Questions and errors are those of https://systemd.io/USER_GROUP_API, in the order in which systemd-machined 257 decides
them: the service, then the id, then the name.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from resolver.core.idmap import ID_LAST
from resolver.core.users import SERVICE, IdAnswer, group_record, user_record
from resolver.varlink.call import Call
from resolver.varlink.errors import VarlinkError, invalid_parameter
from resolver.varlink.interface import Interface, load_interface

INTERFACE = "io.systemd.UserDatabase"

DISPOSITION = "container"

_INVALID_ID_16 = 65535
"""(uid_t) -1 of 16 bits: systemd refuses it as it does the one of 32 bits."""

_NAME = re.compile(r"(?!\d+\Z)[^\0-\x1f\x7f:/]+")
"""What may be a name at all: /etc/passwd cannot hold these characters, and a number would be taken for an id."""


class Directory(Protocol):
    """Where the answers lie: resolver.table.reader.TableReader. None for an id or a name of no machine."""

    def user_by_id(self, uid: int, /) -> IdAnswer | None: ...
    def user_by_name(self, name: str, /) -> IdAnswer | None: ...
    def group_by_id(self, gid: int, /) -> IdAnswer | None: ...
    def group_by_name(self, name: str, /) -> IdAnswer | None: ...


class _Kind(NamedTuple):
    """What differs between users and groups."""

    id_field: str
    name_field: str
    text_field: str
    by_id: Callable[[int], IdAnswer | None]
    by_name: Callable[[str], IdAnswer | None]
    record: Callable[[IdAnswer], dict[str, Any]]


def user_database_interface() -> Interface:
    """Unknown parameters are dropped: the next filter of a newer client shall not take its users away."""
    return load_interface(INTERFACE, lenient=("GetUserRecord", "GetGroupRecord", "GetMemberships"))


class UserDatabase:
    """The handlers. `unavailable` are the exceptions by which the directory says that it cannot answer now."""

    def __init__(self, directory: Directory, unavailable: type[Exception]) -> None:
        self._unavailable = unavailable
        self._users = _Kind("uid", "userName", "realName", directory.user_by_id, directory.user_by_name, user_record)
        self._groups = _Kind("gid", "groupName", "description", directory.group_by_id, directory.group_by_name,
                             group_record)

    def do_get_user_record(self, call: Call) -> dict[str, Any]:
        return self._get_record(self._users, call.parameters)

    def do_get_group_record(self, call: Call) -> dict[str, Any]:
        return self._get_record(self._groups, call.parameters)

    def do_get_memberships(self, call: Call) -> dict[str, Any]:
        """A machine's users are in no groups of the host."""
        _check_service(call.parameters)
        raise _error("NoRecordFound")

    def _get_record(self, kind: _Kind, asked: dict[str, Any]) -> dict[str, Any]:
        _check_service(asked)
        number, name = asked.get(kind.id_field), asked.get(kind.name_field)
        if number is not None and (not 0 <= number <= ID_LAST or number == _INVALID_ID_16):
            raise invalid_parameter(kind.id_field)
        if name is not None and not _NAME.fullmatch(name):
            raise invalid_parameter(kind.name_field)
        if number is None and name is None:
            raise _error("EnumerationNotSupported")
        answer = self._find(kind, number, name)
        if answer is None:
            raise _error("NoRecordFound")
        if name is not None and answer.name != name:
            raise _error("ConflictingRecordFound")
        record = kind.record(answer)
        if not _matches(kind, record, asked):
            raise _error("NonMatchingRecordFound")
        return {"record": record}

    def _find(self, kind: _Kind, number: int | None, name: str | None) -> IdAnswer | None:
        try:
            return kind.by_id(number) if number is not None else kind.by_name(name or "")
        except self._unavailable:
            # Not ServiceNotAvailable: of that, libnss_systemd makes UNAVAIL (EHOSTDOWN) for a group that nobody has.
            return None


def _check_service(asked: dict[str, Any]) -> None:
    if asked["service"] != SERVICE:
        raise _error("BadService")


def _error(name: str) -> VarlinkError:
    return VarlinkError(f"{INTERFACE}.{name}")


def _matches(kind: _Kind, record: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether the filters of systemd 258 leave the record in. One that is absent leaves everything in.

    A fuzzy name matches as a part of the name or of the text; what else is similar enough is for clients to say, which
    ask for one record here and never for all.
    """
    number: int = record[kind.id_field]
    dispositions, fuzzy = asked.get("dispositionMask"), asked.get("fuzzyNames")
    texts = record[kind.name_field].casefold(), record[kind.text_field].casefold()
    return (asked.get(f"{kind.id_field}Min", 0) <= number <= asked.get(f"{kind.id_field}Max", ID_LAST)
            and (dispositions is None or DISPOSITION in dispositions)
            and "uuid" not in asked  # ours have none
            and (fuzzy is None or any(part.casefold() in text for part in fuzzy for text in texts)))
