# SPDX-License-Identifier: MIT
"""Damaged tables: never a crash, never a hang, never anything but found, unknown or unavailable.

Through the real system calls; tests/fuzz has millions of them, without.
"""

import contextlib
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resolver._table import ffi, lib

from .asking import QUESTIONS, View
from .conftest import ROOT
from .tables import LONG, MACHINES, Machine, publish, slot_bytes, table_bytes

SECONDS_FOR_ALL_QUESTIONS = 10
WHOLE = bytes(table_bytes())
SLOT_HEADER_WORDS = ffi.sizeof("struct slot_header") // 4

Ask = Callable[[bytes | bytearray], list[str]]


@pytest.fixture
def ask_apart(table_path: Path) -> Iterator[Ask]:
    """Asks everything of a table in another process, so that a crash fails the test and not pytest."""
    command = [sys.executable, "-m", "tests.nss.asking"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def ask(table: bytes | bytearray) -> list[str]:
            stdin.write(f"{publish(table_path, table)}\n")
            stdin.flush()
            readable, _, _ = select.select([stdout], [], [], SECONDS_FOR_ALL_QUESTIONS)
            assert readable, "the reader hangs"
            line = stdout.readline()
            assert line, f"the reader crashed: {process.wait(10)}"
            return line.rstrip("\n").split("\t")

        try:
            yield ask
        finally:
            process.kill()
            with contextlib.suppress(BrokenPipeError):
                stdin.close()


ODD_NUMBERS = st.one_of(
    st.sampled_from([0, 1, 2, 3, 4, 0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, 0x80000000, len(WHOLE), len(WHOLE) - 4]),
    st.integers(0, 300),
    st.integers(0, 0xFFFFFFFF),
)
WORDS = st.one_of(
    st.integers(0, 9),  # the file's header
    st.integers(1024, 1024 + SLOT_HEADER_WORDS - 1),
    st.integers(1024, 1024 + len(slot_bytes(MACHINES)) // 4 - 1),
)
IN_SUBPROCESS = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # one reader serves all examples


@IN_SUBPROCESS
@given(changes=st.lists(st.tuples(WORDS, ODD_NUMBERS), min_size=1, max_size=6))
def test_any_numbers_in_any_field(ask_apart: Ask, changes: list[tuple[int, int]]) -> None:
    table = bytearray(WHOLE)
    for word, number in changes:
        table[4 * word : 4 * word + 4] = number.to_bytes(4, sys.byteorder)
    assert len(ask_apart(table)) == len(QUESTIONS)


@IN_SUBPROCESS
@given(data=st.binary(min_size=1, max_size=2000), at=st.integers(0, len(WHOLE) - 2000))
def test_any_bytes_anywhere(ask_apart: Ask, data: bytes, at: int) -> None:
    table = bytearray(WHOLE)
    table[at : at + len(data)] = data
    assert len(ask_apart(table)) == len(QUESTIONS)


@IN_SUBPROCESS
@given(length=st.integers(0, len(WHOLE) - 1))
def test_a_file_cut_anywhere_is_no_table(ask_apart: Ask, length: int) -> None:
    answers = dict(zip(QUESTIONS, ask_apart(WHOLE[:length]), strict=True))
    assert answers.pop("uid 4294967294") in ("unknown", "unavailable")
    assert set(answers.values()) == {"unavailable"}


class Damaged:
    """The whole table as structs, to be damaged in one place."""

    def __init__(self, machines: list[Machine] = MACHINES) -> None:
        self.bytes = table_bytes(machines)
        self._base = ffi.from_buffer("uint8_t[]", self.bytes, require_writable=True)
        self.header = ffi.cast("struct table_header *", self._base)
        self.slot = ffi.cast("struct slot_header *", self._base + lib.TABLE_PAGE)

    def records(self, section: str, record: str) -> Any:
        offset = getattr(self.slot, section).offset
        return ffi.cast(f"{record} *", self._base + lib.TABLE_PAGE + offset)


def no_free_keys(table: Damaged) -> None:
    keys = table.records("name_keys", "uint32_t")
    for i in range(table.slot.name_keys.capacity):
        keys[i] = keys[i] or 1 << 31


def keys_of_nobody(table: Damaged) -> None:
    _change_keys(table, lambda key: key & 0xFF000003)


def keys_of_machines_beyond_the_last(table: Damaged) -> None:
    _change_keys(table, lambda key: key | table.slot.machines.capacity << 2)


def _change_keys(table: Damaged, change: Callable[[int], int]) -> None:
    for section in ("name_keys", "address_keys"):
        keys = table.records(section, "uint32_t")
        for i in range(getattr(table.slot, section).capacity):
            keys[i] = change(keys[i]) if keys[i] else 0


def circle_of_addresses(table: Damaged) -> None:
    addresses = table.records("addresses", "struct address_record")
    for i in range(table.slot.addresses.capacity):
        addresses[i].next = i


def circle_of_extents(table: Damaged) -> None:
    extents = table.records("extents", "struct extent_record")
    for i in range(table.slot.extents.capacity):
        extents[i].next, extents[i].length = i, 0


def more_addresses_at_hand_than_there_can_be(table: Damaged) -> None:
    machines = table.records("machines", "struct machine_record")
    for i in range(table.slot.machines.capacity):
        machines[i].inet_count = lib.INET_AT_HAND + 1


def names_without_end(table: Damaged) -> None:
    machines = table.records("machines", "struct machine_record")
    for i in range(table.slot.machines.capacity):
        ffi.memmove(machines[i].name, b"w" * 32, 32)


def details_without_end(table: Damaged) -> None:
    details = table.records("details", "struct detail_record")
    for i in range(table.slot.details.capacity):
        ffi.memmove(details[i].label, b"w" * 20, 20)
        ffi.memmove(details[i].name, b"w" * 68, 68)


def no_details(table: Damaged) -> None:
    table.slot.details.capacity = 0


def too_many_ranges(table: Damaged) -> None:
    table.slot.uid_ranges.capacity = table.header.slot_size // 16 + 1


def keys_no_power_of_two(table: Damaged) -> None:
    table.slot.name_keys.capacity -= 1
    table.slot.address_keys.capacity -= 1


def offsets_out_of_the_slot(table: Damaged) -> None:
    for section in ("machines", "details", "addresses", "extents", "name_keys", "address_keys", "uid_ranges"):
        getattr(table.slot, section).offset = table.header.slot_size - 4


def capacity_out_of_the_slot(table: Damaged) -> None:
    table.slot.machines.capacity = 0x7FFFFFFF


def offsets_out_of_line(table: Damaged) -> None:
    for section in ("name_keys", "uid_ranges"):
        getattr(table.slot, section).offset += 1


def ids_beyond_the_last(table: Damaged) -> None:
    ranges = table.records("uid_ranges", "struct range_record")
    machines = table.records("machines", "struct machine_record")
    extents = table.records("extents", "struct extent_record")
    for i in range(table.slot.uid_ranges.capacity):
        ranges[i].inside_first = 0xFFFFFFFF
    for i in range(table.slot.machines.capacity):
        machines[i].host_first = 0xFFFFFFFF
    for i in range(table.slot.extents.capacity):
        extents[i].host_first = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("damage", "questions"),
    [
        (keys_of_nobody, ["host web", "user vu-web-0", "address 10.0.0.2"]),
        (keys_of_machines_beyond_the_last, ["host web", "user vu-web-0", "address 10.0.0.2"]),
        (circle_of_addresses, ["host web"]),
        (circle_of_extents, ["user vu-web-100000", "group vg-web-0"]),
        (more_addresses_at_hand_than_there_can_be, ["host web", "address 10.0.0.2"]),
        (names_without_end, ["uid 1048576", "address 10.0.0.2"]),
        (details_without_end, ["uid 3145733", f"address {LONG.addresses[0].text}"]),
        (no_details, ["user vu-web-100000", "uid 3145733", f"host {LONG.name}"]),
        (too_many_ranges, ["uid 1048576", "uid 65536"]),
        (keys_no_power_of_two, ["host web", "host nosuch", "user vu-web-0", "address 10.0.0.2"]),
        (offsets_out_of_the_slot, ["host web", "uid 1048576", "address 10.0.0.2"]),
        (capacity_out_of_the_slot, ["host web", "uid 1048576"]),
        (offsets_out_of_line, ["host web", "uid 1048576"]),
        (ids_beyond_the_last, ["uid 1048577", "user vu-web-1", "user vu-web-100000"]),
    ],
)
def test_what_contradicts_the_grammar_is_no_answer(
    ask_apart: Ask, table_path: Path, damage: Callable[[Damaged], None], questions: list[str]
) -> None:
    table = Damaged()
    publish(table_path, table.bytes)
    with View(table_path) as whole:
        assert "unavailable" not in [whole.ask(question) for question in questions]
    damage(table)
    assert len(ask_apart(table.bytes)) == len(QUESTIONS)  # no crash: now it may be done here
    with View(table_path) as view:
        assert {question: view.ask(question) for question in questions} == dict.fromkeys(questions, "unavailable")


def test_a_search_among_keys_of_which_none_is_free_ends(table_path: Path) -> None:
    table = Damaged()
    no_free_keys(table)
    with View(publish(table_path, table.bytes)) as view:
        assert view.ask("host web").startswith("web ")
        assert view.ask("host nosuch") == "unknown"


def test_a_name_that_does_not_end_is_nobodys(table_path: Path) -> None:
    table = Damaged()
    names_without_end(table)
    with View(publish(table_path, table.bytes)) as view:
        assert view.ask("host web") == "unknown"


def test_an_address_answers_backwards_only_if_it_is_flagged_so(table_path: Path) -> None:
    table = Damaged()
    addresses = table.records("addresses", "struct address_record")
    for i in range(table.slot.addresses.capacity):
        addresses[i].flags &= ~lib.ADDRESS_REVERSE
    machines = table.records("machines", "struct machine_record")
    for i in range(table.slot.machines.capacity):
        machines[i].inet_reverse = 0
    with View(publish(table_path, table.bytes)) as view:
        assert view.ask("address 10.0.0.2") == view.ask("address fd00::2") == "unknown"
        assert view.ask("host web").startswith("web 10.0.0.2%0/0")
