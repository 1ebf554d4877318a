# SPDX-License-Identifier: MIT
"""Changes of samples: of their bytes, as tests.dns.fuzz makes them, and of what JSON says.

Of changed bytes hardly any are still JSON, so that alone would try no more than the JSON parser.
"""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from tests.dns.fuzz import mutate

Change = Callable[[random.Random, bytes], bytes]

ODD: list[Any] = [
    None, True, False, 0, 1, -1, 17, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63, 2**64 - 1,
    2**64, -2**63, -2**63 - 1, 10**400, 0.5, 5.0, -0.0, 1e308, "", "x", "web", ".host", ".", "..", "/", "a" * 65,
    "x" * 3000, "é", "\0", "\n", "\x7f", "\ud800", "a/../b", "%s", "graceful", "container", "0" * 32, [], {}, [None],
    [[[]]], {"": 0}, {"a": {"b": []}}, list(range(40))]
"""Values that some reader somewhere has taken for another, or has not expected."""


def change_json(dice: random.Random, data: bytes) -> bytes:
    """A message of Varlink, or a file, that says something else; sometimes its bytes are changed on top."""
    end = b"\0" if data.endswith(b"\0") else b""
    try:
        said = json.loads(data.removesuffix(end))
    except (ValueError, RecursionError):
        return mutate(dice, data)
    for _ in range(dice.randrange(1, 4)):
        said = _changed(dice, said)
    try:
        written = json.dumps(said).encode() + end
    except (ValueError, RecursionError):    # a number of more digits than Python writes
        return mutate(dice, data)
    return mutate(dice, written) if dice.random() < 0.1 else written


def _changed(dice: random.Random, said: Any) -> Any:
    places = list(_places(said))
    if not places:
        return dice.choice(ODD)
    container, key = dice.choice(places)
    match dice.randrange(6):
        case 0 if isinstance(container, dict):
            container[dice.choice(("x", "", "pid", "name", "more", "oneway", "parameters"))] = container.pop(key)
        case 1:
            del container[key]
        case 2:
            other, at = dice.choice(places)
            container[key] = _copy(other[at])   # never the value that holds this one: that would be a circle
        case 3:
            container[key] = [container[key]] * dice.randrange(1, 3)
        case _:
            container[key] = _copy(dice.choice(ODD))
    return said


def _places(said: Any) -> Iterator[tuple[Any, Any]]:
    """Every value below, by what holds it."""
    if isinstance(said, (dict, list)):
        for key, value in list(said.items() if isinstance(said, dict) else enumerate(said)):
            yield said, key
            yield from _places(value)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(held) for key, held in value.items()}
    return [_copy(held) for held in value] if isinstance(value, list) else value
