# SPDX-License-Identifier: MIT
"""os-release(5) as text: what a shell would take from it, and nothing that is an error."""

import shutil
import string
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.guest.os_release import parse_os_release

KEYS = st.text(string.ascii_uppercase + "_", min_size=1, max_size=8).map("X".__add__)
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=("C", "Z")) | st.just(" "))


@pytest.mark.parametrize(("content", "values"), [
    (b"", {}),
    (b"ID=debian\nVERSION_ID=\"13\"\n", {"ID": "debian", "VERSION_ID": "13"}),
    (b"NAME='Debian GNU/Linux'", {"NAME": "Debian GNU/Linux"}),
    (b"# ID=no\n;ID=no\n\nlower=no\nno assignment\nA-B=no\n=no\nID=yes", {"ID": "yes"}),
    (b"ID=one\nID=two", {"ID": "two"}),
    (b"ID=", {"ID": ""}),
    (b"ID=a\r\nNAME='b'\r\n", {"ID": "a", "NAME": "b"}),
    (b"  ID=a b \t\nNAME=\"c \" ", {"ID": "a b", "NAME": "c "}),
    (b'A="\\"\\\\\\$\\`\\x"\nB=\\"\\x\nC=\'\\x\'', {"A": '"\\$`\\x', "B": '"x', "C": "\\x"}),
    (b"A=b\\\nc\nD=\"e\\\nf\"", {"A": "bc", "D": "ef"}),
    (b"A=$HOME`id`$(id)\nB=\"${HOME}\"", {"A": "$HOME`id`$(id)", "B": "${HOME}"}),  # nothing is expanded
    (b"A=a\\", {"A": "a"}),
    (b"A='b\nID=c", {}),  # a value of two lines
    (b"A=\"b\\", {"A": "b\\"}),
    (b"ID=a\xff\nNAME=caf\xc3\xa9", {"ID": "a\ufffd", "NAME": "caf\u00e9"}),
    (b"A=\x1b[2J\nB=\0\nC=\xc2\x9b\nID=a", {"ID": "a"}),
    (b"A=\xe2\x80\xae\nID=a", {"ID": "a"}),  # the text direction of what follows
    (b"ID=good\nID='\x1b'", {}),
])
def test_examples(content: bytes, values: dict[str, str]) -> None:
    assert parse_os_release(content) == values


@given(st.binary() | st.text("A='\"\\\n \t$x").map(str.encode))
def test_any_bytes_are_some_assignments(content: bytes) -> None:
    for key, value in parse_os_release(content).items():
        assert set(key) <= {*string.ascii_uppercase, *string.digits, "_"}
        assert key
        assert value.isprintable()


@given(st.dictionaries(KEYS, PRINTABLE))
def test_what_is_quoted_comes_back(values: dict[str, str]) -> None:
    def double(text: str) -> str:
        return '"' + "".join(f"\\{c}" if c in '\\"$`' else c for c in text) + '"'

    def escaped(text: str) -> str:
        return "".join(f"\\{c}" for c in text)

    for quote in (double, escaped):
        assert parse_os_release("".join(f"{k}={quote(v)}\n" for k, v in values.items()).encode()) == values
    single = {key: value for key, value in values.items() if "'" not in value}
    assert parse_os_release("".join(f"{k}='{v}'\n" for k, v in single.items()).encode()) == single


@pytest.mark.parametrize("value", ['"a b"', "'a\"b'", r'"a\"b\\c\$d\`e"', r"a\ b", '""', r'"\a"', r"'\a'", r"a\'b"])
def test_a_shell_reads_the_same(value: str) -> None:
    shell = shutil.which("sh")
    assert shell
    code = f"X={value}\nprintf %s \"$X\""
    said = subprocess.run([shell, "-c", code], capture_output=True, check=True, timeout=20).stdout.decode()
    assert parse_os_release(f"X={value}\n".encode()) == {"X": said}


def test_the_longest_file_takes_no_time() -> None:
    """Linear, whatever it holds: none of these may run for minutes."""
    for unit in (b"\"", b"'", b"\\", b"A=", b"A=\"\\", b" ", b"\"\\\n", b"A=\"x"):
        parse_os_release(unit * (65536 // len(unit)))
        parse_os_release(b"A=\"" + unit * (65536 // len(unit)))
