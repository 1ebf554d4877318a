# SPDX-License-Identifier: MIT
"""rtnetlink(7) as the kernel writes it."""

import struct

from resolver.host import netlink


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, payload: bytes, flags: int = 0, sequence: int = 7) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, sequence, 0) + payload + bytes(-len(payload) % 4)


def address(family: int, *attributes: bytes, flags: int = 0, kind: int = netlink.RTM_NEWADDR, index: int = 3,
            scope: int = 253, request: int = 0) -> bytes:
    return message(kind, struct.pack("=BBBBI", family, 24, flags, scope, index) + b"".join(attributes), request)


def link(*attributes: bytes, family: int = 0, kind: int = netlink.RTM_NEWLINK) -> bytes:
    return message(kind, struct.pack("=BxHiII", family, 1, 5, 0, 0) + b"".join(attributes))


def route(family: int, *attributes: bytes, length: int = 24, type_: int = 1, kind: int = netlink.RTM_NEWROUTE) -> bytes:
    return message(kind, struct.pack("=BBxxxxxBxxxx", family, length, type_) + b"".join(attributes))


def neighbour(family: int, *attributes: bytes, kind: int = netlink.RTM_NEWNEIGH, index: int = 3, state: int = 2,
              flags: int = 0) -> bytes:
    return message(kind, struct.pack("=BxxxiHBB", family, index, state, flags, 1) + b"".join(attributes))
