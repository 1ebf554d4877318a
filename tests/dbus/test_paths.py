# SPDX-License-Identifier: MIT
"""Names as parts of object paths."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.dbus.paths import decode_label, encode_label, machine_path


@pytest.mark.parametrize(("name", "label"), [
    ("web", "web"), ("", "_"), (".host", "_2ehost"), ("a-b.c", "a_2db_2ec"), ("1st", "_31st"), ("a1", "a1"),
    ("_", "_5f"), ("é", "_c3_a9"), ("A", "A"),
])
def test_names_as_libsystemd_spells_them(name: str, label: str) -> None:
    assert encode_label(name) == label
    assert decode_label(label) == name


@given(st.text())
def test_every_text_comes_back(name: str) -> None:
    label = encode_label(name)
    assert re.fullmatch(r"[A-Za-z0-9_]+", label)
    assert decode_label(label) == name


@given(st.text())
def test_any_label_is_read_or_refused(label: str) -> None:
    name = decode_label(label)
    assert name is None or decode_label(encode_label(name)) == name


@pytest.mark.parametrize("label", ["", "_2", "a_", "_zz", "a-b", "a/b", "é", "_2e\n"])
def test_no_labels(label: str) -> None:
    assert decode_label(label) is None


def test_another_spelling_of_a_letter_is_read() -> None:
    assert decode_label("_77eb") == "web"


def test_a_machine_has_a_path() -> None:
    assert machine_path(".host") == "/org/freedesktop/machine1/machine/_2ehost"
