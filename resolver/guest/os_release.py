# SPDX-License-Identifier: MIT
"""The text of an os-release file, by the rules of os-release(5). No input or output, and no text that is an error."""

import re

_KEY = re.compile(r"[ \t]*([A-Z0-9_]+)=[ \t]*")
# A piece of a value, as a shell reads it: in single quotes, in double quotes, an escaped character, plain text. A quote
# that nobody closes goes to the end of the text.
_PIECE = re.compile(r"""'([^']*)'? | "((?:[^"\\]+|\\.|\\\Z)*)"? | \\(.|\Z) | ([^'"\\\n]+)""", re.VERBOSE | re.DOTALL)
_ESCAPED_IN_QUOTES = re.compile(r'\\([\\"$`\n])')  # any other backslash there is itself (sh(1))


def parse_os_release(content: bytes) -> dict[str, str]:
    """The assignments, in their order; of several to one key the last counts. Total: other lines are passed over.

    What is no UTF-8 becomes U+FFFD. A value with characters that do not print (os-release(5) warns of them) is left
    out: these names go to terminals, JSON and D-Bus.
    """
    text = content.decode(errors="replace").replace("\r\n", "\n")
    values: dict[str, str] = {}
    position = 0
    while position < len(text):
        key = _KEY.match(text, position)
        if key is None:
            position = (text.find("\n", position) + 1) or len(text)
            continue
        value, position = _value(text, key.end())
        values.pop(key[1], None)
        if not value or value.isprintable():
            values[key[1]] = value
    return values


def _value(text: str, position: int) -> tuple[str, int]:
    """The value that begins at `position`, and where the line behind it begins."""
    value, kept = "", 0  # so many characters of it were quoted, and are kept where blanks at the end are cut
    while position < len(text) and text[position] != "\n":
        piece = _PIECE.match(text, position)
        assert piece is not None  # any character begins one
        position = piece.end()
        single, double, escaped, plain = piece.groups()
        if plain is not None:
            value += plain
            continue
        if escaped is not None:
            value += "" if escaped == "\n" else escaped
        elif double is not None:
            value += _ESCAPED_IN_QUOTES.sub(lambda escape: "" if escape[1] == "\n" else escape[1], double)
        else:
            value += single
        kept = len(value)
    return value[:kept] + value[kept:].rstrip(" \t"), position + 1
