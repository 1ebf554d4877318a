# SPDX-License-Identifier: MIT
"""All machines, changed in one place. Each change returns what changed for readers, so that each of them is told.

A machine as readers see it is an Entry: the machine, its short label, and what it owns of that which only one machine
can have. A change to one machine can change the entries of others: ids and addresses that it leaves fall to the next.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from resolver.core.claims import Claims, ExtentClaims
from resolver.core.errors import MachineExists, NoSuchMachine
from resolver.core.idmap import Extent, to_host
from resolver.core.machine import ChosenAddress, Machine
from resolver.core.names import name_key, short_label
from resolver.core.users import GROUP_PREFIX, USER_PREFIX, IdAnswer, id_name, needs_label, split_id_name

MACHINES_MAX = 65536
"""Registered at once; systemd-machined's own limit. Each costs a few descriptors and kilobytes."""


class Entry(NamedTuple):
    """What readers see of a machine.

    `uid_extents` and `gid_extents` are the parts of its maps that it owns. `addresses` are its chosen ones;
    `reverse` is left where it owns the address. `contested`: another machine keeps it from ids of its maps. `alias` is
    its alias where no machine has that name, and none that was there before has the same alias.
    """

    machine: Machine
    label: str = ""
    uid_extents: tuple[Extent, ...] = ()
    gid_extents: tuple[Extent, ...] = ()
    addresses: tuple[ChosenAddress, ...] = ()
    contested: bool = False
    alias: str = ""

    @property
    def key(self) -> str:
        """The name in the form in which names compare."""
        return name_key(self.machine.name)


class Change(NamedTuple):
    """One entry that is not what it was. `before` is None for a new machine, `after` for one that is gone."""

    before: Entry | None
    after: Entry | None


class Registry:
    """Machines by name, leader, unit, uid, gid and address."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}  # in the order of registration
        self._by_leader: dict[int, str] = {}
        self._units: Claims[str] = Claims()
        self._labels: dict[str, str] = {}
        self._uids = ExtentClaims()
        self._gids = ExtentClaims()
        self._addresses: Claims[tuple[int, bytes]] = Claims()
        self._aliases: Claims[str] = Claims()
        self._contested: dict[str, None] = {}  # who waits for ids, in order

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    # Look-ups. Each returns None where there is no such machine, user or group.

    def by_name(self, name: str) -> Entry | None:
        return self._entries.get(name_key(name))

    def by_host_name(self, name: str) -> Entry | None:
        """By name, or else by alias: as look-ups of hosts find it."""
        key = self._aliases.owner(name_key(name))
        return self.by_name(name) or (None if key is None else self._entries[key])

    def by_leader(self, pid: int) -> Entry | None:
        key = self._by_leader.get(pid)
        return None if key is None else self._entries[key]

    def by_unit(self, unit: str) -> Entry | None:
        """The first machine of those in it."""
        key = self._units.owner(unit)
        return None if key is None else self._entries[key]

    def by_address(self, family: int, packed: bytes) -> Entry | None:
        key = self._addresses.owner((family, packed))
        return None if key is None else self._entries[key]

    def user_by_id(self, uid: int) -> IdAnswer | None:
        return self._by_id(USER_PREFIX, self._uids, uid)

    def group_by_id(self, gid: int) -> IdAnswer | None:
        return self._by_id(GROUP_PREFIX, self._gids, gid)

    def user_by_name(self, name: str) -> IdAnswer | None:
        return self._by_id_name(USER_PREFIX, name, lambda entry: entry.uid_extents)

    def group_by_name(self, name: str) -> IdAnswer | None:
        return self._by_id_name(GROUP_PREFIX, name, lambda entry: entry.gid_extents)

    def rivals(self, entry: Entry) -> list[str]:
        """The names of the machines that own ids of this one's maps."""
        keys = dict.fromkeys((*self._uids.owners(entry.machine.uid_map.extents),
                              *self._gids.owners(entry.machine.gid_map.extents)))
        keys.pop(entry.key, None)
        return [self._entries[key].machine.name for key in keys]

    # Changes. The first one returned is the machine's own.

    def add(self, machine: Machine) -> list[Change]:
        """Take in a machine. MachineExists where its name, in any case, or its leader is another one's."""
        key = name_key(machine.name)
        if key in self._entries:
            raise MachineExists(f"a machine {self._entries[key].machine.name} is registered already")
        if key in self._labels:
            # Its users would have the names of the other machine's users.
            raise MachineExists(f"{machine.name} stands for users of the machine {self._labels[key]}")
        if machine.leader.pid in self._by_leader:
            raise MachineExists(f"process {machine.leader.pid} is the leader of the machine "
                                f"{self._entries[self._by_leader[machine.leader.pid]].machine.name}")
        label = ""
        if needs_label(machine.name):
            label = short_label(machine.name, lambda text: text in self._entries or text in self._labels)
            self._labels[label] = key
        self._by_leader[machine.leader.pid] = key
        if machine.unit:
            self._units.claim(key, machine.unit)
        self._move_addresses(key, (), machine.chosen)
        if machine.alias:
            self._aliases.claim(key, machine.alias)
        uids, gids, contested = self._claim_ids(key, machine)
        change = self._enter(Change(None, Entry(machine, label, uids, gids, machine.chosen, contested)))
        return [change, *self._inherit(self._alias_owner(key))]

    def update(self, machine: Machine) -> list[Change]:
        """Put `machine`, with other maps or addresses, in the place of the one of its name, leader, unit, alias."""
        before = self._find(machine.name)
        old = before.machine
        if any(getattr(machine, name) != getattr(old, name) for name in ("name", "leader", "unit", "alias")):
            raise ValueError("name, leader, unit and alias of a registered machine never change")
        heirs = self._move_addresses(before.key, old.chosen, machine.chosen)
        after = before._replace(machine=machine)
        if (machine.uid_map, machine.gid_map) != (old.uid_map, old.gid_map):
            heirs.update(self._release_ids(before))
            after = self._claim_ids_again(after)
            heirs.pop(before.key, None)
        return [self._enter(Change(before, after)), *self._inherit(heirs)]

    def remove(self, name: str) -> list[Change]:
        """Let a machine go. NoSuchMachine where there is none by that name."""
        entry = self._find(name)
        machine = entry.machine
        heirs = self._move_addresses(entry.key, machine.chosen, ())
        if machine.alias and (heir := self._aliases.release(entry.key, machine.alias)):
            heirs[heir] = None
        heirs.update(self._alias_owner(entry.key))
        heirs.update(self._release_ids(entry))
        heirs.pop(entry.key, None)
        self._contested.pop(entry.key, None)
        del self._entries[entry.key]
        del self._by_leader[machine.leader.pid]
        if machine.unit:
            self._units.release(entry.key, machine.unit)
        if entry.label:
            del self._labels[entry.label]
        return [Change(entry, None), *self._inherit(heirs)]

    # Inside. `heirs` are the keys of machines that may now own what another one left.

    def _find(self, name: str) -> Entry:
        entry = self.by_name(name)
        if entry is None:
            raise NoSuchMachine(f"no machine {name!r} is registered")
        return entry

    def _enter(self, change: Change) -> Change:
        """Settle which addresses the entry owns, and whether its alias, and put it in."""
        assert change.after is not None
        machine, key = change.after.machine, change.after.key
        has_alias = (machine.alias != "" and machine.alias not in self._entries
                     and self._aliases.owner(machine.alias) == key)
        alias = machine.alias if has_alias else ""
        addresses = tuple(
            address if not address.reverse or self._addresses.owner((address.family, address.packed)) == key
            else address._replace(reverse=False) for address in machine.chosen)
        after = change.after
        if (alias, addresses) != (after.alias, after.addresses):
            after = after._replace(alias=alias, addresses=addresses)
        self._entries[key] = after
        return Change(change.before, after)

    def _alias_owner(self, key: str) -> dict[str, None]:
        """Whose alias is the name of a machine that comes or goes: that machine's name wins."""
        owner = self._aliases.owner(key)
        return {} if owner is None else {owner: None}

    def _inherit(self, heirs: dict[str, None]) -> Iterator[Change]:
        for key in heirs:
            before = after = self._entries[key]
            if before.contested:
                self._release_ids(before)
                after = self._claim_ids_again(before)
            change = self._enter(Change(before, after))
            if change.after != before:
                yield change

    def _claim_ids(self, key: str, machine: Machine) -> tuple[tuple[Extent, ...], tuple[Extent, ...], bool]:
        """An entry's uid_extents, gid_extents and contested."""
        uids, uids_contested = self._uids.claim(key, machine.uid_map.extents)
        gids, gids_contested = self._gids.claim(key, machine.gid_map.extents)
        contested = uids_contested or gids_contested
        if contested:
            self._contested.setdefault(key)
        else:
            self._contested.pop(key, None)
        return uids, gids, contested

    def _claim_ids_again(self, entry: Entry) -> Entry:
        uids, gids, contested = self._claim_ids(entry.key, entry.machine)
        return entry._replace(uid_extents=uids, gid_extents=gids, contested=contested)

    def _release_ids(self, entry: Entry) -> dict[str, None]:
        self._uids.release(entry.uid_extents)
        self._gids.release(entry.gid_extents)
        return dict(self._contested) if entry.uid_extents or entry.gid_extents else {}

    def _move_addresses(
        self, key: str, before: tuple[ChosenAddress, ...], after: tuple[ChosenAddress, ...]
    ) -> dict[str, None]:
        # What stays is not let go for a moment, or whoever waits for it would have it.
        old = dict.fromkeys((a.family, a.packed) for a in before if a.reverse)
        new = dict.fromkeys((a.family, a.packed) for a in after if a.reverse)
        for address in new:
            if address not in old:
                self._addresses.claim(key, address)
        released = (self._addresses.release(key, address) for address in old if address not in new)
        return {heir: None for heir in released if heir is not None}

    def _by_id(self, prefix: str, claims: ExtentClaims, host: int) -> IdAnswer | None:
        owner = claims.owner(host)
        return None if owner is None else self._id_answer(prefix, self._entries[owner[0]], host, owner[1])

    def _by_id_name(self, prefix: str, name: str, owned: Callable[[Entry], tuple[Extent, ...]]) -> IdAnswer | None:
        split = split_id_name(prefix, name)
        if split is None:
            return None
        machine, inside = split
        key = self._labels.get(machine, name_key(machine))
        entry = self._entries.get(key)
        host = None if entry is None else to_host(owned(entry), inside)
        if entry is None or host is None:
            return None
        answer = self._id_answer(prefix, entry, host, inside)
        # One id has one name: another case, another form or leading zeros are nobody's.
        return answer if answer.name == name else None

    @staticmethod
    def _id_answer(prefix: str, entry: Entry, host: int, inside: int) -> IdAnswer:
        return IdAnswer(entry.machine.name, id_name(prefix, entry.machine.name, entry.label, inside), host, inside)
