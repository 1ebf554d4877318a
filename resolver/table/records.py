# SPDX-License-Identifier: MIT
"""What a machine's records hold: tuples of fields in the order of nss_module/table.h. Indices are the caller's."""

from resolver._table import lib
from resolver.core.idmap import Extent
from resolver.core.machine import ChosenAddress
from resolver.core.names import name_key
from resolver.core.registry import Entry

Record = tuple[object, ...]


def names_of(entry: Entry) -> list[tuple[int, str]]:
    """The names by which look-ups find a machine, each with its enum name_kind. The first is its own."""
    names = [(lib.NAME_MACHINE, name_key(entry.machine.name))]
    if entry.label:
        names.append((lib.NAME_LABEL, entry.label))
    if entry.alias:
        names.append((lib.NAME_ALIAS, entry.alias))
    return names


def hash_of_name(name: str) -> int:
    raw = name.encode()
    return int(lib.table_hash_name(raw, len(raw)))


def hash_of_address(address: ChosenAddress) -> int:
    return int(lib.table_hash_address(address.family, _sixteen(address.packed)))


def name_record(hashed: int, kind: int, machine: int, following: int, name: str) -> Record:
    """`following` is the next one in its bucket."""
    return hashed, kind, machine, following, name.encode()


def address_record(hashed: int, machine: int, following: int, next_in_bucket: int, address: ChosenAddress) -> Record:
    """`following` is the machine's next one."""
    flags = lib.ADDRESS_SCOPED * address.scoped | lib.ADDRESS_REVERSE * address.reverse
    return (machine, following, hashed, next_in_bucket, address.family, address.scope_id, flags,
            _sixteen(address.packed))


def extent_record(extent: Extent, following: int) -> Record:
    """`following` is the next one of the same machine and kind."""
    return extent.inside_first, extent.length, extent.host_first, following


def range_record(extent: Extent, machine: int) -> tuple[int, int, int, int]:
    return extent.host_first, extent.length, extent.inside_first, machine


def _sixteen(packed: bytes) -> bytes:
    return packed.ljust(16, b"\0")
