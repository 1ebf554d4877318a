# SPDX-License-Identifier: MIT
"""The shim's entry points, called through ctypes the way glibc calls them."""

import ctypes
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SUCCESS, NOTFOUND, UNAVAIL, TRYAGAIN = 1, 0, -1, -2  # enum nss_status
HOST_NOT_FOUND, NO_DATA, NETDB_INTERNAL, NETDB_SUCCESS = 1, 4, -1, 0  # netdb.h
UNTOUCHED = 4711
"""What errno and the like hold before a call."""


class Hostent(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("aliases", ctypes.POINTER(ctypes.c_char_p)),
        ("family", ctypes.c_int),
        ("length", ctypes.c_int),
        ("addresses", ctypes.POINTER(ctypes.c_void_p)),
    )


class Passwd(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("password", ctypes.c_char_p),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("gecos", ctypes.c_char_p),
        ("home", ctypes.c_char_p),
        ("shell", ctypes.c_char_p),
    )


class Group(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("password", ctypes.c_char_p),
        ("gid", ctypes.c_uint32),
        ("members", ctypes.POINTER(ctypes.c_char_p)),
    )


class Tuple(ctypes.Structure):
    pass


Tuple._fields_ = (
    ("next", ctypes.POINTER(Tuple)),
    ("name", ctypes.c_char_p),
    ("family", ctypes.c_int),
    ("address", ctypes.c_uint8 * 16),
    ("scope_id", ctypes.c_uint32),
)


@dataclass
class Reply:
    """What a call left behind. `value` is what the entry point's structs say, None without SUCCESS."""

    status: int
    errnop: int
    h_errnop: int
    errno: int
    value: Any = None


@dataclass
class Space:
    """A caller's buffer of a size, at an alignment, between guard bytes. glibc's structs must be put into it alone."""

    size: int = 8192
    misaligned: int = 0
    _memory: Any = field(init=False)

    GUARD = 64

    def __post_init__(self) -> None:
        self._memory = ctypes.create_string_buffer(b"\xa5" * (self.size + 2 * self.GUARD + 16))
        base = ctypes.addressof(self._memory) + self.GUARD
        self.address = base + (-base % 16) + self.misaligned

    def assert_guards_whole(self) -> None:
        start = ctypes.addressof(self._memory)
        before = ctypes.string_at(start, self.address - start)
        end = self.address + self.size
        after = ctypes.string_at(end, start + len(self._memory) - 1 - end)
        assert set(before + after) == {0xA5}, "written outside of the buffer"

    def holds(self, pointer: Any) -> bool:
        address = pointer if isinstance(pointer, int) else ctypes.cast(pointer, ctypes.c_void_p).value
        return address is not None and self.address <= address < self.address + self.size


class Shim:
    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path, use_errno=True)

    def _call(self, name: str, *arguments: Any, space: Space, netdb: bool, after: tuple[Any, ...] = ()) -> Reply:
        errnop, h_errnop = ctypes.c_int(UNTOUCHED), ctypes.c_int(UNTOUCHED)
        function = getattr(self._library, f"_nss_mymachines_{name}")
        place = (ctypes.c_void_p(space.address), ctypes.c_size_t(space.size), ctypes.byref(errnop))
        ctypes.set_errno(UNTOUCHED)
        status = function(*arguments, *place, *((ctypes.byref(h_errnop),) if netdb else ()), *after)
        reply = Reply(status, errnop.value, h_errnop.value, ctypes.get_errno())
        space.assert_guards_whole()
        return reply

    def _hostent(self, name: str, *arguments: Any, space: Space, after: tuple[Any, ...] = ()) -> Reply:
        host = Hostent()
        reply = self._call(name, *arguments, ctypes.byref(host), space=space, netdb=True, after=after)
        if reply.status == SUCCESS:
            assert space.holds(host.aliases)
            assert space.holds(host.addresses)
            assert ctypes.cast(host.addresses, ctypes.c_void_p).value % ctypes.alignment(ctypes.c_void_p) == 0  # type: ignore[operator]
            addresses: list[str] = []
            while (pointer := host.addresses[len(addresses)]) is not None:
                assert space.holds(pointer)
                assert pointer % 4 == 0
                addresses.append(str(ipaddress.ip_address(ctypes.string_at(pointer, host.length))))
            assert host.aliases[0] is None
            assert host.length == (4 if host.family == socket.AF_INET else 16)
            reply.value = (host.name.decode(), host.family, addresses)
        return reply

    def gethostbyname(self, name: str, space: Space | None = None) -> Reply:
        return self._hostent("gethostbyname_r", name.encode(), space=space or Space())

    def gethostbyname2(self, name: str, family: int, space: Space | None = None) -> Reply:
        return self._hostent("gethostbyname2_r", name.encode(), family, space=space or Space())

    def gethostbyname3(self, name: str, family: int, space: Space | None = None) -> Reply:
        ttl, canonical = ctypes.c_int32(UNTOUCHED), ctypes.c_char_p()
        after = (ctypes.byref(ttl), ctypes.byref(canonical))
        reply = self._hostent("gethostbyname3_r", name.encode(), family, space=space or Space(), after=after)
        if reply.status == SUCCESS:
            assert canonical.value is not None
            reply.value = (*reply.value, ttl.value, canonical.value.decode())
        return reply

    def gethostbyaddr(self, address: str, space: Space | None = None) -> Reply:
        packed = ipaddress.ip_address(address).packed
        family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
        return self._hostent("gethostbyaddr_r", packed, len(packed), family, space=space or Space())

    def gethostbyaddr2(self, address: str, space: Space | None = None) -> Reply:
        packed = ipaddress.ip_address(address).packed
        family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
        ttl = ctypes.c_int32(UNTOUCHED)
        after = (ctypes.byref(ttl),)
        reply = self._hostent("gethostbyaddr2_r", packed, len(packed), family, space=space or Space(), after=after)
        if reply.status == SUCCESS:
            reply.value = (*reply.value, ttl.value)
        return reply

    def gethostbyname4(self, name: str, space: Space | None = None, preset: bool = False) -> Reply:
        space = space or Space()
        ttl, first = ctypes.c_int32(UNTOUCHED), Tuple(family=UNTOUCHED)
        pointer = ctypes.pointer(first) if preset else ctypes.POINTER(Tuple)()
        after = (ctypes.byref(ttl),)
        reply = self._call(
            "gethostbyname4_r", name.encode(), ctypes.byref(pointer), space=space, netdb=True, after=after
        )
        if reply.status != SUCCESS:
            assert bool(pointer) == preset
            assert first.family == UNTOUCHED
            return reply
        assert ttl.value == 0
        assert preset == (ctypes.addressof(pointer.contents) == ctypes.addressof(first))
        found: list[tuple[str, int]] = []
        canonical, current = pointer.contents.name, pointer
        while bool(current):
            one = current.contents
            assert space.holds(current) or one.family == first.family
            assert ctypes.addressof(one) % ctypes.alignment(Tuple) == 0
            packed = bytes(one.address)[: 4 if one.family == socket.AF_INET else 16]
            found.append((str(ipaddress.ip_address(packed)), one.scope_id))
            current = one.next
        reply.value = (canonical.decode(), found)
        return reply

    def _passwd(self, name: str, key: Any, space: Space) -> Reply:
        passwd = Passwd()
        reply = self._call(name, key, ctypes.byref(passwd), space=space, netdb=False)
        if reply.status == SUCCESS:
            reply.value = tuple(getattr(passwd, field) for field, _ in Passwd._fields_)
            for offset in (Passwd.name.offset, Passwd.password.offset, Passwd.shell.offset):
                assert space.holds(ctypes.c_void_p.from_address(ctypes.addressof(passwd) + offset).value)
        return reply

    def getpwnam(self, name: str, space: Space | None = None) -> Reply:
        return self._passwd("getpwnam_r", name.encode(), space or Space())

    def getpwuid(self, uid: int, space: Space | None = None) -> Reply:
        return self._passwd("getpwuid_r", ctypes.c_uint32(uid), space or Space())

    def _group(self, name: str, key: Any, space: Space) -> Reply:
        group = Group()
        reply = self._call(name, key, ctypes.byref(group), space=space, netdb=False)
        if reply.status == SUCCESS:
            assert group.members[0] is None
            reply.value = (group.name, group.password, group.gid)
        return reply

    def getgrnam(self, name: str, space: Space | None = None) -> Reply:
        return self._group("getgrnam_r", name.encode(), space or Space())

    def getgrgid(self, gid: int, space: Space | None = None) -> Reply:
        return self._group("getgrgid_r", ctypes.c_uint32(gid), space or Space())


Look = Callable[[Space], Reply]
