# SPDX-License-Identifier: MIT
"""The table that is written says, through the reader that every process uses, what the registry says."""

import contextlib
import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resolver._table import ffi, lib
from resolver.core.addresses import AF_INET, AF_INET6
from resolver.core.errors import MachineExists
from resolver.core.idmap import Extent, IdMap
from resolver.core.machine import ChosenAddress, Machine, MachineClass, ProcessId
from resolver.core.names import alias_of
from resolver.core.registry import Registry
from resolver.table import file as table_file
from resolver.table.reader import TableReader, TableUnavailable
from resolver.table.records import Parts, machine_record
from resolver.table.use import Keys, Use
from resolver.table.whole import AT_ONCE
from resolver.table.writer import TableWriter
from tests.lab.killing import killed_at_each_line

NAMES = ["web", "Db", "qemu-1-web", "lxc-2-web", "a.dotted.name", "x" * 60, "long-" + "y" * 20]
ADDRESSES = [ChosenAddress(AF_INET, bytes((10, 0, 0, n))) for n in range(4)] + [
    ChosenAddress(AF_INET6, bytes((0xfd, *range(14), n))) for n in range(3)] + [
    ChosenAddress(AF_INET6, bytes((0xfe, 0x80, *range(14))), 7, scoped=True, reverse=False),
    ChosenAddress(AF_INET, bytes((169, 254, 0, 1)), 8, scoped=True, reverse=False)]
MAPS = [IdMap(), IdMap((Extent(0, 100000, 65536),)), IdMap((Extent(0, 150000, 10), Extent(1000, 70000, 5), Extent(
    5000, 1587085312, 65536))), IdMap((Extent(0, 0, 200000),))]
IDS = (0, 1000, 65535, 65536, 70000, 70004, 70005, 99999, 100000, 150000, 150010, 165535, 165536, 199999, 200000,
       1587085312, 1587150847, 1587150848, 2**32 - 2, 2**32 - 1)


def machine(name: str, pid: int, **fields: Any) -> Machine:
    return Machine(name, MachineClass.CONTAINER, ProcessId(pid), alias=alias_of(name), **fields)


def reader_of(path: Path) -> TableReader:
    return TableReader(str(path), owner=os.geteuid())


def assert_same(reader: TableReader, registry: Registry) -> None:
    """Every question that the registry can be asked, asked of the table."""
    for entry in registry:
        name = entry.machine.name
        assert reader.host_by_name(name.upper() + ".") == (name, entry.addresses)
        if entry.alias:
            assert reader.host_by_name(entry.alias) == (name, entry.addresses)
    for absent in [n for n in NAMES if registry.by_host_name(n) is None]:
        assert reader.host_by_name(absent) is None
    for address in ADDRESSES:
        owner = registry.by_address(address.family, address.packed)
        assert reader.host_by_address(address.family, address.packed) == (
            None if owner is None else (owner.machine.name, (address,)))
    for number in IDS:
        user, group = registry.user_by_id(number), registry.group_by_id(number)
        assert reader.user_by_id(number) == user
        assert reader.group_by_id(number) == group
        for name in {answer.name for answer in (user, group) if answer is not None}:
            assert reader.user_by_name(name) == registry.user_by_name(name)
            assert reader.group_by_name(name) == registry.group_by_name(name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table-2"


@pytest.fixture
def writer(path: Path) -> Iterator[tuple[TableWriter, Registry]]:
    registry = Registry()
    writer = TableWriter(str(path), registry)
    writer.reset()
    yield writer, registry
    writer.close(unlink=True)


class Model(RuleBasedStateMachine):
    """A long life of a table: machines come, change and go; it grows; its daemon restarts."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "table-2"
        self.registry = Registry()
        self.writer = TableWriter(str(self.path), self.registry)
        self.writer.reset()
        self.reader = reader_of(self.path)
        self.pid = 1

    @rule(name=st.sampled_from(NAMES), uids=st.sampled_from(MAPS), gids=st.sampled_from(MAPS),
          chosen=st.lists(st.sampled_from(ADDRESSES), unique=True))
    def register(self, name: str, uids: IdMap, gids: IdMap, chosen: list[ChosenAddress]) -> None:
        self.pid += 1
        new = machine(name, self.pid, uid_map=uids, gid_map=gids, chosen=tuple(chosen))
        try:
            self.writer.publish(self.registry.add(new))
        except MachineExists:
            old = self.registry.by_name(name)
            assert old is not None
            self.writer.publish(self.registry.update(
                replace(old.machine, uid_map=uids, gid_map=gids, chosen=tuple(chosen))))

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: str) -> None:
        if self.registry.by_name(name) is not None:
            self.writer.publish(self.registry.remove(name))

    @rule()
    def restart(self) -> None:
        inode = self.path.stat().st_ino
        self.writer.close(unlink=False)
        self.writer = TableWriter(str(self.path), self.registry)
        self.writer.reset()
        assert self.path.stat().st_ino == inode  # processes need not map anew

    @rule(count=st.integers(100, 400))
    def grow(self, count: int) -> None:
        """Machines beyond the capacity, and away again."""
        for number in range(count):
            self.pid += 1
            self.writer.publish(self.registry.add(machine(f"m{number}", self.pid)))
        assert self.reader.host_by_name(f"m{count - 1}") == (f"m{count - 1}", ())
        for number in range(count):
            self.writer.publish(self.registry.remove(f"m{number}"))

    @invariant()
    def the_table_says_what_the_registry_says(self) -> None:
        assert_same(self.reader, self.registry)

    @invariant()
    def no_key_is_left_behind(self) -> None:
        use, parts = self.writer._use, [Parts.of(entry) for entry in self.registry]
        assert sum(map(bool, use.name_keys.words)) == sum(len(of.keys) for of in parts)
        assert sum(map(bool, use.address_keys.words)) == sum(len(of.reverse) for of in parts)

    def teardown(self) -> None:
        if hasattr(self, "writer"):
            self.writer.close(unlink=True)
            self.directory.cleanup()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


def test_a_writer_killed_half_way_leaves_the_old_answers(path: Path, writer: tuple[TableWriter, Registry]) -> None:
    table, registry = writer
    table.publish(registry.add(machine("web", 2, chosen=(ADDRESSES[0],), uid_map=MAPS[1], gid_map=MAPS[1])))
    reader = reader_of(path)
    assert_same(reader, registry)
    slot = table._begin()  # and never commits
    for index in range(16):
        slot.fill("machines", index, [machine_record(Parts(name=b"torn"), ())])
    assert_same(reader, registry)
    successor = TableWriter(str(path), registry)
    successor.reset()
    assert_same(reader, registry)
    successor.publish(registry.add(machine("Db", 3, chosen=(ADDRESSES[1],))))
    assert_same(reader, registry)
    successor.close(unlink=False)


STEPS = (table_file.TableFile.create, table_file.TableFile.appear, table_file.TableFile.retire,
         table_file.TableFile.unlink, table_file.TableFile.close, table_file._retire_aside, TableWriter._replace,
         TableWriter.close)


@pytest.mark.parametrize("act", ["grow", "withdraw"])
def test_killed_at_each_step_misleads_no_reader(path: Path, act: str) -> None:
    """Not even one that has mapped the file which was to be replaced, and has looked at the path a moment ago."""
    # Not for reverse look-ups, which only the first of the machines would have.
    old, new = (address._replace(reverse=False) for address in ADDRESSES[:2])
    registry = Registry()
    for number in range(60):
        registry.add(machine(f"m{number}", number + 2, chosen=(old,)))
    grown = Registry()
    for number in range(70):
        grown.add(machine(f"m{number}", number + 2, chosen=(new,)))

    def child() -> None:
        writer = TableWriter(str(path), grown)
        writer._table = table_file.TableFile.adopt(str(path))
        if act == "grow":
            writer.reset()
        else:
            writer.close(unlink=True)

    def prepare() -> TableReader:
        path.unlink(missing_ok=True)
        writer = TableWriter(str(path), registry)
        writer.reset()
        writer.close(unlink=False)
        reader = reader_of(path)
        assert reader.host_by_name("m0") == ("m0", (old,))
        return reader

    reader = prepare()
    deaths = []
    for number in killed_at_each_line(child, *STEPS):
        deaths.append(number)
        with contextlib.suppress(TableUnavailable):  # then the daemon is asked
            assert reader.host_by_name("m0") in (("m0", (old,)), ("m0", (new,)))
        successor = TableWriter(str(path), grown)
        successor.reset()
        successor.publish(grown.remove("m0"))
        assert reader.host_by_name("m0") is None
        assert reader.host_by_name("m69") is not None
        assert os.listdir(path.parent) == ["table-2"]
        successor.publish(grown.add(machine("m0", 2, chosen=(new,))))
        successor.close(unlink=True)
        reader = prepare()
    print(len(deaths) - 1, "deaths")
    assert len(deaths) > 8


def test_a_table_that_cannot_appear_leaves_the_old_one(path: Path, writer: tuple[TableWriter, Registry],
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    table, registry = writer
    table.publish(registry.add(machine("m0", 1)))
    reader = reader_of(path)

    def refuse(*_args: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "rename", refuse)
    many = [change for number in range(1, 1000) for change in registry.add(machine(f"m{number}", number + 1))]
    with pytest.raises(OSError, match="Read-only"):
        table.publish(many)
    assert reader.host_by_name("m0") is not None
    monkeypatch.setattr(os, "unlink", refuse)
    table.close(unlink=True)  # what cannot be taken away is not believed any more
    monkeypatch.undo()
    with pytest.raises(TableUnavailable):
        reader.host_by_name("m0")


def test_an_orderly_stop_takes_the_answers_away(path: Path, writer: tuple[TableWriter, Registry]) -> None:
    table, registry = writer
    table.publish(registry.add(machine("web", 2)))
    reader = reader_of(path)
    assert reader.host_by_name("web") == ("web", ())
    table.close(unlink=True)
    assert not path.exists()
    with pytest.raises(TableUnavailable):
        reader.host_by_name("web")


def test_without_room_nothing_changes(path: Path, writer: tuple[TableWriter, Registry],
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    table, registry = writer

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    published = 0
    with contextlib.suppress(OSError):
        for published in range(1000):
            table.publish(registry.add(machine(f"m{published}", published + 2)))
    assert 0 < published < 999
    reader = reader_of(path)
    assert reader.host_by_name(f"m{published - 1}") is not None
    assert reader.host_by_name(f"m{published}") is None
    assert os.listdir(path.parent) == ["table-2"]
    monkeypatch.undo()
    table.reset()
    assert reader_of(path).host_by_name(f"m{published}") is not None


@pytest.mark.parametrize("damage", ["short", "magic", "retired", "mode", "symlink"])
def test_a_file_that_is_no_predecessors_is_replaced(path: Path, damage: str) -> None:
    registry = Registry()
    first = TableWriter(str(path), registry)
    first.reset()
    first.close(unlink=False)
    inode = path.stat().st_ino
    match damage:
        case "short":
            os.truncate(path, 5000)
        case "magic":
            with path.open("r+b") as f:
                f.write(b"somebody")
        case "retired":
            with path.open("r+b") as f:
                f.seek(36)
                f.write(b"\1")
        case "mode":
            path.chmod(0o666)
        case "symlink":
            path.rename(path.with_name("other"))
            path.symlink_to("other")
    registry.add(machine("web", 2))
    second = TableWriter(str(path), registry)
    second.reset()
    assert not path.is_symlink()
    assert path.stat().st_ino != inode
    assert reader_of(path).host_by_name("web") == ("web", ())
    second.close(unlink=True)


def test_a_table_whose_sections_lie_elsewhere_is_taken_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another version may have put them: processes have it mapped, and need not map anew."""
    registry = Registry()
    registry.add(machine("web", 2, chosen=(ADDRESSES[0],), uid_map=MAPS[1], gid_map=MAPS[1]))
    monkeypatch.setattr(table_file, "LINE", 128)
    first = TableWriter(str(path), registry)
    first.reset()
    assert first._table is not None
    elsewhere = first._table.offsets()
    first.close(unlink=False)
    reader = reader_of(path)
    assert_same(reader, registry)
    inode = path.stat().st_ino
    monkeypatch.undo()
    second = TableWriter(str(path), registry)
    second.reset()
    assert second._table is not None
    assert second._table.offsets() != elsewhere
    assert_same(reader, registry)
    for number, name in enumerate(("Db", "lxc-2-web"), 3):  # in either slot
        second.publish(registry.add(machine(name, number, chosen=(ADDRESSES[1],))))
        assert_same(reader, registry)
    assert path.stat().st_ino == inode
    second.close(unlink=True)


def test_a_machine_is_in_one_line(writer: tuple[TableWriter, Registry]) -> None:
    """What most look-ups give of it. Else they wait for memory more often."""
    table, registry = writer
    name, ids = "n" * lib.NAME_AT_HAND, IdMap((Extent(0, 1 << 20, 65536),))
    chosen = tuple(ChosenAddress(AF_INET, bytes((10, 0, 0, n))) for n in range(lib.INET_AT_HAND))
    table.publish(registry.add(machine(name, 2, uid_map=ids, gid_map=ids, chosen=chosen)))
    assert table._table is not None
    assert [offset % table_file.LINE for offset in table._table.offsets().values()] == [0] * len(table_file.SECTIONS)
    assert ffi.sizeof("struct machine_record") == table_file.LINE
    place = table._use.places[name]
    assert (place.addresses, place.uid_extents, place.gid_extents) == ((), (), ())
    details = table._slots[int(table._table.header.done) & 1].peek("details", place.machine)
    assert bytes(ffi.buffer(details.name)) == bytes(68)


def test_nothing_is_lost_however_machines_come_and_go(writer: tuple[TableWriter, Registry]) -> None:
    """No record and no key: a table that did not grow goes on not growing."""
    table, registry = writer
    maps = IdMap(tuple(Extent(n * 10, (1 << 20) + n * 100, 10) for n in range(8)))
    many = tuple(ChosenAddress(AF_INET, bytes((10, 0, 0, n))) for n in range(40))
    for number in range(500):
        name = f"lxc-{number}-{'x' * (number % 40)}"
        table.publish(registry.add(machine(name, number + 2, chosen=many, uid_map=maps, gid_map=maps)))
        table.publish(registry.update(replace(machine(name, number + 2), chosen=many[number % 40:] + many[:1])))
        table.publish(registry.remove(name))
    assert table._table is not None
    assert table._table.scale == 1
    use, empty = table._use, Use(1)
    for name in ("machines", "addresses", "extents"):
        assert getattr(use, name).left == getattr(empty, name).left
    assert not any(use.name_keys.words)
    assert not any(use.address_keys.words)
    slot = table._slots[int(table._table.header.done) & 1]
    for shape in table_file.SECTIONS:
        if shape.field in ("machines", "details", "name_keys", "address_keys"):
            assert not any(bytes(ffi.buffer(slot.peek(shape.field, 0), shape.capacity(1) * shape.record_size)))


@pytest.mark.parametrize("scale", [1, 2, 1024])
def test_what_is_not_looked_at_is_not_full(scale: int) -> None:
    capacity = {shape.field: shape.capacity(scale) for shape in table_file.SECTIONS}
    machines, addresses = capacity["machines"] - 1, capacity["addresses"] - 1
    assert 3 * machines <= capacity["name_keys"] * 3 // 4  # a name, a label, an alias
    assert lib.INET_AT_HAND * machines + addresses <= capacity["address_keys"] * 3 // 4
    one_at_hand = 1
    assert capacity["uid_ranges"] + capacity["gid_ranges"] - one_at_hand <= capacity["extents"] - 1


@pytest.mark.parametrize("much", ["machines", "addresses", "uids", "gids"])
def test_a_table_grows_when_a_section_is_full(path: Path, writer: tuple[TableWriter, Registry], much: str) -> None:
    table, registry = writer
    for number in range(16 if much == "machines" else 4):
        addresses = tuple(ChosenAddress(AF_INET6, bytes((0xfd, number, *range(13), n)))
                          for n in range(12 if much == "addresses" else 0))
        maps = {kind: IdMap(tuple(Extent(n * 10, (1 << 20) + (number * 10 + n) * 100, 10)
                                  for n in range(7 if much == f"{kind}s" else 0))) for kind in ("uid", "gid")}
        assert table._table is not None
        assert table._table.scale == 1  # until the last one
        table.publish(registry.add(machine(f"m{number}", number + 2, chosen=addresses, uid_map=maps["uid"],
                                           gid_map=maps["gid"])))
    assert table._table is not None
    assert table._table.scale == 2
    assert_same(reader_of(path), registry)
    table.close(unlink=True)
    successor = TableWriter(str(path), registry)
    successor.reset()
    assert successor._table is not None
    assert successor._table.scale == 2
    assert_same(reader_of(path), registry)
    successor.close(unlink=True)


class KeysModel(RuleBasedStateMachine):
    """However keys come and go, each is found from its place on before a free one, and no other is there."""

    @initialize()
    def begin(self) -> None:
        self.keys = Keys(16)
        self.there: list[tuple[int, int, int]] = []

    @precondition(lambda self: len(self.there) < 12)
    @rule(place=st.integers(0, 15), top=st.integers(0, 2), machine=st.integers(1, 4), kind=st.integers(0, 3))
    def add(self, place: int, top: int, machine: int, kind: int) -> None:
        key = (top << 24 | place, machine, kind)
        self.keys.add(*key)
        self.there.append(key)

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        key = self.there.pop(data.draw(st.integers(0, len(self.there) - 1)))
        before = list(self.keys.words)
        changed = self.keys.drop(*key)
        assert {at for at in range(16) if self.keys.words[at] != before[at]} <= set(changed)

    @rule(place=st.integers(0, 15))
    def drop_what_is_not_there(self, place: int) -> None:
        with pytest.raises(KeyError):
            self.keys.drop(9 << 24 | place, 1)

    @invariant()
    def each_is_found(self) -> None:
        words = list(self.keys.words)
        assert len([word for word in words if word]) == len(self.there)
        for hashed, machine, kind in self.there:
            from_place = words[hashed % 16:] + words[:hashed % 16]
            assert hashed >> 24 << 24 | machine << 2 | kind in from_place[:from_place.index(0)]


TestKeys = KeysModel.TestCase
TestKeys.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def test_tables_of_other_layouts_are_retired(path: Path) -> None:
    """Their readers, who live longer than a package, would believe them for ever."""
    for name in ("table-1", ".table-1.old", "table-10", ".table-1.new"):
        path.with_name(name).write_bytes(bytes(2 * lib.TABLE_PAGE))
    for name in ("table-x", "atable-1", "table-1.txt", "nss.sock"):
        path.with_name(name).write_bytes(b"")
    path.with_name("table-3").symlink_to("nss.sock")  # nobody else's file is touched
    with path.with_name("table-1").open("rb") as old:
        writer = TableWriter(str(path), Registry())
        writer.reset()
        old.seek(ffi.offsetof("struct table_header", "retired"))
        assert int.from_bytes(old.read(4), sys.byteorder) == 1
    os.link(path, path.with_name(".table-2.old"))  # as a writer leaves it that is killed before the new one appears
    writer.reset()
    assert reader_of(path).host_by_name("web") is None
    path.with_name(".table-2.old").unlink()
    assert set(os.listdir(path.parent)) == {"table-2", "table-3", "table-x", "atable-1", "table-1.txt", "nss.sock"}
    writer.close(unlink=True)


def test_a_table_has_no_holes_and_its_mode_is_fixed(path: Path, writer: tuple[TableWriter, Registry]) -> None:
    status = path.stat()
    assert status.st_blocks * 512 >= status.st_size
    assert status.st_mode & 0o7777 == 0o644


def test_a_restart_writes_all_and_goes_on(path: Path, writer: tuple[TableWriter, Registry]) -> None:
    """More machines than are handed over in one piece."""
    table, registry = writer
    for number in range(2 * AT_ONCE + 2):
        first = 100000 + number * 100
        ids = IdMap((Extent(0, first, 10), Extent(10, first + 50, 10)))
        addresses = (ChosenAddress(AF_INET, bytes((10, 1, number >> 8, number & 255))), ADDRESSES[-1])
        table.publish(registry.add(machine(f"m{number}", number + 2, uid_map=ids, gid_map=ids, chosen=addresses)))
    table.close(unlink=False)
    successor = TableWriter(str(path), registry)
    successor.reset()
    reader = reader_of(path)
    for number in (0, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1):
        successor.publish(registry.remove(f"m{number}"))
        successor.publish(registry.add(machine(f"new{number}", number + 10000, chosen=(ADDRESSES[number % 3],))))
    assert_same(reader, registry)
    for entry in registry:
        for answer in (registry.user_by_id(e.host_first + 1) for e in entry.uid_extents):
            assert answer is not None
            assert reader.user_by_id(answer.host_id) == reader.user_by_name(answer.name) == answer
            assert reader.group_by_id(answer.host_id) == registry.group_by_id(answer.host_id)
        for address in entry.addresses:
            found = reader.host_by_address(address.family, address.packed)
            assert not address.reverse or found == (entry.machine.name, (address,))
    successor.close(unlink=True)


def test_ten_thousand_machines_cost_a_change_what_it_changes(writer: tuple[TableWriter, Registry]) -> None:
    """Bytes that a publication touches, not seconds: the same with 10 machines and with 10,000."""
    table, registry = writer
    touched = []
    for number in range(10000):
        table.publish(registry.add(machine(f"m{number}", number + 2, chosen=(ADDRESSES[0],))))
        if number in (9, 9999):
            table.publish(registry.update(replace(machine(f"m{number}", number + 2), chosen=(ADDRESSES[1],))))
            touched.append(sum(length for _, length in table._behind))
    assert touched[1] <= touched[0] + 200
    assert table._table is not None
    assert table_file.file_size(table._table.scale) < lib.TABLE_SIZE_MAX


def test_changes_tells_once_of_what_was_published_and_of_what_went(tmp_path: Path) -> None:
    path, registry = tmp_path / "table", Registry()
    writer, changed = TableWriter(str(path), registry), reader_of(path).changes()
    assert not changed()  # there is none
    writer.reset()
    assert (changed(), changed()) == (True, False)
    writer.publish(registry.add(machine("web", 1)))
    assert (changed(), changed()) == (True, False)
    writer.close(unlink=True)
    assert (changed(), changed()) == (True, False)
