# SPDX-License-Identifier: MIT
"""Reads the table as every process of the host does: through the same C code, with the same checks."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from resolver._table import ffi, lib
from resolver.core.addresses import AF_INET
from resolver.core.machine import ChosenAddress
from resolver.core.names import MACHINE_NAME_MAX
from resolver.core.users import IdAnswer
from resolver.table import TABLE_PATH

NAMES_FIRST = 256
"""Names to make room for at first; doubled until they fit."""


class TableUnavailable(Exception):
    """There is no table, or none that can be believed: what is asked for is not known, rather than not there."""


class TableReader:
    """Look-ups as libnss_mymachines does them. None: in no machine. TableUnavailable: nobody can tell.

    The table is looked for at the first look-up and followed when it is replaced. It must be `owner`'s.
    """

    def __init__(self, path: str = TABLE_PATH, owner: int = 0) -> None:
        view = lib.view_new(os.fsencode(path), owner)
        if not view:
            raise MemoryError
        self._path = path
        self._view = ffi.gc(view, lib.view_free)
        self._host = ffi.new("struct host_answer *")
        self._id = ffi.new("struct id_answer *")
        self._generation = ffi.new("struct generation *")

    def user_by_id(self, uid: int) -> IdAnswer | None:
        return self._ask_id(lib.QUESTION_USER_BY_ID, id=uid)

    def group_by_id(self, gid: int) -> IdAnswer | None:
        return self._ask_id(lib.QUESTION_GROUP_BY_ID, id=gid)

    def user_by_name(self, name: str) -> IdAnswer | None:
        return self._ask_id(lib.QUESTION_USER_BY_NAME, name=name)

    def group_by_name(self, name: str) -> IdAnswer | None:
        return self._ask_id(lib.QUESTION_GROUP_BY_NAME, name=name)

    def host_by_name(self, name: str) -> tuple[str, tuple[ChosenAddress, ...]] | None:
        """The machine's name and the addresses that look-ups give."""
        return self._ask_host(lib.QUESTION_HOST_BY_NAME, name=name.removesuffix("."))

    def published(self, name: str) -> tuple[ChosenAddress, ...] | None:
        """The addresses that look-ups give of the machine of exactly this name; None where they know of none, or nobody
        can tell."""
        try:
            found = self.host_by_name(name)
        except TableUnavailable:
            return None
        return found[1] if found is not None and found[0] == name else None

    def host_by_address(self, family: int, packed: bytes) -> tuple[str, tuple[ChosenAddress, ...]] | None:
        """The machine that a reverse look-up gives, with this one address."""
        return self._ask_host(lib.QUESTION_HOST_BY_ADDRESS, family=family, bytes=packed.ljust(16, b"\0"))

    def names(self) -> list[str]:
        """All names of machines, in lower case and in no order. Costs what there is: keep it as long as generation()
        stays the same."""
        capacity, count = NAMES_FIRST, ffi.new("uint32_t *")
        while True:
            names = ffi.new("struct table_name[]", capacity)
            if lib.names_from_view(self._view, names, capacity, count) != lib.ANSWER_FOUND:
                raise TableUnavailable(f"{self._path} cannot be read, or is not there")
            if count[0] <= capacity:
                return [ffi.string(names[i].name).decode("ascii", "replace") for i in range(count[0])]
            capacity = 2 * count[0]

    def generation(self) -> bytes:
        """Which table it is now. Equal ones: every look-up between them gave, or raised, the same."""
        lib.view_generation(self._view, self._generation)
        return bytes(ffi.buffer(self._generation))

    def changes(self) -> Callable[[], bool]:
        """Tells whether generation() is another one than when it was called before. At first: whether there is a table.

        A function in C, without a frame of Python's around it: userdb asks it for each call.
        """
        return partial(lib.view_changed, self._view, ffi.new("struct generation *"))

    def wait(self, generation: bytes, seconds: float) -> None:
        """Block until generation() is another one, or for that long. Another table at the path does not end it."""
        lib.view_wait(self._view, ffi.from_buffer("struct generation *", generation), int(seconds * 1000))

    def _ask_id(self, kind: int, **asked: Any) -> IdAnswer | None:
        if not self._ask(kind, asked):
            return None
        answer = self._id
        return IdAnswer(ffi.string(answer.machine).decode(), ffi.string(answer.name).decode(), answer.host_id,
                        answer.inside_id)

    def _ask_host(self, kind: int, **asked: Any) -> tuple[str, tuple[ChosenAddress, ...]] | None:
        if not self._ask(kind, asked):
            return None
        answer = self._host
        count = answer.address_count
        return ffi.string(answer.name).decode(), tuple(map(_address, answer.addresses[0:count])) if count else ()

    def _ask(self, kind: int, asked: dict[str, Any]) -> bool:
        question = ffi.new("struct question *")
        question.layout, question.kind = lib.PACKET_LAYOUT, kind
        name: str = asked.pop("name", "")
        if not name.isascii() or "\0" in name or len(name) > MACHINE_NAME_MAX:
            return False  # nobody's
        question.name = name.encode()
        for field, value in asked.items():
            setattr(question, field, value)
        result = lib.answer_from_view(self._view, question, self._host, self._id)
        if result == lib.ANSWER_UNAVAILABLE:
            raise TableUnavailable(f"{self._path} cannot be read, or is not there")
        return bool(result == lib.ANSWER_FOUND)


def _address(record: Any) -> ChosenAddress:
    family, flags = record.family, record.flags
    return ChosenAddress(family, ffi.buffer(record.bytes)[: 4 if family == AF_INET else 16], record.scope_id,
                         bool(flags & lib.ADDRESS_SCOPED), bool(flags & lib.ADDRESS_REVERSE))
