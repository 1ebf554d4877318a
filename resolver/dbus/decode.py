# SPDX-License-Identifier: MIT
"""One message from its octets (D-Bus specification, Marshaling and Message Protocol). Total: a Message, or ValueError.

dbus-fast's own decoder is not used. A length in a body that is not true makes the compiled one read far beyond the
message: it crashes (5.2.0, found by changing a few octets of a call). dbus-daemon passes on no such message; that
every bus looks into bodies as it does is not something to rest a daemon of root's upon.
"""

import struct
from typing import Any

from dbus_fast import Message, MessageFlag, MessageType, SignatureTree, SignatureType, Variant

VALUES_MAX = 16384
"""Values in one message: some 20 ms. A scope's properties are hundreds; numbers in a row, such as a user's groups,
count as one."""

DEPTH_MAX = 64
"""Values within values: 32 arrays and 32 structs (specification, Valid Signatures)."""

FIXED = 16
"""Octets before the header's fields: endianness, type, flags, version, length of the body, serial, length of these."""

_ORDERS = {ord("l"): "<", ord("B"): ">"}
_NUMBERS = {"y": "B", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d", "h": "I"}
_ALIGNMENTS = {"y": 1, "n": 2, "q": 2, "x": 8, "t": 8, "d": 8, "g": 1, "v": 1, "(": 8, "{": 8}  # all others: 4
_FIELDS = {1: ("path", "o"), 2: ("interface", "s"), 3: ("member", "s"), 4: ("error_name", "s"),
           5: ("reply_serial", "u"), 6: ("destination", "s"), 7: ("sender", "s"), 8: ("signature", "g")}
_REQUIRED = {MessageType.METHOD_CALL: ("path", "member"), MessageType.SIGNAL: ("path", "member", "interface"),
             MessageType.METHOD_RETURN: ("reply_serial",), MessageType.ERROR: ("reply_serial", "error_name")}
_HEADER = SignatureTree("a(yv)").types[0]


def measure(fixed: bytes | bytearray) -> tuple[int, int]:
    """The lengths of header, with its padding, and body, from the first FIXED octets. ValueError for no message."""
    if len(fixed) < FIXED:
        raise ValueError("it is shorter than any message")
    order = _ORDERS.get(fixed[0])
    if order is None or fixed[3] != 1:
        raise ValueError("what came is no message of D-Bus, version 1")
    body, _, fields = struct.unpack_from(f"{order}III", fixed, 4)
    return FIXED + fields + -fields % 8, body


def decode(data: bytes, header_only: bool = False) -> Message:
    """The message; with `header_only` without its body, whether that is there or not."""
    header, body = measure(data)
    order = _ORDERS[data[0]]
    kind = MessageType(data[1])  # ValueError for those of later versions
    if len(data) != header + (0 if header_only and len(data) == header else body):
        raise ValueError("it is not as long as it says")
    decoder = _Decoder(data, order, 12, header)
    fields: dict[str, Any] = {}
    for code, variant in decoder.value(_HEADER):
        name, signature = _FIELDS.get(code, ("", ""))
        if not name:
            continue  # of later versions; and the number of descriptors, which are there to be counted
        if variant.signature != signature:
            raise ValueError(f"field {name} is no {signature}")
        fields[name] = variant.value
    if any(not fields.get(name) for name in _REQUIRED[kind]):
        raise ValueError("a field is missing")
    tree = SignatureTree("" if header_only else fields.pop("signature", ""))
    fields.pop("signature", None)
    values: list[Any] = []
    if not header_only:
        decoder = _Decoder(data, order, header, header + body)
        values = [decoder.value(each) for each in tree.types]
        if decoder.at != decoder.end:
            raise ValueError("there is more in it than its signature says")
    (serial,) = struct.unpack_from(f"{order}I", data, 8)
    return Message(message_type=kind, flags=MessageFlag(data[2]), serial=serial, signature=tree, body=values,
                   validate=False, **fields)


class _Decoder:
    """Values one after the other, from `at` to before `end`; offsets count from the message's beginning."""

    def __init__(self, data: bytes, order: str, at: int, end: int) -> None:
        self._data = data
        self._order = order
        self.at = at
        self.end = end
        self._values = 0
        self._depth = 0

    def value(self, kind: SignatureType) -> Any:
        self._values += 1
        if self._values > VALUES_MAX:
            raise ValueError(f"it holds more than {VALUES_MAX} values")
        code = kind.token
        if code in _NUMBERS:
            return self._number(code)
        if code == "b":
            number = self._number("u")
            if number > 1:
                raise ValueError(f"{number} is no boolean")
            return bool(number)
        if code in "so":
            return self._text(self._number("u"))
        if code == "g":
            return self._text(self._number("y"))
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise ValueError(f"values are nested more than {DEPTH_MAX} times")
        value = self._container(kind, code)
        self._depth -= 1
        return value

    def _container(self, kind: SignatureType, code: str) -> Any:
        if code == "a":
            return self._array(kind.children[0])
        if code == "v":
            tree = SignatureTree(self._text(self._number("y")))
            if len(tree.types) != 1:
                raise ValueError("a variant is not of one type")
            return Variant(tree, self.value(tree.types[0]), verify=False)
        self._take(0, 8)
        return tuple(self.value(child) for child in kind.children)

    def _array(self, kind: SignatureType) -> Any:
        code, length = kind.token, self._number("u")
        alignment = _ALIGNMENTS.get(code, 4)
        start = self._take(0, alignment)
        if code == "y":
            return self._data[start:self._take(length, 1) + length]
        if code in _NUMBERS:
            if length % alignment:
                raise ValueError("an array ends within a value")
            form = f"{self._order}{length // alignment}{_NUMBERS[code]}"
            return list(struct.unpack_from(form, self._data, self._take(length, 1)))
        if code == "{" and kind.children[0].signature == "v":
            raise ValueError("a dictionary's keys are of a basic type")
        items = []
        while self.at < start + length:
            items.append(self.value(kind))
        if self.at != start + length:
            raise ValueError("an array ends within a value")
        return dict(items) if code == "{" else items

    def _number(self, code: str) -> Any:
        size = struct.calcsize(f"={_NUMBERS[code]}")
        return struct.unpack_from(self._order + _NUMBERS[code], self._data, self._take(size, size))[0]

    def _text(self, length: int) -> str:
        start = self._take(length + 1, 1)
        text = self._data[start:start + length]
        if self._data[start + length] or 0 in text:
            raise ValueError("a text does not end at its end")
        return text.decode()

    def _take(self, length: int, alignment: int) -> int:
        """Step over padding and `length` octets; where these begin."""
        start = self.at + -self.at % alignment
        if start + length > self.end:
            raise ValueError("a value is longer than the message")
        self.at = start + length
        return start
