# SPDX-License-Identifier: MIT
"""Questions put to a table through the extension module, as one line of text each: `host web`, `uid 1048576`.

reader.c does the same in C; run as a program, so does this file. What both print for a question is the same text.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from resolver._table import ffi, lib

if TYPE_CHECKING:
    from resolver._table import CData

KINDS = {
    "host": lib.QUESTION_HOST_BY_NAME,
    "address": lib.QUESTION_HOST_BY_ADDRESS,
    "user": lib.QUESTION_USER_BY_NAME,
    "uid": lib.QUESTION_USER_BY_ID,
    "group": lib.QUESTION_GROUP_BY_NAME,
    "gid": lib.QUESTION_GROUP_BY_ID,
}
FAILURES = {lib.ANSWER_UNKNOWN: "unknown", lib.ANSWER_UNAVAILABLE: "unavailable"}

# What every part of the table in tables.py takes part in answering.
QUESTIONS = [
    "host web", "host WEB.", "host www.example", "host db.example.org", "host db-417", "host vm-1", "host shy",
    "host nosuch", "host a-name-that-is-among-the-details",
    "address 10.0.0.2", "address fd00::2", "address fe80::2", "address 10.0.0.9", "address 10.0.1.4",
    "user vu-web-0", "user vu-web-16777216", "user vu-web-100000", "user vu-a-name-that-1-5",
    "user vu-db-417-65535", "user vu-nosuch-5",
    "uid 1048576", "uid 1114111", "uid 1114112", "uid 16777216", "uid 3145728", "uid 65536", "uid 4294967294",
    "group vg-web-7", "group vg-db-417-1", "gid 2097152", "gid 3145729", "gid 65536",
]  # fmt: skip


def make_question(text: str) -> CData:
    kind, _, value = text.partition(" ")
    question = ffi.new("struct question *", {"layout": lib.PACKET_LAYOUT, "kind": KINDS[kind]})
    if kind in ("uid", "gid"):
        question.id = int(value)
    elif kind == "address":
        address = ipaddress.ip_address(value)
        question.family = 2 if address.version == 4 else 10
        ffi.memmove(question.bytes, address.packed, len(address.packed))
    else:
        question.name = value.encode()
    return question


def show_name(name: CData) -> str:
    """Damaged tables hold names of any bytes; what is shown is one word all the same."""
    return ffi.string(name).decode("latin-1").encode("unicode_escape").decode().replace(" ", r"\x20")


def show_host(host: CData) -> str:
    addresses = []
    for i in range(host.address_count):
        one = host.addresses[i]
        packed = bytes(one.bytes)[: 4 if one.family == 2 else 16]
        addresses.append(f"{ipaddress.ip_address(packed)}%{one.scope_id}/{one.flags}")
    return " ".join([show_name(host.name), *addresses])


def show_id(answer: CData) -> str:
    return f"{show_name(answer.name)} {show_name(answer.machine)} {answer.host_id} {answer.inside_id}"


class View:
    """A view of the table at a path, owned by whoever runs the tests unless told otherwise. Close it."""

    def __init__(self, path: Path, owner: int | None = None) -> None:
        self._view = lib.view_new(os.fsencode(path), os.geteuid() if owner is None else owner)
        self._host = ffi.new("struct host_answer *")
        self._id = ffi.new("struct id_answer *")

    def ask(self, text: str) -> str:
        """The answer as a line of text; `unknown`, `unavailable`."""
        return self.put(make_question(text))

    def put(self, question: CData) -> str:
        result = lib.answer_from_view(self._view, question, self._host, self._id)
        if result != lib.ANSWER_FOUND:
            return FAILURES[result]
        if question.kind in (lib.QUESTION_HOST_BY_NAME, lib.QUESTION_HOST_BY_ADDRESS):
            return show_host(self._host)
        return show_id(self._id)

    def close(self) -> None:
        lib.view_free(self._view)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def main() -> None:
    """Each line on stdin is the path of a table: ask everything of it, print the answers in one line, tabs between."""
    for line in sys.stdin:
        with View(Path(line.rstrip("\n"))) as view:
            print("\t".join(view.ask(question) for question in QUESTIONS), flush=True)


if __name__ == "__main__":
    main()
