# SPDX-License-Identifier: MIT
"""Octets from a socket to messages: whole, octet by octet, too long, undecodable, and with descriptors."""

import array
import os
import socket
from collections.abc import Iterator

import pytest
from dbus_fast import Message, Variant
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.dbus.reader import MESSAGE_MAX, ProtocolError, Reader, close_all

Pair = tuple[socket.socket, Reader]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    theirs.settimeout(10)
    reader = Reader(ours)
    yield theirs, reader
    reader.close()
    ours.close()
    theirs.close()


def octets(member: str = "Hello", signature: str = "", body: list[object] | None = None, serial: int = 1) -> bytes:
    message = Message("org.example.A", "/a", "org.example.A", member, signature=signature, body=body or [],
                      serial=serial)
    return bytes(message._marshall(True))


SAMPLES = [octets(), octets("Name", "s", ["x"]), octets("Many", "sa(sv)", ["x", [("a", Variant("u", 1))]])]


def test_messages_whole_and_octet_by_octet(pair: Pair) -> None:
    sock, reader = pair
    sock.sendall(b"".join(SAMPLES))
    assert [reader.read().message.member for _ in SAMPLES] == ["Hello", "Name", "Many"]  # type: ignore[union-attr]
    assert reader.read() is None
    for sample in SAMPLES:
        for octet in sample[:-1]:
            sock.sendall(bytes([octet]))
            assert reader.read() is None
        sock.sendall(sample[-1:])
        received = reader.read()
        assert received is not None
        assert not received.problem


def test_the_end(pair: Pair) -> None:
    sock, reader = pair
    sock.sendall(SAMPLES[0][:20])
    sock.shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError):
        reader.read()


@pytest.mark.parametrize("data", [b"\0" * 16, b"GET / HTTP/1.1\r\n", b"l\1\0\2" + bytes(12),
                                  b"l\1\0\1" + bytes(8) + b"\xff\xff\xff\xff"])
def test_what_is_no_message(pair: Pair, data: bytes) -> None:
    sock, reader = pair
    sock.sendall(data)
    with pytest.raises(ProtocolError):
        reader.read()


def test_what_is_too_long_is_thrown_away_and_told_of(pair: Pair) -> None:
    sock, reader = pair
    sock.setblocking(False)
    waiting = octets("Long", "ay", [bytes(MESSAGE_MAX)], serial=9) + octets("Next")
    found: list[tuple[str | None, int, bool]] = []
    while len(found) < 2:
        if waiting:
            try:
                waiting = waiting[sock.send(waiting):]
            except BlockingIOError:
                pass
        received = reader.read()
        if received is not None:
            found.append((received.message.member, received.message.serial, bool(received.problem)))
        assert len(reader._data) < 100000
    assert found == [("Long", 9, True), ("Next", 1, False)]


def test_what_cannot_be_decoded_is_told_of_and_the_next_is_read(pair: Pair) -> None:
    sock, reader = pair
    broken = bytearray(octets("Broken", "s", ["xyz"], serial=9))
    broken[-8:-4] = b"\xff\0\0\0"  # the length of the text
    sock.sendall(bytes(broken) + octets("Next"))
    received = reader.read()
    assert received is not None
    assert (received.message.member, received.message.serial, received.message.body) == ("Broken", 9, [])
    assert "cannot be read" in received.problem
    following = reader.read()
    assert following is not None
    assert following.message.member == "Next"


def test_descriptors_come_with_their_message(pair: Pair) -> None:
    sock, reader = pair
    reading, writing = os.pipe()
    sock.sendmsg([octets("First")])
    sock.sendmsg([octets("Second", "h", [0])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [reading]))])
    sock.sendmsg([octets("Third")])
    os.close(reading)
    counts = []
    for _ in range(3):
        received = reader.read()
        assert received is not None
        counts.append(len(received.message.unix_fds))
        assert not any(os.get_inheritable(descriptor) for descriptor in received.message.unix_fds)
        close_all(received.message.unix_fds)
    os.close(writing)
    assert counts == [0, 1, 0]


def test_descriptors_of_what_never_comes_whole_are_closed(pair: Pair) -> None:
    sock, reader = pair
    reading, writing = os.pipe()
    sock.sendmsg([octets("Half", "h", [0])[:-1]],
                 [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [reading]))])
    os.close(reading)
    assert reader.read() is None
    reader.close()
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"x")
    os.close(writing)


@settings(max_examples=300)
@given(st.integers(0, len(SAMPLES) - 1), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=6))
def test_whatever_comes_the_reader_goes_on_or_says_that_it_is_the_end(sample: int,
                                                                      changes: list[tuple[int, int]]) -> None:
    data = bytearray(SAMPLES[sample])
    for at, value in changes:
        data[at % len(data)] = value
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        reader = Reader(ours)
        try:
            while reader.read() is not None:
                pass
        except (EOFError, ProtocolError):
            pass
