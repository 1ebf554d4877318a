# SPDX-License-Identifier: MIT
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.core.machine import Machine, MachineClass, ProcessId
from resolver.host.state_format import (
    machine_from_private,
    machine_from_public,
    parse_public,
    private_text,
    public_text,
    says_all,
)

WEB = Machine(
    "web", MachineClass.CONTAINER, ProcessId(111, 36652, 1041, "47615db9a0db497686c66ebe1b69282c"),
    service="systemd-nspawn", id=bytes(range(16)), root_directory="/var/lib/machines/web", network_interfaces=(2, 30),
    unit="systemd-nspawn@web.service", owner=1000, realtime=1795352343615438, monotonic=1041127288, vsock_cid=7,
    ssh_address="vsock/7", ssh_private_key_path="/run/key",
)
# As machined 257 writes it.
MACHINED = b"""# This is private data. Do not parse.
NAME=web
SCOPE=systemd-nspawn@web.service
SERVICE=systemd-nspawn
ROOT=/var/lib/machines/web
ID=000102030405060708090a0b0c0d0e0f
LEADER=111
CLASS=container
REALTIME=1795352343615438
MONOTONIC=1041127288
NETIF=2 30
"""
PLAIN = replace(WEB, leader=ProcessId(111, 36652, None, "47615db9a0db497686c66ebe1b69282c"), owner=0, ssh_address="",
                ssh_private_key_path="")
# Any text of any Python program, lone surrogates included: a client's JSON may hold them.
any_text = st.text(st.characters(codec=None, exclude_categories=[]), max_size=60)


def test_the_public_file_says_what_machineds_says() -> None:
    ours, theirs = parse_public(public_text(WEB)), parse_public(MACHINED)
    assert theirs.items() <= ours.items()
    assert ours.keys() - theirs.keys() == {"LEADER_PIDFDID", "VSOCK_CID"}
    # Values that need no quotes have none: there are readers that go by lines.
    assert set(MACHINED.splitlines()[1:]) <= set(public_text(WEB).splitlines())


def test_the_public_file_keeps_secrets() -> None:
    text = public_text(WEB)
    assert b"key" not in text
    assert b"1000" not in text.replace(b"111", b"")


def test_a_public_file_says_all_where_nothing_is_left() -> None:
    assert says_all(public_text(PLAIN))
    assert machine_from_public(public_text(PLAIN)) == PLAIN
    assert not says_all(MACHINED)
    # To others it is a line more, of a key that they do not ask for.
    without = b"".join(line for line in public_text(PLAIN).splitlines(True) if not line.startswith(b"MYMACHINES_"))
    assert without == public_text(replace(PLAIN, owner=1000))


@pytest.mark.parametrize("more", [
    {"owner": 1000}, {"ssh_address": "vsock/7"}, {"ssh_private_key_path": "/run/key"}, {"control_address": "/run/c"},
    {"root_directory": "/a\nb"}, {"service": "\udcff"}, {"leader": ProcessId(111, None, 1041, "4761")},
    {"leader": ProcessId(111, 36652)},
])
def test_a_public_file_that_leaves_something_out_says_so(more: dict[str, object]) -> None:
    machine = replace(PLAIN, **more)  # type: ignore[arg-type]
    assert not says_all(public_text(machine))
    assert machine_from_private(private_text(machine)) == machine


def test_machineds_file_is_a_machine() -> None:
    assert machine_from_public(MACHINED) == replace(
        WEB, leader=ProcessId(111), owner=0, vsock_cid=None, ssh_address="", ssh_private_key_path="")


def test_the_private_file_has_all() -> None:
    assert machine_from_private(private_text(WEB)) == WEB
    least = Machine("web", MachineClass.VM, ProcessId(1))
    assert machine_from_private(private_text(least)) == least
    assert machine_from_public(public_text(least)) == least


ODD = ["/a b", "/a  b ", "/a\\b", "/a\\nb", '/a"b', "/a'b", "/a#b", "#a", "/a;b", "/$a`b`", "/ä", "=",
       '"', '""', "'a'", "\\"]


@pytest.mark.parametrize("root", ODD)
def test_an_odd_value_survives_in_public(root: str) -> None:
    assert machine_from_public(public_text(replace(WEB, root_directory=root))).root_directory == root


def test_odd_values_as_machined_reads_them() -> None:
    """machined 257 was started upon such a file, and told the value as it is here."""
    machine = replace(WEB, root_directory="/a \"b\" \\n $c `d` 'e' #f ä ", unit="machine-a\\x2db.scope")
    lines = public_text(machine).decode().splitlines()
    assert 'ROOT="/a \\"b\\" \\\\n \\$c \\`d\\` \'e\' #f ä "' in lines
    assert 'SCOPE="machine-a\\\\x2db.scope"' in lines


@pytest.mark.parametrize("root", ["/a\nCLASS=vm", "/a\r", "/a\0b", "/a\x1b[1m", "/\udcff"])
def test_what_no_reader_can_take_alike_is_in_the_private_file_alone(root: str) -> None:
    machine = replace(WEB, root_directory=root)
    assert b"ROOT" not in public_text(machine)
    assert parse_public(public_text(machine))["CLASS"] == "container"
    assert machine_from_private(private_text(machine)) == machine


@given(any_text, any_text, any_text)
def test_no_value_becomes_a_key(root: str, service: str, unit: str) -> None:
    machine = replace(WEB, root_directory=root, service=service, unit=unit)
    text = public_text(machine)
    assert machine_from_private(private_text(machine)) == machine
    text.decode()  # or systemd refuses the file
    # A reader that goes by lines and knows no quotes finds each key once.
    keys = [line.partition(b"=")[0] for line in re.split(rb"[\n\r\v\f]", text)[1:] if line]
    assert len(keys) == len(set(keys))
    plain = replace(PLAIN, root_directory=root, service=service, unit=unit)
    if says_all(public_text(plain)):
        assert machine_from_public(public_text(plain)) == plain
    back = machine_from_public(text)
    assert (back.name, back.leader.pid, back.machine_class) == ("web", 111, MachineClass.CONTAINER)
    assert back.root_directory in (root, "")
    assert back.service in (service, "")
    assert back.unit in (unit, "")


def test_machineds_escapes_are_undone() -> None:
    found = parse_public(b"ROOT=/a\\x20b\\nc\\\\d\\303\\244\\\"e\\'f\nSCOPE=machine-foo\\\\x2dbar.scope\n")
    assert found == {"ROOT": "/a b\nc\\dä\"e'f", "SCOPE": "machine-foo\\x2dbar.scope"}


def test_what_is_no_line_is_left_out() -> None:
    text = b"\xff\n# A=1\n;B=2\n  NAME=web  \r\nlower=1\nX\n=1\nROOT='a b'\nCLASS=1\nCLASS=\"c\nX2=\"a\\\"b\\n\""
    assert parse_public(text) == {"NAME": "web", "ROOT": "a b", "CLASS": '"c', "X2": 'a"b\\n'}


BAD_PUBLIC = [b"", b"\0" * 100, b"NAME=web\nCLASS=contai", b"NAME=web\nCLASS=container\n",
              *(re.sub(pattern, new, MACHINED) for pattern, new in [
                  (b"LEADER=111", b"LEADER=0"), (b"LEADER=111", b"LEADER=-5"), (b"LEADER=111", b"LEADER=1_1"),
                  (b"LEADER=111", b"LEADER=4294967297"), (b"LEADER=111", b"LEADER=" + b"9" * 5000),
                  (b"CLASS=container", b"CLASS=host"), (b"CLASS=container", b"CLASS=pod"),
                  (b"NAME=web", b"NAME=../web"), (b"NAME=web", b"NAME=a..b"), (b"NAME=web", b"NAME="),
                  (b"ID=0001", b"ID=zz"), (b"NETIF=2", b"NETIF=-2"), (b"NETIF=2", b"NETIF=0"),
                  (b"REALTIME=1", b"REALTIME=x")])]


@pytest.mark.parametrize("data", BAD_PUBLIC, ids=range(len(BAD_PUBLIC)))
def test_a_bad_public_file_is_one_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        machine_from_public(data)


BAD_PRIVATE = [b"", b"\0", b"[]", b"null", b"{}", private_text(WEB)[:-30], b"[" * 60000, b'{"leader": {}}',
               *(re.sub(pattern, new, private_text(WEB)) for pattern, new in [
                   (b'"owner": 1000', b'"owner": "root"'), (b'"owner": 1000', b'"owner": true'),
                   (b'"owner": 1000', b'"owner": -1'), (b'"owner": 1000', b'"owner": 1.5'),
                   (b'"owner": 1000', b'"owner": NaN'), (b'"pid": 111', b'"pid": 0'),
                   (b'"service": "', b'"service": 1, "": "'), (b'"name": "web"', b'"name": "/"'),
                   (b'"class": "container"', b'"class": "host"')])]


@pytest.mark.parametrize("data", BAD_PRIVATE, ids=range(len(BAD_PRIVATE)))
def test_a_bad_private_file_is_one_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        machine_from_private(data)


def test_missing_and_unknown_keys_are_fine() -> None:
    least = b'{"name": "web", "class": "vm", "leader": {"pid": 5, "later": 1}, "later": [1]}'
    assert machine_from_private(least) == Machine("web", MachineClass.VM, ProcessId(5))
    public = b"NAME=web\nCLASS=vm\nLEADER=5\nLATER=1\n"
    assert machine_from_public(public) == Machine("web", MachineClass.VM, ProcessId(5))
    assert machine_from_public(b"NAME=web\nCLASS=vm\nLEADER=5\nUNIT=a.scope\n").unit == "a.scope"


@given(st.binary(max_size=300))
def test_any_bytes_are_a_machine_or_one_error(data: bytes) -> None:
    parse_public(data)
    for read in (machine_from_public, machine_from_private):
        try:
            read(data)
        except ValueError:
            pass
