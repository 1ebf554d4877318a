# SPDX-License-Identifier: MIT
"""Bytes in; messages, None for "need more", or one ProtocolError out. No input or output.

    stream  = { message NUL }
    message = one JSON object (RFC 8259) in UTF-8

JSON escapes control characters in strings, so a zero byte is an end and nothing else, and each byte is looked at once
for it. Stricter than RFC 8259 in what it leaves open: no name twice in an object (two readers could see two values),
no number beyond a double, no lone surrogate (such a string has no UTF-8), and no more depth or length than below.
"""

import re
from collections import deque
from json import JSONDecodeError, JSONDecoder, JSONEncoder
from typing import Any, NoReturn

from resolver.varlink.call import Call, Caller

CALL_MAX = 128 * 1024
"""Bytes of a call. The longest honest one registers a machine with two paths of PATH_MAX, each byte escaped to six:
48 KiB. What one user's connections can make the server hold is this times their number."""

REPLY_MAX = 16 * 1024 * 1024
"""Bytes of a reply that a client takes: the limit of systemd's own implementation."""

NESTING_MAX = 64
"""Objects and arrays inside each other. The deepest reply of our interfaces has 5, a user record of systemd's fewer
than 10; Python's parser recurses, and would fail at a depth that depends on who calls it."""

# A string, or one bracket. The closing quote is optional, so that an unfinished string is not tried again from each
# escaped quote inside: that would take time by the square.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


class ProtocolError(Exception):
    """What came is not Varlink. The stream cannot be trusted from here on: close the connection."""


class Decoder:
    """Cuts a stream into messages. Once it has raised ProtocolError it raises nothing else."""

    def __init__(self, message_max: int = CALL_MAX) -> None:
        self._message_max = message_max
        self._chunks: deque[bytes] = deque()
        self._position = 0  # in the first chunk
        self.unfinished = bytearray()
        """Of a message whose end has not come; only true to the word while not `waiting`."""
        self._error: ProtocolError | None = None

    def feed(self, data: bytes) -> None:
        """Take what came. Call next_message() until it returns None before feeding more: that bounds memory."""
        if data:
            self._chunks.append(data)

    @property
    def waiting(self) -> bool:
        """Whether something was fed that next_message() has not looked at yet."""
        return bool(self._chunks)

    def next_message(self) -> dict[str, Any] | None:
        """The next complete message, None where more bytes are needed."""
        if self._error is not None:
            raise self._error
        try:
            data = self._next_frame()
            return None if data is None else decode(data)
        except ProtocolError as error:
            self._error = error
            self._chunks.clear()
            self.unfinished = bytearray()
            raise

    def _next_frame(self) -> bytes | bytearray | None:
        while self._chunks:
            chunk, start = self._chunks[0], self._position
            end = chunk.find(b"\0", start)
            if (len(chunk) if end < 0 else end) - start + len(self.unfinished) > self._message_max:
                raise ProtocolError(f"a message of more than {self._message_max} bytes")
            self._position = end + 1
            if end < 0 or self._position == len(chunk):
                self._chunks.popleft()
                self._position = 0
            if end < 0:
                self.unfinished += chunk[start:]
            elif self.unfinished:
                frame, self.unfinished = self.unfinished, bytearray()
                frame += chunk[start:end]
                return frame
            else:
                return chunk[start:end]
        return None


def decode(data: bytes | bytearray) -> dict[str, Any]:
    """Read one message, without its zero byte. ProtocolError for whatever is no JSON object as described above."""
    try:
        text = str(data, "utf-8")
        if text.count("{") + text.count("[") > NESTING_MAX:
            _check_nesting(text)
        message = _DECODER.decode(text)
        if "\\u" in text:
            _ENCODER_AS_IS.encode(message).encode()
    except JSONDecodeError as error:
        raise ProtocolError(f"not JSON: {error.msg} at character {error.pos}") from None
    except UnicodeError as error:
        raise ProtocolError(f"not UTF-8: {error.reason}" if hasattr(error, "reason") else "not UTF-8") from None
    except ValueError as error:  # more digits than sys.set_int_max_str_digits() allows
        raise ProtocolError(f"not JSON that can be read: {error}") from None
    if not isinstance(message, dict):
        raise ProtocolError("a message that is no object")
    return message


def encode(message: dict[str, Any]) -> bytes:
    """One message, its zero byte included. ValueError or TypeError where it holds what JSON has not."""
    return _ENCODER.encode(message).encode("ascii") + b"\0"


def parse_call(message: dict[str, Any], caller: Caller) -> Call:
    """A client's message. Unknown members are left to later versions of the protocol; ProtocolError for wrong types."""
    method = message.get("method")
    if not isinstance(method, str):
        raise ProtocolError("a call whose method is no string")
    more, oneway, upgrade = _flag(message, "more"), _flag(message, "oneway"), _flag(message, "upgrade")
    if more + oneway + upgrade > 1:
        raise ProtocolError("a call with two of more, oneway and upgrade")
    return Call(method, _parameters(message), caller, more, oneway, upgrade)


def parse_reply(message: dict[str, Any]) -> tuple[str | None, dict[str, Any], bool]:
    """A server's message: the error's name or None, the parameters, and whether more replies follow."""
    error = message.get("error")
    if error is not None and not isinstance(error, str):
        raise ProtocolError("a reply whose error is no string")
    return error, _parameters(message), _flag(message, "continues")


def _parameters(message: dict[str, Any]) -> dict[str, Any]:
    parameters = message.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise ProtocolError("parameters that are no object")
    return parameters


def _flag(message: dict[str, Any], name: str) -> bool:
    value = message.get(name, False)
    if value is True or value is False:
        return value
    raise ProtocolError(f"{name} is neither true nor false")


def _check_nesting(text: str) -> None:
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        match text[match.start()]:
            case "{" | "[":
                depth += 1
                if depth > NESTING_MAX:
                    raise ProtocolError(f"JSON nested deeper than {NESTING_MAX}")
            case "}" | "]":
                depth -= 1


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ProtocolError("an object with the same name twice")
    return members


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ProtocolError(f"a number beyond a double: {digits[:32]}")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ProtocolError(f"{name} is not JSON")


_DECODER = JSONDecoder(object_pairs_hook=_unique_members, parse_float=_finite, parse_constant=_no_constant)
_ENCODER = JSONEncoder(separators=(",", ":"), allow_nan=False)
_ENCODER_AS_IS = JSONEncoder(ensure_ascii=False)
