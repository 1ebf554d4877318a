# SPDX-License-Identifier: MIT
"""The stream, whole and byte by byte: messages, need more, or one protocol error."""

import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.varlink.codec import (
    CALL_MAX,
    NESTING_MAX,
    Decoder,
    ProtocolError,
    decode,
    encode,
    parse_call,
    parse_reply,
)


class Somebody:
    uid = gid = pid = 1
    pidfd = None


CALLER = Somebody()

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.integers(-2**63, 2**64 - 1) | FLOATS | st.text()
MESSAGES = st.dictionaries(st.text(), st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(
    st.text(), inner), max_leaves=20))

BAD = [
    b"",
    b"not json",
    b"{",
    b"[]",
    b'"text"',
    b"null",
    b'{"a":1}{"b":2}',
    b'{"a":1,"a":1}',
    b'{"x":{"a":1,"a":2}}',
    b'{"a":NaN}',
    b'{"a":-Infinity}',
    b'{"a":1e999}',
    b'{"a":01}',
    b'{"a":"\xff"}',
    b'{"a":"\xed\xa0\x80"}',         # a surrogate in UTF-8's clothes
    b'{"a":"\\ud800"}',              # half a pair
    b'{"a":"\\udc00\\ud800"}',
    b'\xef\xbb\xbf{"a":1}',          # a byte order mark
    b'{"a":"line\nbreak"}',
    b'{"a":' + b"9" * 5000 + b"}",   # more digits than Python reads
    b'{"a":' + b"[" * 100_000,
    b'{"a":' + b"[" * (NESTING_MAX) + b"]" * NESTING_MAX + b"}",
    b'{"a":' * NESTING_MAX + b"{}" + b"}" * NESTING_MAX,
]


def run(chunks: list[bytes], limit: int = CALL_MAX) -> list[Any]:
    """What the decoder says to the chunks: messages, then perhaps ProtocolError."""
    decoder, said = Decoder(limit), []
    for chunk in chunks:
        decoder.feed(chunk)
        try:
            while (message := decoder.next_message()) is not None:
                said.append(message)
        except ProtocolError:
            return [*said, ProtocolError]
    return said


def each_byte(data: bytes) -> list[bytes]:
    return [data[i:i + 1] for i in range(len(data))]


@pytest.mark.parametrize("bad", BAD, ids=lambda data: repr(data[:30]))
def test_what_is_no_message_is_a_protocol_error(bad: bytes) -> None:
    stream = encode({"fine": 1}) + bad + b"\0" + encode({"never": "seen"})
    assert run([stream]) == [{"fine": 1}, ProtocolError]
    if len(stream) < 10_000:
        assert run(each_byte(stream)) == [{"fine": 1}, ProtocolError]


def test_a_dead_decoder_stays_dead() -> None:
    decoder = Decoder()
    decoder.feed(b"x\0" + encode({}))
    for _ in range(2):
        with pytest.raises(ProtocolError):
            decoder.next_message()
        decoder.feed(encode({}))


@given(st.lists(MESSAGES, max_size=5), st.integers(1, 50))
def test_messages_come_back_however_they_are_cut(messages: list[dict[str, Any]], size: int) -> None:
    stream = b"".join(encode(message) for message in messages)
    assert run([stream[i:i + size] for i in range(0, len(stream), size)]) == messages
    assert run(each_byte(stream)) == messages


@given(st.binary(max_size=200) | st.text('{}[]",:\\u0d8ntrue\0').map(str.encode), st.integers(1, 20))
def test_any_bytes_give_messages_or_a_protocol_error(data: bytes, size: int) -> None:
    whole = run([data])
    assert whole == run([data[i:i + size] for i in range(0, len(data), size)])


@given(MESSAGES, st.binary(min_size=1, max_size=8), st.integers(0))
def test_damaged_messages_give_messages_or_a_protocol_error(message: dict[str, Any], damage: bytes, place: int) -> None:
    stream = bytearray(encode(message))
    place %= len(stream)
    stream[place:place + len(damage)] = damage
    run([bytes(stream)])


def test_depth_is_counted_outside_of_strings() -> None:
    brackets = "[{" * NESTING_MAX + '"\\'
    deep: Any = brackets
    for _ in range(NESTING_MAX - 1):
        deep = [deep]
    assert decode(encode({"a": deep})[:-1]) == {"a": deep}
    with pytest.raises(ProtocolError, match="deep"):
        decode(encode({"a": [deep]})[:-1])


def test_an_unfinished_string_of_quotes_takes_linear_time() -> None:
    begin = time.process_time()
    with pytest.raises(ProtocolError):
        decode(b'"' + b'\\"' * (CALL_MAX // 2) + b"[" * (NESTING_MAX + 1))
    # Some milliseconds; tried anew at each escaped quote, seconds.
    assert time.process_time() - begin < 0.2


def test_escaped_zeros_and_pairs_are_text() -> None:
    assert decode(b'{"a":"\\u0000","b":"\\ud83d\\ude00"}') == {"a": "\0", "b": "\U0001f600"}
    assert encode({"a": "\0ä\ud800"}) == b'{"a":"\\u0000\\u00e4\\ud800"}\0'


def test_limit_is_of_the_message_not_of_what_was_fed() -> None:
    body = encode({"a": "x" * 80})
    limit = len(body) - 1
    assert len(run([body * 50], limit)) == 50
    assert run([body], limit - 1) == [ProtocolError]
    assert run(each_byte(body), limit - 1) == [ProtocolError]


def test_a_hundred_megabytes_without_an_end_are_never_held() -> None:
    decoder, chunk, fed = Decoder(), b"x" * 16384, 0
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):  # noqa: PT012 - which of the chunks is one too many is the question
            while fed < 100 * 2**20:
                decoder.feed(chunk)
                fed += len(chunk)
                assert decoder.next_message() is None
        assert fed <= CALL_MAX + len(chunk)
        assert tracemalloc.get_traced_memory()[1] < 4 * CALL_MAX
    finally:
        tracemalloc.stop()


def test_waiting_and_unfinished() -> None:
    decoder = Decoder()
    decoder.feed(b'{}\0{"a"')
    assert decoder.waiting
    assert decoder.next_message() == {}
    assert decoder.waiting
    assert decoder.next_message() is None
    assert (decoder.waiting, bool(decoder.unfinished)) == (False, True)
    decoder.feed(b":1}\0")
    assert decoder.next_message() == {"a": 1}
    assert (decoder.waiting, bool(decoder.unfinished)) == (False, False)


def test_parse_call() -> None:
    call = parse_call({"method": "a.b.C", "parameters": None, "more": True, "later": 1}, CALLER)
    assert call == ("a.b.C", {}, CALLER, True, False, False)
    assert parse_call({"method": "a.b.C", "parameters": {"x": 1}, "oneway": True}, CALLER).oneway


@pytest.mark.parametrize("message", [
    {}, {"method": None}, {"method": 5}, {"method": ["a"]},
    {"method": "a.B", "parameters": []}, {"method": "a.B", "parameters": "x"}, {"method": "a.B", "parameters": False},
    {"method": "a.B", "more": 1}, {"method": "a.B", "oneway": "true"}, {"method": "a.B", "upgrade": None},
    {"method": "a.B", "more": True, "oneway": True},
])
def test_calls_of_wrong_types_are_protocol_errors(message: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        parse_call(message, CALLER)


def test_parse_reply() -> None:
    assert parse_reply({}) == (None, {}, False)
    assert parse_reply({"error": "a.E", "parameters": {"x": 1}}) == ("a.E", {"x": 1}, False)
    assert parse_reply({"parameters": {}, "continues": True}) == (None, {}, True)
    for wrong in ({"error": 5}, {"parameters": 5}, {"continues": 5}):
        with pytest.raises(ProtocolError):
            parse_reply(wrong)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", {1}])
def test_encode_refuses_what_json_has_not(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        encode({"a": value})


def test_encode_is_compact_json_with_a_zero() -> None:
    assert json.loads(encode({"a": [1, "ä"]})[:-1]) == {"a": [1, "ä"]}
    assert encode({"a": [1, 2]}) == b'{"a":[1,2]}\0'
