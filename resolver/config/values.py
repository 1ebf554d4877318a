# SPDX-License-Identifier: MIT
"""Kinds of values: what of TOML's each of them takes, and how a person is told."""

import ipaddress
from dataclasses import dataclass
from typing import Any, Protocol

LIST_MAX = 64
"""Entries of one list: nobody has so many places, and each costs a watch or a socket."""

PATH_MAX = 4096
"""Bytes, with the final zero (limits.h)."""

SOCKET_PATH_MAX = 108
"""Bytes, with the final zero (unix(7))."""


class Kind(Protocol):
    """`text` names the kind in a sentence; read() gives the value as the program has it, or raises ValueError, whose
    text says what is expected instead."""

    @property
    def text(self) -> str: ...

    def read(self, value: Any, /) -> Any: ...


@dataclass(frozen=True)
class YesOrNo:
    text: str = "true or false"

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError(self.text)
        return value


@dataclass(frozen=True)
class Number:
    least: int
    most: int

    @property
    def text(self) -> str:
        return f"a number from {self.least} to {self.most}"

    def read(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not self.least <= value <= self.most:
            raise ValueError(self.text)
        return value


@dataclass(frozen=True)
class Word:
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        return "one of " + ", ".join(f'"{word}"' for word in self.words)

    def read(self, value: Any) -> str:
        if value not in self.words:
            raise ValueError(self.text)
        return str(value)


@dataclass(frozen=True)
class Paths:
    text: str = "a list of absolute paths"

    def read(self, value: Any) -> tuple[str, ...]:
        return _list(value, self.text, lambda path: is_path(path, PATH_MAX))


@dataclass(frozen=True)
class Places:
    """Where to listen: `/PATH`, `ADDRESS:PORT` or `[ADDRESS]:PORT`."""

    text: str = 'a list of places: "/PATH", "ADDRESS:PORT" or "[ADDRESS]:PORT"'

    def read(self, value: Any) -> tuple[str, ...]:
        return _list(value, self.text, lambda place: is_path(place, SOCKET_PATH_MAX) or is_endpoint(place))


def is_path(text: str, maximum: int) -> bool:
    return text.startswith("/") and "\0" not in text and len(text.encode()) < maximum and not text.endswith("/")


def is_endpoint(text: str) -> bool:
    try:
        endpoint(text)
    except ValueError:
        return False
    return True


def endpoint(text: str) -> tuple[str, int]:
    """Address and port. ValueError where it is none."""
    host, _, port = text.rpartition(":")
    address = ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    if (address.version == 6) != host.startswith("["):
        raise ValueError("an IPv6 address is written in brackets")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError("no port")
    return str(address), int(port)


def _list(value: Any, text: str, right: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > LIST_MAX:
        raise ValueError(text if not isinstance(value, list) else f"{text}, at most {LIST_MAX}")
    for each in value:
        if not isinstance(each, str) or not right(each):
            raise ValueError(f"{text}; {each!r} is none")
    return tuple(dict.fromkeys(value))
