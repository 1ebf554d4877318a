# SPDX-License-Identifier: MIT
"""What a whole table answers, through the extension module: design, section 4."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from resolver._table import ffi, lib

from .asking import QUESTIONS, View, make_question
from .conftest import Compile
from .tables import LONG, MACHINES, Address, Machine, publish, table_bytes


@pytest.fixture
def view(table_path: Path) -> Iterator[View]:
    with View(publish(table_path, table_bytes())) as view:
        yield view


LONG_ADDRESSES = " ".join(f"10.0.1.{last}%0/2" for last in range(5))
WEB_HOST = "web 10.0.0.2%0/2 fd00::2%0/2 fe80::2%7/1"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("host web", WEB_HOST),
        ("host WEB", WEB_HOST),
        ("host web.", WEB_HOST),
        ("host www.example", WEB_HOST),
        ("host web..", "unknown"),
        ("host we", "unknown"),
        ("host webb", "unknown"),
        ("host ", "unknown"),
        ("host .", "unknown"),
        ("host db.EXAMPLE.org", "Db.example.org 10.0.0.3%0/2"),
        ("host db-417", "unknown"),  # a label is for users only
        ("host vm-1", "vm-1"),
        ("host a-Name-that-is-among-the-details", f"{LONG.name} {LONG_ADDRESSES}"),
        ("host a-name-that-is-among-the-detail", "unknown"),
        ("host a-name-that-1", "unknown"),
        ("address 10.0.1.2", f"{LONG.name} 10.0.1.2%0/2"),  # at hand
        ("address 10.0.1.3", f"{LONG.name} 10.0.1.3%0/2"),  # and not
        ("host " + "a" * 64, "unknown"),
        ("host " + "a" * 67, "unknown"),
        ("address 10.0.0.2", "web 10.0.0.2%0/2"),
        ("address fd00::2", "web fd00::2%0/2"),
        ("address fe80::2", "unknown"),  # not one of ADDRESS_REVERSE
        ("address ::ffff:10.0.0.2", "unknown"),
        ("address 10.0.0.4", "unknown"),
        ("user vu-web-0", "vu-web-0 web 1048576 0"),
        ("user vu-web-65535", "vu-web-65535 web 1114111 65535"),
        ("user vu-web-65536", "unknown"),
        ("user vu-web-100000", "vu-web-100000 web 16777216 100000"),  # of the second extent
        ("user vu-web-00", "unknown"),
        ("user vu-web-", "unknown"),
        ("user vu-web-+1", "unknown"),
        ("user vu-web-4294967295", "unknown"),
        ("user vu-web-4294967296", "unknown"),
        ("user vu-Web-0", "unknown"),
        ("user vu-www.example-0", "unknown"),
        ("user vu--0", "unknown"),
        ("user vu-0", "unknown"),
        ("user vu-", "unknown"),
        ("user vg-web-0", "unknown"),
        ("user root", "unknown"),
        ("user ", "unknown"),
        ("user vu-db-417-5", "vu-db-417-5 Db.example.org 3145733 5"),
        ("user vu-Db.example.org-5", "unknown"),
        ("user vu-a-name-that-1-5", f"vu-a-name-that-1-5 {LONG.name} 5242885 5"),
        ("group vg-web-0", "vg-web-0 web 2097152 0"),
        ("group vu-web-0", "unknown"),
        ("uid 1048576", "vu-web-0 web 1048576 0"),
        ("uid 1114111", "vu-web-65535 web 1114111 65535"),
        ("uid 1114112", "unknown"),
        ("uid 1048575", "unknown"),
        ("uid 16777216", "vu-web-100000 web 16777216 100000"),
        ("uid 3145733", "vu-db-417-5 Db.example.org 3145733 5"),
        ("uid 0", "unknown"),
        ("uid 65534", "unknown"),
        ("uid 4294967294", "unknown"),
        ("uid 4294967295", "unknown"),
        ("gid 2097152", "vg-web-0 web 2097152 0"),
        ("gid 1048576", "unknown"),
    ],
)
def test_answer(view: View, question: str, answer: str) -> None:
    assert view.ask(question) == answer


def test_ids_of_the_host_are_never_a_machines_whatever_the_table_says(table_path: Path) -> None:
    greedy = Machine(name="all", uids=[(0, 0, 4294967295)], gids=[(0, 0, 4294967295)])
    with View(publish(table_path, table_bytes([greedy]))) as view:
        assert view.ask("uid 65535") == "unknown"
        assert view.ask("uid 65536") == "vu-all-65536 all 65536 65536"
        assert view.ask("user vu-all-65535") == "unknown"
        assert view.ask("user vu-all-65536") == "vu-all-65536 all 65536 65536"
        assert view.ask("uid 4294967294") == "vu-all-4294967294 all 4294967294 4294967294"
        assert view.ask("uid 4294967295") == "unknown"
        assert view.ask("user vu-all-4294967294") == "vu-all-4294967294 all 4294967294 4294967294"


def test_the_label_serves_just_where_the_name_is_too_long(table_path: Path) -> None:
    # vu- + 17 + - + 10 digits is 31; with one letter more, ten digits do not fit and nine do
    machines = [
        Machine(name="a" * 17, label="label-1", uids=[(4000000000, 70000, 10)]),
        Machine(name="b" * 18, label="label-2", uids=[(0, 80000, 10), (4000000000, 90000, 10)]),
        Machine(name="c" * 40, uids=[(0, 100000, 10)]),
    ]
    with View(publish(table_path, table_bytes(machines))) as view:
        assert view.ask("uid 70000").split()[0] == f"vu-{'a' * 17}-4000000000"
        assert view.ask("uid 80000").split()[0] == f"vu-{'b' * 18}-0"
        assert view.ask("uid 90000").split()[0] == "vu-label-2-4000000000"
        assert view.ask("user vu-label-2-4000000000").split()[2] == "90000"
        assert view.ask("user vu-label-2-0") == "unknown"  # the name serves there
        assert view.ask("user vu-label-1-4000000000") == "unknown"
        assert view.ask("uid 100000") == "unknown"  # no label: rather none than a name that tools refuse


def test_as_many_addresses_as_the_layout_holds_and_not_one_more(table_path: Path) -> None:
    many = [Address(f"10.1.{i // 100}.{i % 100}") for i in range(lib.MACHINE_ADDRESSES_MAX + 1)]
    machines = [Machine(name="full", addresses=many[:-1]), Machine(name="over", addresses=many)]
    with View(publish(table_path, table_bytes(machines))) as view:
        assert view.ask("host full").split()[1:] == [f"{a.text}%0/2" for a in many[:-1]]
        assert view.ask("host over") == "unavailable"


@pytest.mark.parametrize("length", [1, 30, 31, 32, 33, 63, 64])
def test_names_of_any_length(table_path: Path, length: int) -> None:
    names = {kind * length: Machine(kind.upper() * length, alias=chr(ord(kind) + 2) * length) for kind in "ab"}
    with View(publish(table_path, table_bytes(list(names.values())))) as view:
        for name, machine in names.items():
            assert view.ask(f"host {name}") == view.ask(f"host {machine.alias}") == machine.name
            assert view.ask(f"host {name[:-1]}") == view.ask(f"host {name}{name[0]}") == "unknown"
            assert view.ask(f"host {name[:-1]}.") == "unknown"


V4, V6 = ("10.0.2.1", "10.0.2.2", "10.0.2.3", "10.0.2.4"), ("fd00::1", "fd00::2")


@pytest.mark.parametrize("order", [
    V4[:1], V4[:3], V4, (*V4[:3], V6[0]), (V4[0], V6[0], V4[1]), (V6[0], V4[0]), V6, (*V6, *V4), (*V4, *V6)])
def test_addresses_come_in_their_order_wherever_they_lie(table_path: Path, order: tuple[str, ...]) -> None:
    others = Machine("other", addresses=[Address(f"10.0.3.{n}") for n in range(5)])
    web = Machine("web", addresses=[Address(text, flags=2 * (number % 2)) for number, text in enumerate(order)])
    with View(publish(table_path, table_bytes([others, web]))) as view:
        assert view.ask("host web").split()[1:] == [f"{text}%0/{2 * (n % 2)}" for n, text in enumerate(order)]
        for number, text in enumerate(order):
            assert view.ask(f"address {text}") == (f"web {text}%0/2" if number % 2 else "unknown")


def test_an_empty_table_knows_nobody(table_path: Path) -> None:
    with View(publish(table_path, table_bytes([]))) as view:
        assert {view.ask(question) for question in QUESTIONS} == {"unknown"}
    zeros = table_bytes()
    zeros[lib.TABLE_PAGE :] = bytes(len(zeros) - lib.TABLE_PAGE)
    with View(publish(table_path, zeros)) as view:
        assert {view.ask(question) for question in QUESTIONS} == {"unknown"}


def test_many_machines_are_all_found(table_path: Path) -> None:
    machines = [
        Machine(name=f"m{i}", addresses=[Address(f"10.{i >> 8}.{i & 255}.1")], uids=[(0, (i + 2) << 16, 65536)])
        for i in range(3000)
    ]
    with View(publish(table_path, table_bytes(machines))) as view:
        for i in range(3000):
            assert view.ask(f"host m{i}") == f"m{i} 10.{i >> 8}.{i & 255}.1%0/2"
            assert view.ask(f"address 10.{i >> 8}.{i & 255}.1").startswith(f"m{i} ")
            assert view.ask(f"uid {((i + 2) << 16) + 9}") == f"vu-m{i}-9 m{i} {((i + 2) << 16) + 9} 9"


def test_a_question_that_is_none_is_not_answered(view: View) -> None:
    question = make_question("host web")
    question.layout = 2
    assert view.put(question) == "unavailable"
    question = make_question("host web")
    for kind in (0, 7, 4294967295):
        question.kind = kind
        assert view.put(question) == "unavailable"
    unterminated = make_question("host web")
    ffi.memmove(unterminated.name, b"w" * 68, 68)
    assert view.put(unterminated) == "unknown"
    stranger = make_question("address 10.0.0.2")
    stranger.family = 1
    assert view.put(stranger) == "unknown"


def test_hashes_fold_case_and_tell_families_apart() -> None:
    assert lib.table_hash_name(b"WEB", 3) == lib.table_hash_name(b"web", 3) != lib.table_hash_name(b"wed", 3)
    # a table outlives the program that wrote it: the hash is part of the layout
    assert (lib.table_hash_name(b"web", 3), lib.table_hash_name(b"", 0)) == (615064157, 1947474976)
    assert lib.table_hash_address(2, bytes(4)) != lib.table_hash_address(10, bytes(16))


def test_a_32_bit_program_reads_the_same(needs_m32: None, compile_c: Compile, table_path: Path) -> None:
    publish(table_path, table_bytes(MACHINES))
    asked = "".join(f"{question}\n" for question in QUESTIONS)
    answers = []
    for flags in (["-m32"], []):
        program = compile_c("reader.c", *flags)
        done = subprocess.run(
            [program, table_path], input=asked, capture_output=True, text=True, timeout=30, check=True
        )
        answers.append(done.stdout)
    with View(table_path) as view:
        expected = [view.ask(question) for question in QUESTIONS]
    assert answers[0].splitlines() == answers[1].splitlines() == expected
    assert len(set(expected)) > 12
