# SPDX-License-Identifier: MIT
"""What a fresh process gets of NSS: a program that prints a JSON object for each step when it is done.

    python -I -m resolver.doctor.child KIND ARGUMENT...

It may hang or crash in somebody's module. So it is run by children.py, and nothing imports it.
"""

import ctypes
import grp
import json
import os
import pwd
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

LIBRARY = "libnss_mymachines.so.2"

NOBODY = 65534

TUPLE_BYTES = 64 * 1024
"""For the shim's answer: more than 128 addresses take."""

SUCCESS = 1  # NSS_STATUS_SUCCESS, nss.h
NOTFOUND = 0


class _Tuple(ctypes.Structure):
    """struct gaih_addrtuple, nss.h."""


_Tuple._fields_ = [("next", ctypes.POINTER(_Tuple)), ("name", ctypes.c_char_p), ("family", ctypes.c_int),
                   ("address", ctypes.c_ubyte * 16), ("scope_id", ctypes.c_uint32)]


def step(name: str, work: Callable[[], Any]) -> Any:
    """Do it, and say how it went."""
    started = time.perf_counter()
    try:
        result, error = work(), None
    except (OSError, KeyError, UnicodeError, AttributeError) as failure:
        result, error = None, str(failure)
    print(json.dumps({"step": name, "result": result, "error": error, "seconds": time.perf_counter() - started}),
          flush=True)
    return result


def loaded() -> None:
    """The path of the library that the dynamic linker takes."""
    def work() -> str:
        ctypes.CDLL(LIBRARY)
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            return next(line.split(maxsplit=5)[5].strip() for line in maps if "libnss_mymachines" in line)

    step("loaded", work)


def readable(path: str) -> None:
    """Whether a user without rights can read a file."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)

    def work() -> int:
        with open(path, "rb") as file:
            return len(file.read(8))

    step("readable", work)


def host(name: str) -> None:
    """By the shim's entry point, and by getaddrinfo(3), which goes through nsswitch.conf."""
    step("dlopen", lambda: bool(ctypes.CDLL(LIBRARY)))
    step("shim", lambda: _ask_shim(name))
    for flags, label in ((0, "getaddrinfo"), (socket.AI_ADDRCONFIG, "getaddrinfo with AI_ADDRCONFIG")):
        step(label, lambda flags=flags: list(dict.fromkeys(  # type: ignore[misc]
            _text(*found[4]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=flags))))


def _text(address: str, _port: int, _flow: int = 0, scope_id: int = 0) -> str:
    """Of a socket's address (struct sockaddr_in6, ipv6(7)); the scope as a number, as the shim gives it."""
    return f"{address.partition('%')[0]}%{scope_id}" if scope_id else address


def _ask_shim(name: str) -> list[str]:
    call = ctypes.CDLL(LIBRARY)._nss_mymachines_gethostbyname4_r  # noqa: SLF001 - NSS names it so
    buffer = ctypes.create_string_buffer(TUPLE_BYTES)
    found, error, host_error = ctypes.POINTER(_Tuple)(), ctypes.c_int(), ctypes.c_int()
    status = call(name.encode(), ctypes.byref(found), buffer, ctypes.c_size_t(TUPLE_BYTES), ctypes.byref(error),
                  ctypes.byref(host_error), None)
    if status != SUCCESS:
        raise KeyError("it has no address" if status == NOTFOUND else "it is no machine's name")
    addresses = []
    while bool(found):
        length = 4 if found.contents.family == socket.AF_INET else 16
        text = socket.inet_ntop(found.contents.family, bytes(found.contents.address[:length]))
        addresses.append(_text(text, 0, 0, found.contents.scope_id))
        found = found.contents.next
    return addresses


def reverse(*addresses: str) -> None:
    for address in addresses:
        step(address, lambda address=address: socket.getnameinfo(  # type: ignore[misc]
            (address, 0), socket.NI_NAMEREQD)[0])


def ids(uid: str, gid: str) -> None:
    """A user and a group, to the name and back."""
    name = step("getpwuid", lambda: pwd.getpwuid(int(uid)).pw_name)
    if name is not None:
        step("getpwnam", lambda: pwd.getpwnam(name).pw_uid)
    group = step("getgrgid", lambda: grp.getgrgid(int(gid)).gr_name)
    if group is not None:
        step("getgrnam", lambda: grp.getgrnam(group).gr_gid)


def unknown(name: str) -> None:
    """A user and a group that nobody knows: every module is asked."""
    step("user", lambda: pwd.getpwnam(name).pw_uid)
    step("group", lambda: grp.getgrnam(name).gr_gid)


KINDS: dict[str, Callable[..., None]] = {"loaded": loaded, "readable": readable, "host": host, "reverse": reverse,
                                         "ids": ids, "unknown": unknown}


if __name__ == "__main__":
    KINDS[sys.argv[1]](*sys.argv[2:])
