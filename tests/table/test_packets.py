# SPDX-License-Identifier: MIT
"""The daemon's packets say what the table says."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from resolver._table import ffi, lib
from resolver.core.registry import Registry
from resolver.table.packets import QUESTION_SIZE, answer_packet
from tests.table.test_writer import ADDRESSES, MAPS, machine


def registry() -> Registry:
    known = Registry()
    known.add(machine("Web", 2, chosen=tuple(ADDRESSES), uid_map=MAPS[1], gid_map=MAPS[1]))
    return known


def ask(**fields: Any) -> tuple[int, bytes]:
    question = ffi.new("struct question *", {"layout": lib.PACKET_LAYOUT, **fields})
    reply = answer_packet(registry(), bytes(ffi.buffer(question)))
    assert reply is not None
    header = ffi.from_buffer("struct reply_header *", reply[:12])
    assert (header.layout, header.kind) == (lib.PACKET_LAYOUT, fields["kind"])
    return header.result, reply[12:]


def test_a_host_by_name() -> None:
    result, body = ask(kind=lib.QUESTION_HOST_BY_NAME, name=b"web")
    assert result == lib.ANSWER_FOUND
    answer = ffi.from_buffer("struct host_answer *", body.ljust(ffi.sizeof("struct host_answer"), b"\0"))
    assert ffi.string(answer.name) == b"Web"
    assert [bytes(answer.addresses[i].bytes) for i in range(answer.address_count)] == [
        a.packed.ljust(16, b"\0") for a in ADDRESSES]
    assert len(body) == 72 + 28 * len(ADDRESSES)  # cut behind the last address


def test_a_host_by_address() -> None:
    result, body = ask(kind=lib.QUESTION_HOST_BY_ADDRESS, family=2, bytes=ADDRESSES[1].packed + bytes(12))
    assert (result, len(body)) == (lib.ANSWER_FOUND, 72 + 28)
    assert ask(kind=lib.QUESTION_HOST_BY_ADDRESS, family=2, bytes=bytes(16)) == (lib.ANSWER_UNKNOWN, b"")
    assert ask(kind=lib.QUESTION_HOST_BY_ADDRESS, family=99) == (lib.ANSWER_UNKNOWN, b"")


def test_users_and_groups() -> None:
    for kind, fields in ((lib.QUESTION_USER_BY_ID, {"id": 101000}),
                         (lib.QUESTION_USER_BY_NAME, {"name": b"vu-Web-1000"}),
                         (lib.QUESTION_GROUP_BY_ID, {"id": 101000}),
                         (lib.QUESTION_GROUP_BY_NAME, {"name": b"vg-Web-1000"})):
        result, body = ask(kind=kind, **fields)
        assert result == lib.ANSWER_FOUND
        answer = ffi.from_buffer("struct id_answer *", body)
        assert (answer.host_id, answer.inside_id, ffi.string(answer.machine)) == (101000, 1000, b"Web")
    assert ask(kind=lib.QUESTION_USER_BY_ID, id=5) == (lib.ANSWER_UNKNOWN, b"")


@given(st.binary(max_size=200) | st.binary(min_size=QUESTION_SIZE, max_size=QUESTION_SIZE))
def test_anything_else_gets_no_reply_or_a_sound_one(packet: bytes) -> None:
    reply = answer_packet(registry(), packet)
    assert reply is None or len(reply) >= 12


@given(st.integers(1, 6), st.binary(max_size=67), st.binary(min_size=16, max_size=16), st.integers(0, 2**32 - 1))
def test_any_question_has_an_answer(kind: int, name: bytes, address: bytes, number: int) -> None:
    result, _ = ask(kind=kind, name=name, bytes=address, id=number, family=10)
    assert result in (lib.ANSWER_FOUND, lib.ANSWER_UNKNOWN)
