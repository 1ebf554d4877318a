# SPDX-License-Identifier: MIT
"""The registry against a plain model, and its changes against what look-ups say before and after."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from resolver.core.addresses import AF_INET
from resolver.core.errors import MachineExists, NoSuchMachine
from resolver.core.idmap import Extent, IdMap
from resolver.core.machine import ChosenAddress, Machine, MachineClass, ProcessId
from resolver.core.names import alias_of, short_label
from resolver.core.registry import Change, Entry, Registry

MACHINE_NAMES = ["web", "Web", "db", "a.dotted.name", "long-" + "x" * 55, "ab", "qemu-1-web", "lxc-2-Web",
                 "qemu-3-db"]
ADDRESSES = [ChosenAddress(AF_INET, bytes((10, 0, 0, n))) for n in range(3)] + [
    ChosenAddress(AF_INET, bytes((10, 0, 0, 0)), reverse=False)]
MAPS = [IdMap(), IdMap((Extent(0, 100000, 100),)), IdMap((Extent(0, 100050, 100), Extent(500, 70000, 1))),
        IdMap((Extent(0, 0, 200000),))]


def machine(name: str, pid: int = 2, **fields: object) -> Machine:
    return Machine(name, MachineClass.CONTAINER, ProcessId(pid), alias=alias_of(name),
                   **fields)  # type: ignore[arg-type]


def test_look_ups() -> None:
    registry = Registry()
    web = machine("Web", 7, unit="web.scope", uid_map=MAPS[1], gid_map=MAPS[1], chosen=(ADDRESSES[1],))
    [change] = registry.add(web)
    assert change.before is None
    entry = change.after
    assert entry is not None
    assert registry.by_name("WEB.") is entry
    assert registry.by_leader(7) is entry
    assert registry.by_unit("web.scope") is entry
    assert registry.by_address(AF_INET, bytes((10, 0, 0, 1))) is entry
    assert registry.by_name("db") is registry.by_leader(8) is registry.by_unit("") is None
    assert registry.remove("web") == [Change(entry, None)]
    assert registry.by_name("web") is registry.by_leader(7) is registry.by_unit("web.scope") is None


def test_a_unit_is_the_first_machines_and_then_the_nexts() -> None:
    registry = Registry()
    for pid, name in enumerate(["web", "db", "ab"], 2):
        registry.add(machine(name, pid, unit="shared.service"))
    owners = []
    for name in ["db", "web", "ab"]:
        entry = registry.by_unit("shared.service")
        assert entry is not None
        owners.append(entry.key)
        registry.remove(name)
    assert owners == ["web", "web", "ab"]
    assert registry.by_unit("shared.service") is None


def test_a_name_and_a_leader_are_one_machines() -> None:
    registry = Registry()
    registry.add(machine("web", 7))
    with pytest.raises(MachineExists):
        registry.add(machine("WEB", 8))
    with pytest.raises(MachineExists):
        registry.add(machine("db", 7))
    with pytest.raises(NoSuchMachine):
        registry.remove("db")


def test_a_label_is_never_a_live_machines_name() -> None:
    long_name = "x" * 40
    label = short_label(long_name, lambda _: False)
    registry = Registry()
    registry.add(machine(label, 7))
    [change] = registry.add(machine(long_name, 8))
    assert change.after is not None
    assert change.after.label not in ("", label)
    other = Registry()
    other.add(machine(long_name, 8))
    with pytest.raises(MachineExists):
        other.add(machine(label, 7))


def test_the_first_keeps_an_address_though_its_others_change() -> None:
    registry = Registry()
    registry.add(machine("web", 7, chosen=(ADDRESSES[0],)))
    registry.add(machine("db", 8, chosen=(ADDRESSES[0],)))
    changes = registry.update(machine("web", 7, chosen=(ADDRESSES[1], ADDRESSES[0])))
    assert len(changes) == 1
    owner = registry.by_address(AF_INET, ADDRESSES[0].packed)
    assert owner is not None
    assert owner.machine.name == "web"
    _, inherited = registry.remove("web")
    assert inherited.after is not None
    assert inherited.after.addresses[0].reverse


class Model(RuleBasedStateMachine):
    """Machines come, change and go; ids and addresses belong to the first that has them."""

    machines = Bundle("machines")

    @initialize()
    def begin(self) -> None:
        self.registry = Registry()
        self.entries: dict[str, Entry] = {}
        self.pid = 1

    def apply(self, changes: list[Change]) -> None:
        for change in changes:
            key = (change.after or change.before).key  # type: ignore[union-attr]
            assert self.entries.get(key) == change.before
            assert change.before != change.after
            if change.after is None:
                del self.entries[key]
            else:
                self.entries[key] = change.after

    @rule(target=machines, name=st.sampled_from(MACHINE_NAMES), ids=st.sampled_from(MAPS),
          chosen=st.lists(st.sampled_from(ADDRESSES), max_size=3, unique_by=lambda a: a.packed))
    def add(self, name: str, ids: IdMap, chosen: list[ChosenAddress]) -> object:
        self.pid += 1
        new = machine(name, self.pid, uid_map=ids, gid_map=MAPS[1], chosen=tuple(chosen))
        try:
            self.apply(self.registry.add(new))
        except MachineExists:
            assert name.lower() in self.entries
            return multiple()
        return name

    @rule(name=machines, ids=st.sampled_from(MAPS),
          chosen=st.lists(st.sampled_from(ADDRESSES), max_size=3, unique_by=lambda a: a.packed))
    def update(self, name: str, ids: IdMap, chosen: list[ChosenAddress]) -> None:
        entry = self.registry.by_name(name)
        if entry is not None:
            new = replace(entry.machine, uid_map=ids, chosen=tuple(chosen), realtime=entry.machine.realtime + 1)
            self.apply(self.registry.update(new))

    @rule(name=consumes(machines))
    def remove(self, name: str) -> None:
        if self.registry.by_name(name) is not None:
            self.apply(self.registry.remove(name))

    @invariant()
    def the_changes_told_everything(self) -> None:
        assert {entry.key: entry for entry in self.registry} == self.entries

    @invariant()
    def an_alias_is_the_first_ones_where_no_machine_has_the_name(self) -> None:
        for alias in ("web", "db"):
            having = [entry for entry in self.registry if entry.machine.alias == alias]
            by_name = self.registry.by_name(alias)
            assert self.registry.by_host_name(alias) is (by_name or next(iter(having), None))
            assert [entry for entry in self.registry if entry.alias == alias] == ([] if by_name else having[:1])

    @invariant()
    def whatever_somebody_has_somebody_owns(self) -> None:
        for host in (65535, 65536, 70000, 100000, 100049, 100050, 100099, 100100, 100149, 199999):
            having = [e for e in self.registry if e.machine.uid_map.to_inside(host) is not None and host >= 65536]
            owner = self.registry.user_by_id(host)
            assert (owner is None) == (not having)
            if owner is not None:
                assert owner.machine in [e.machine.name for e in having]
                assert self.registry.user_by_name(owner.name) == owner
        for address in ADDRESSES[:3]:
            having = [e for e in self.registry if address in e.machine.chosen]
            entry = self.registry.by_address(AF_INET, address.packed)
            assert (entry is None) == (not having)
            assert [e for e in having if address in e.addresses] == ([] if entry is None else [entry])


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@given(st.binary(max_size=16))
def test_any_address_may_be_asked_for(packed: bytes) -> None:
    assert Registry().by_address(AF_INET, packed) is None


def test_rivals_are_those_who_own_some_id_of_a_map() -> None:
    registry = Registry()

    def add(name: str, pid: int, *extents: tuple[int, int, int]) -> Entry:
        ids = IdMap(tuple(Extent(*extent) for extent in extents))
        [change, *_] = registry.add(Machine(name, MachineClass.CONTAINER, ProcessId(pid), uid_map=ids, gid_map=ids))
        assert change.after is not None
        return change.after

    add("first", 10, (0, 100000, 1000))
    add("second", 11, (0, 200000, 1000))
    beside = add("beside", 12, (0, 101000, 1000), (1000, 199000, 1000))
    across = add("across", 13, (0, 0, 65536), (65536, 100999, 2), (70000, 200999, 1))
    assert registry.rivals(beside) == []
    assert registry.rivals(across) == ["first", "beside", "second"]
    registry.remove("first")
    assert registry.rivals(across) == ["beside", "second"]
