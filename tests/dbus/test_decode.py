# SPDX-License-Identifier: MIT
"""Octets to a message: what dbus-fast encodes comes back, and whatever else there is, is a message or ValueError."""

import struct
from typing import Any

import pytest
from dbus_fast import Message, MessageFlag, MessageType, Variant
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.dbus.decode import DEPTH_MAX, VALUES_MAX, decode

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9)
NUMBERS = {"y": (0, 2**8), "n": (-2**15, 2**15), "q": (0, 2**16), "i": (-2**31, 2**31), "u": (0, 2**32),
           "x": (-2**63, 2**63), "t": (0, 2**64)}
BASIC: list[tuple[str, st.SearchStrategy[Any]]] = [
    *((code, st.integers(low, end - 1)) for code, (low, end) in NUMBERS.items()),
    ("d", st.floats(allow_nan=False)), ("b", st.booleans()), ("s", TEXT), ("g", st.just("a{sv}")), ("o", st.just("/a"))]

Typed = tuple[str, st.SearchStrategy[Any]]


def containers(types: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    def array(item: Typed) -> Typed:
        if item[0] == "y":
            return "ay", st.binary(max_size=5)
        return f"a{item[0]}", st.lists(item[1], max_size=3)

    return st.one_of(
        types.map(array),
        st.lists(types, min_size=1, max_size=3).map(
            lambda items: (f"({''.join(code for code, _ in items)})", st.tuples(*(value for _, value in items)))),
        st.tuples(st.sampled_from([item for item in BASIC if item[0] in "usx"]), types).map(
            lambda pair: (f"a{{{pair[0][0]}{pair[1][0]}}}", st.dictionaries(pair[0][1], pair[1][1], max_size=3))),
        types.map(lambda item: ("v", item[1].map(lambda value: Variant(item[0], value)))))


TYPED = st.recursive(st.sampled_from(BASIC), containers, max_leaves=6)


def encode(signature: str = "", body: list[Any] | None = None, **fields: Any) -> bytes:
    said: dict[str, Any] = {"path": "/a", "interface": "org.example.A", "member": "Do", "serial": 7, **fields}
    return bytes(Message(signature=signature, body=body or [], **said)._marshall(True))


@settings(max_examples=300, deadline=None)
@given(st.lists(TYPED, max_size=4).flatmap(
    lambda items: st.tuples(st.just("".join(code for code, _ in items)), st.tuples(*(value for _, value in items)))))
def test_what_is_encoded_comes_back(typed: tuple[str, tuple[Any, ...]]) -> None:
    signature, body = typed
    message = decode(encode(signature, list(body)))
    assert message.signature == signature
    assert message.body == list(body)


def test_every_field_of_the_header() -> None:
    call = decode(encode(destination=":1.7", flags=MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION))
    assert (call.path, call.interface, call.member, call.destination, call.serial) == (
        "/a", "org.example.A", "Do", ":1.7", 7)
    assert (call.message_type, call.flags) == (MessageType.METHOD_CALL,
                                               MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION)
    error = Message(message_type=MessageType.ERROR, error_name="a.b", reply_serial=3, serial=1, signature="s",
                    body=["why"])
    found = decode(bytes(error._marshall(True)))
    assert (found.message_type, found.error_name, found.reply_serial, found.body) == (
        MessageType.ERROR, "a.b", 3, ["why"])


def test_the_other_order_of_octets() -> None:
    def text(code: int, kind: bytes, value: bytes) -> bytes:
        field = struct.pack(">BB1sx", code, 1, kind) + struct.pack(">I", len(value)) + value + b"\0"
        return field + bytes(-len(field) % 8)

    fields = text(1, b"o", b"/a") + text(3, b"s", b"Do") + struct.pack(">BB1sx", 8, 1, b"g") + b"\2ut\0"
    data = b"B\1\0\1" + struct.pack(">III", 16, 9, len(fields)) + fields + bytes(-len(fields) % 8)
    data += struct.pack(">IxxxxQ", 1000, 2**40)
    message = decode(data)
    assert (message.serial, message.path, message.member, message.body) == (9, "/a", "Do", [1000, 2**40])


def nested(depth: int) -> Variant:
    value = Variant("u", 1)
    for _ in range(depth - 1):
        value = Variant("v", value)
    return value


def test_its_limits() -> None:
    assert decode(encode("v", [nested(DEPTH_MAX)])).body == [nested(DEPTH_MAX)]
    with pytest.raises(ValueError, match="nested"):
        decode(encode("v", [nested(DEPTH_MAX + 1)]))
    assert len(decode(encode("as", [["x"] * (VALUES_MAX - 1)])).body[0]) == VALUES_MAX - 1
    with pytest.raises(ValueError, match="values"):
        decode(encode("as", [["x"] * VALUES_MAX]))
    assert len(decode(encode("au", [[1] * 200000])).body[0]) == 200000  # numbers in a row are read as one


def changed(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1:]


CALL = encode("sb", ["xyz", True])
BODY = len(CALL) - 12


@pytest.mark.parametrize(("data", "why"), [
    (changed(CALL, 0, 0), "no message"), (changed(CALL, 3, 2), "version 1"), (changed(CALL, 1, 0), "MessageType"),
    (changed(CALL, 1, 5), "MessageType"), (changed(CALL, 4, 11), "not as long"), (CALL[:-1], "not as long"),
    (CALL + b"\0", "not as long"), (changed(CALL, BODY, 4), "end at its end"), (changed(CALL, BODY, 2), "end"),
    (changed(CALL, BODY + 3, 0xff), "longer than"), (changed(CALL, BODY + 4, 0), "end at its end"),
    (changed(CALL, BODY + 4, 0xff), "utf-8"), (changed(CALL, BODY + 8, 2), "boolean"),
], ids=str)
def test_what_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decode(data)


def test_keys_that_are_no_keys() -> None:
    data = encode("a{ss}", [{"a": "b"}]).replace(b"a{ss}", b"a{vs}")
    with pytest.raises(ValueError, match="basic type"):
        decode(data)


def test_a_header_without_what_it_needs() -> None:
    message = Message(path="/a", member="Do", serial=1)
    message.member = None
    with pytest.raises(ValueError, match="missing"):
        decode(bytes(message._marshall(True)))


SAMPLES = [encode(), CALL, encode("sa(sv)a{sv}", ["x", [("a", Variant("au", [1, 2]))], {"b": Variant("v", nested(2))}])]


@settings(max_examples=1000)
@given(st.sampled_from(SAMPLES), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=6), st.booleans())
def test_anything_is_a_message_or_an_error(data: bytes, changes: list[tuple[int, int]], header_only: bool) -> None:
    for at, value in changes:
        data = changed(data, at % len(data), value)
    try:
        decode(data, header_only)
    except ValueError:
        pass


@given(st.binary(max_size=80))
def test_noise(data: bytes) -> None:
    try:
        decode(data)
    except ValueError:
        pass
