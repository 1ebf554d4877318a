# SPDX-License-Identifier: MIT
"""Object paths: any text as one part of a path, as libsystemd spells it (sd_bus_path_encode(3))."""

import re

MANAGER = "/org/freedesktop/machine1"
MACHINES = f"{MANAGER}/machine"
IMAGES = f"{MANAGER}/image"

_PLAIN = re.compile(rb"[A-Za-z0-9]")
_ESCAPED = re.compile(r"(?:[A-Za-z0-9]|_[0-9a-fA-F]{2})+")


def encode_label(text: str) -> str:
    """Letters, and digits but for a leading one, stay; each other octet is _ and two digits; nothing at all is _."""
    octets = text.encode(errors="surrogateescape")
    return "".join(chr(octet) if _PLAIN.match(octets, at) and not (at == 0 and 0x30 <= octet <= 0x39)
                   else f"_{octet:02x}" for at, octet in enumerate(octets)) or "_"


def decode_label(label: str) -> str | None:
    """What encode_label() made `label` of; None where it is no label. Spellings that it would not choose are read."""
    if label == "_":
        return ""
    if not _ESCAPED.fullmatch(label):
        return None
    octets = re.sub(r"_(..)", lambda match: chr(int(match[1], 16)), label).encode("latin-1")
    return octets.decode(errors="surrogateescape")


def machine_path(name: str) -> str:
    return f"{MACHINES}/{encode_label(name)}"
