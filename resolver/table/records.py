# SPDX-License-Identifier: MIT
"""What a machine's records hold: tuples of fields in the order of nss_module/table.h. Indices are the caller's."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

from resolver._table import ffi, lib
from resolver.core.addresses import AF_INET
from resolver.core.idmap import Extent
from resolver.core.machine import ChosenAddress
from resolver.core.names import name_key
from resolver.core.registry import Entry

Record = tuple[object, ...]
T = TypeVar("T")

# Found once: as attributes of the library they take longer than what is done with them.
INET_AT_HAND, NAME_AT_HAND = lib.INET_AT_HAND, lib.NAME_AT_HAND
EXTENT_OF_UIDS, EXTENT_OF_GIDS = lib.EXTENT_OF_UIDS, lib.EXTENT_OF_GIDS

# Bytes are given as long as their field: what cffi is not given stays as it was.
_DETAILS = ffi.new("struct detail_record *")
LABEL_SIZE, NAME_SIZE = len(_DETAILS.label), len(_DETAILS.name)


class Parts(NamedTuple):
    """An entry, split as the table has it: what the machine's record holds, and more. Without arguments, no entry."""

    name: bytes = b""
    label: bytes = b""
    alias: bytes = b""
    keys: tuple[tuple[int, str], ...] = ()  # names by which look-ups find the machine, each with its enum name_kind
    inet: tuple[ChosenAddress, ...] = ()
    more_addresses: tuple[ChosenAddress, ...] = ()
    reverse: tuple[ChosenAddress, ...] = ()  # those of both that have keys
    extent: Extent = Extent(0, 0, 0)
    extent_kinds: int = 0  # enum extent_kinds
    more_uid_extents: tuple[Extent, ...] = ()
    more_gid_extents: tuple[Extent, ...] = ()
    uid_extents: tuple[Extent, ...] = ()  # all
    gid_extents: tuple[Extent, ...] = ()

    @classmethod
    def of(cls, entry: Entry | None) -> "Parts":
        if entry is None:
            return NOTHING
        keys = [(lib.NAME_MACHINE, name_key(entry.machine.name))]
        if entry.label:
            keys.append((lib.NAME_LABEL, entry.label))
        if entry.alias:
            keys.append((lib.NAME_ALIAS, entry.alias))
        inet = count_at_hand(entry.addresses)
        extent, kinds = NOTHING.extent, 0
        uids, gids = entry.uid_extents, entry.gid_extents
        if uids or gids:
            extent = (uids or gids)[0]
            kinds = (EXTENT_OF_UIDS if uids else 0) | (EXTENT_OF_GIDS if gids and gids[0] == extent else 0)
        return cls(entry.machine.name.encode(), entry.label.encode(), entry.alias.encode(), tuple(keys),
                   entry.addresses[:inet], entry.addresses[inet:], tuple([a for a in entry.addresses if a.reverse]),
                   extent, kinds, uids[1:] if kinds & EXTENT_OF_UIDS else uids,
                   gids[1:] if kinds & EXTENT_OF_GIDS else gids, uids, gids)


NOTHING = Parts()


def count_at_hand(addresses: Sequence[ChosenAddress]) -> int:
    """How many of them, from the first on, the machine's record holds."""
    count = 0
    for address in addresses[:INET_AT_HAND]:
        if address.family != AF_INET or address.scoped:
            break
        count += 1
    return count


def hash_of_name(name: str) -> int:
    raw = name.encode()
    hashed: int = lib.table_hash_name(raw, len(raw))
    return hashed


def hash_of_address(address: ChosenAddress) -> int:
    hashed: int = lib.table_hash_address(address.family, address.packed.ljust(16, b"\0"))
    return hashed


def chain(indices: Sequence[int], values: Sequence[T]) -> Iterator[tuple[int, int, T]]:
    """Each one's index, the next one's, and the value."""
    return zip(indices, (*indices[1:], 0), values, strict=False)


def first(indices: Sequence[int]) -> int:
    """Of a chain; 0: it is empty."""
    return indices[0] if indices else 0


def machine_record(parts: Parts, more_addresses: Sequence[int]) -> Record:
    """With the indices of the addresses in the pool."""
    reverse, inet = 0, b""
    for at, address in enumerate(parts.inet):
        reverse |= address.reverse << at
        inet += address.packed
    extent, name = parts.extent, parts.name if len(parts.name) <= NAME_AT_HAND else b""
    return (len(parts.inet), reverse, parts.extent_kinds, 0, inet.ljust(4 * INET_AT_HAND, b"\0"),
            first(more_addresses), extent.inside_first, extent.length, extent.host_first,
            name.ljust(NAME_AT_HAND + 1, b"\0"))


def detail_record(parts: Parts, more_uid_extents: Sequence[int], more_gid_extents: Sequence[int]) -> Record:
    """With the indices of the extents in the pool."""
    name = parts.name if len(parts.name) > NAME_AT_HAND else b""
    return (first(more_uid_extents), first(more_gid_extents), parts.label.ljust(LABEL_SIZE, b"\0"),
            parts.alias.ljust(NAME_SIZE, b"\0"), name.ljust(NAME_SIZE, b"\0"))


NO_DETAILS = detail_record(NOTHING, (), ())


def address_record(following: int, address: ChosenAddress) -> Record:
    """`following` is the machine's next one."""
    flags = lib.ADDRESS_SCOPED * address.scoped | lib.ADDRESS_REVERSE * address.reverse
    return following, address.family, address.scope_id, flags, address.packed.ljust(16, b"\0")


def extent_record(following: int, extent: Extent) -> Record:
    """`following` is the next one of the same machine and kind."""
    return extent.inside_first, extent.length, extent.host_first, following


def range_record(extent: Extent, machine: int) -> tuple[int, int, int, int]:
    return extent.host_first, extent.length, extent.inside_first, machine
