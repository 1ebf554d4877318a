# SPDX-License-Identifier: MIT
"""What the shim asks the daemon where the table cannot serve: one packet each way, in the grammar of answer.h."""

from collections.abc import Callable, Sequence
from typing import Any

from resolver._table import ffi, lib
from resolver.core.addresses import AF_INET, AF_INET6
from resolver.core.machine import ChosenAddress
from resolver.core.registry import Entry, Registry
from resolver.core.users import IdAnswer

QUESTION_SIZE = int(ffi.sizeof("struct question"))


def answer_packet(registry: Registry, packet: bytes) -> bytes | None:
    """The reply to a question; None where the packet is no question of this layout."""
    if len(packet) != QUESTION_SIZE:
        return None
    question = ffi.from_buffer("struct question *", packet)
    name = bytes(ffi.buffer(question.name))
    if question.layout != lib.PACKET_LAYOUT or b"\0" not in name:
        return None
    lookup = _LOOKUPS.get(question.kind)
    if lookup is None:
        return None
    # Names that are no ASCII are nobody's; as replacement characters they match nothing either.
    body = lookup(registry, question, name.partition(b"\0")[0].decode("ascii", "replace"))
    header = ffi.new("struct reply_header *")
    header.layout = lib.PACKET_LAYOUT
    header.kind = question.kind
    header.result = lib.ANSWER_UNKNOWN if body is None else lib.ANSWER_FOUND
    return bytes(ffi.buffer(header)) + (body or b"")


def _host_answer(entry: Entry, addresses: Sequence[ChosenAddress]) -> bytes:
    answer = ffi.new("struct host_answer *")
    answer.name = entry.machine.name.encode()
    answer.address_count = len(addresses)
    for given, address in zip(answer.addresses, addresses, strict=False):
        given.family = address.family
        given.scope_id = address.scope_id
        given.flags = lib.ADDRESS_SCOPED * address.scoped | lib.ADDRESS_REVERSE * address.reverse
        ffi.memmove(given.bytes, address.packed, len(address.packed))
    size = int(ffi.offsetof("struct host_answer", "addresses")) + len(addresses) * int(
        ffi.sizeof("struct answer_address"))
    return bytes(ffi.buffer(answer, size))


def _id_answer(found: IdAnswer | None) -> bytes | None:
    if found is None:
        return None
    answer = ffi.new("struct id_answer *")
    answer.machine = found.machine.encode()
    answer.name = found.name.encode()
    answer.host_id = found.host_id
    answer.inside_id = found.inside_id
    return bytes(ffi.buffer(answer))


def _host_by_name(registry: Registry, _question: Any, name: str) -> bytes | None:
    entry = registry.by_host_name(name)
    return None if entry is None else _host_answer(entry, entry.addresses)


def _host_by_address(registry: Registry, question: Any, _name: str) -> bytes | None:
    length = {AF_INET: 4, AF_INET6: 16}.get(question.family)
    if length is None:
        return None
    packed = bytes(question.bytes)[:length]
    entry = registry.by_address(question.family, packed)
    # gethostbyaddr(3) gives the address that was asked for, not the others of its host.
    return None if entry is None else _host_answer(entry, [a for a in entry.addresses if a.packed == packed])


_LOOKUPS: dict[int, Callable[[Registry, Any, str], bytes | None]] = {
    lib.QUESTION_HOST_BY_NAME: _host_by_name,
    lib.QUESTION_HOST_BY_ADDRESS: _host_by_address,
    lib.QUESTION_USER_BY_NAME: lambda registry, _question, name: _id_answer(registry.user_by_name(name)),
    lib.QUESTION_USER_BY_ID: lambda registry, question, _name: _id_answer(registry.user_by_id(question.id)),
    lib.QUESTION_GROUP_BY_NAME: lambda registry, _question, name: _id_answer(registry.group_by_name(name)),
    lib.QUESTION_GROUP_BY_ID: lambda registry, question, _name: _id_answer(registry.group_by_id(question.id)),
}
