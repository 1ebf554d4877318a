# SPDX-License-Identifier: MIT
"""Which names a machine may have, how two names compare, and what stands for a name that is too long for a user's."""

import re
from collections.abc import Callable, Collection
from functools import lru_cache

from resolver.core.errors import InvalidArgument

MACHINE_NAME_MAX = 64
"""HOST_NAME_MAX of Linux (gethostname(2)): a machine's name is a host name."""

DNS_LABEL_MAX = 63
"""Octets between two dots, RFC 1035 section 2.3.4."""

LABEL_MAX = 17
"""What a user name of 31 characters leaves: `vu-`, the label, `-`, ten digits."""

LABEL_HASH_DIGITS = 5
"""Base 36: 60 million values, so that two long names meet by chance on no real host."""

KEYS_KEPT = 256
"""Names whose keys are remembered: a registration asks for its machine's twenty times."""

_DNS_LABEL = rf"[A-Za-z0-9](?:[A-Za-z0-9-]{{0,{DNS_LABEL_MAX - 2}}}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*")
_NOT_IN_LABEL = re.compile(r"[^a-z0-9]+")
_LOCALHOST = re.compile(r"(?:.*\.)?localhost(?:\.localdomain[46]?)?")
_DECORATED = re.compile(r"(?:qemu|lxc|ch)-[0-9]+-(?P<name>.+)")  # libvirt's drivers that register machines
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


@lru_cache(KEYS_KEPT)
def name_key(name: str) -> str:
    """The form in which names compare: `Web`, `web` and `web.` are one machine. Total: any text has a key."""
    key = name.removesuffix(".")
    # Only ASCII letters have two cases in a host name (RFC 4343 section 3), and 'K' is no 'k'.
    lower = key.lower() if key.isascii() else key.translate(_ASCII_LOWER)
    return name if lower == name else lower  # mostly one and the same string, wherever it is kept


_ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def check_machine_name(name: str, own_names: Collection[str] = (), single_label: bool = False) -> str:
    """Return `name` where a machine may have it, else raise InvalidArgument.

    `own_names` are keys of the host's own names. `single_label` is for unprivileged registrants, so that none of them
    takes over github.com for the host.
    """
    if not name:
        raise InvalidArgument("name", "is empty")
    if len(name) > MACHINE_NAME_MAX:
        raise InvalidArgument("name", f"has {len(name)} characters, at most {MACHINE_NAME_MAX} are allowed")
    if not _HOST_NAME.fullmatch(name):
        raise InvalidArgument("name", "is no host name: letters, digits and '-', parted by single dots")
    if _LOCALHOST.fullmatch(name_key(name)):
        raise InvalidArgument("name", "is reserved: localhost and names under it mean this host")
    if name_key(name) in own_names:
        raise InvalidArgument("name", "is this host's own name")
    if single_label and "." in name:
        raise InvalidArgument("name", "holds a dot, which only root may register")
    return name


def alias_of(name: str, own_names: Collection[str] = ()) -> str:
    """The key of the name without what a machine manager put before it, empty where there is nothing to take away.

    libvirt registers its domain `web` as `qemu-3-web`, 3 being this run's number; and cuts what is too long, so that a
    name of full length may be a stranger's. An alias is a single label, and none of the names that nobody may have.
    """
    decorated = _DECORATED.fullmatch(name_key(name))
    if decorated is None or len(name) >= MACHINE_NAME_MAX:
        return ""
    try:
        return check_machine_name(decorated["name"], own_names, single_label=True)
    except InvalidArgument:
        return ""


def short_label(name: str, taken: Callable[[str], bool]) -> str:
    """What stands for `name` in user names that would be too long or hold a dot.

    At most LABEL_MAX characters of [a-z0-9-]: the beginning of the name and a few digits of its hash. The same name
    gets the same label at each registration, unless `taken` says that it means another machine.
    """
    import hashlib  # 3 MB, which the userdb process need not have: it makes no labels

    key = name_key(name)
    stem = _NOT_IN_LABEL.sub("-", key).strip("-")[: LABEL_MAX - LABEL_HASH_DIGITS - 1].rstrip("-")
    salt = 0
    while True:
        digest = hashlib.blake2s(f"{key}\0{salt}".encode(), digest_size=8).digest()
        label = f"{stem}-{_base36(int.from_bytes(digest, 'big'))}"
        if not taken(label):
            return label
        salt += 1


def _base36(number: int) -> str:
    digits = []
    for _ in range(LABEL_HASH_DIGITS):
        number, digit = divmod(number, 36)
        digits.append(_BASE36[digit])
    return "".join(digits)
