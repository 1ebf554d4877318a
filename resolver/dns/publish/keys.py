# SPDX-License-Identifier: MIT
"""The key that updates are signed with, from a file."""

import os
import re

import dns.exception
import dns.name
import dns.tsig

KEY_FILE_MAX = 4096
"""Bytes. A key's file has some hundred."""

# key "name" { algorithm hmac-sha256; secret "..."; };   as tsig-keygen(8) of BIND writes it
_STATEMENT = re.compile(r'key\s+"?([^"\s{]+)"?\s*\{([^}]*)\}')
_ALGORITHM = re.compile(r'algorithm\s+"?([\w.-]+)"?\s*;')
_SECRET = re.compile(r'secret\s+"?([A-Za-z0-9+/=]+)"?\s*;')
# algorithm:name:secret   as keymgr(8) of Knot DNS writes it in a comment before its own form; nsupdate -y takes it
_LINE = re.compile(r"^\s*#?\s*([\w-]+):([^\s:]+):([A-Za-z0-9+/=]+)\s*$", re.MULTILINE)


class InvalidKey(ValueError):
    """The file holds no key that can be used; the text says why."""


def load_key(path: str) -> dns.tsig.Key:
    """OSError, InvalidKey."""
    with open(path, encoding="ascii", errors="replace") as file:
        if os.fstat(file.fileno()).st_mode & 0o004:
            raise InvalidKey(f"{path} can be read by all: whoever reads it can change the zone (chmod o-r)")
        return parse_key(file.read(KEY_FILE_MAX), path)


def parse_key(text: str, path: str) -> dns.tsig.Key:
    """The first key in a file's text. InvalidKey, whose text names the file."""
    statement = _STATEMENT.search(text)
    line = _LINE.search(text)
    if statement is not None:
        name = statement[1]
        algorithm, secret = _ALGORITHM.search(statement[2]), _SECRET.search(statement[2])
        if algorithm is None or secret is None:
            raise InvalidKey(f"{path}: the key {name} has no algorithm, or no secret")
        found = name, algorithm[1], secret[1]
    elif line is not None:
        found = line[2], line[1], line[3]
    else:
        raise InvalidKey(f"{path} holds no key, neither as tsig-keygen writes it nor as algorithm:name:secret")
    name, kind, secret_text = found
    algorithm_name = dns.name.from_text(kind.lower())
    if algorithm_name not in dns.tsig.mac_sizes:
        raise InvalidKey(f"{path}: no algorithm is called {kind}")
    try:
        return dns.tsig.Key(name, secret_text, algorithm_name)
    except (dns.exception.DNSException, ValueError) as error:
        raise InvalidKey(f"{path}: {error}") from None
