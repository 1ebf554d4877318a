# SPDX-License-Identifier: MIT
"""What the two processes of a copy say to each other; and that neither believes the other."""

import errno
import os
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.core.idmap import NOBODY, Extent, IdMap
from resolver.files.entries import Entry, Kind
from resolver.guest.copy_packets import ATTRIBUTES_MAX, Channel, encode
from resolver.guest.copy_streams import Rules

ID = st.integers(0, 2**32 - 1)
LONG = st.integers(0, 2**64 - 1)
TIME = st.integers(-2**62 * 10**9, 2**62 * 10**9)
NAME = st.binary(min_size=1, max_size=255).filter(lambda name: not {b"/", b"\0"} & {name[i:i + 1] for i in range(
    len(name))} and name != b"..")
ENTRIES = st.builds(
    Entry, st.sampled_from([kind for kind in Kind if kind not in (Kind.FILE, Kind.LEAVE)]), NAME, ID, ID, ID,
    TIME, TIME, LONG, LONG, ID, st.tuples(LONG, LONG), st.binary(max_size=4095), st.dictionaries(
        st.binary(min_size=1, max_size=255), st.binary(max_size=65536), max_size=4))

Ends = tuple[Channel, Channel]


@pytest.fixture
def ends() -> Iterator[Ends]:
    one, other = map(Channel, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    yield one, other
    one.close()
    other.close()


@given(ENTRIES)
def test_entries_arrive_as_they_were(entry: Entry) -> None:
    one, other = map(Channel, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    sender = threading.Thread(target=one.send_entry, args=(entry,))  # more than the kernel holds makes it wait
    sender.start()
    assert other.receive() == entry
    sender.join()
    one.close()
    assert other.receive() is None
    other.close()


def test_attributes_of_any_size(ends: Ends) -> None:
    entry = Entry(Kind.FIFO, b"x", attributes={b"user.%d" % number: b"x" * 65536 for number in range(10)})
    assert len(list(encode(entry))) > 1
    *packets, last = encode(entry)
    for packet in packets:
        assert ends[1]._read(packet, []) is None
    assert ends[1]._read(last, []) == entry
    entry.attributes = {b"user.%d" % number: b"x" * 65536 for number in range(ATTRIBUTES_MAX // 65536 + 1)}
    with pytest.raises(OSError, match="extended attributes") as raised:
        list(encode(entry))
    assert raised.value.errno == errno.E2BIG


@pytest.mark.parametrize("name", [b"a/b", b"..", b"", b"/etc", b"a\0b"])
def test_a_name_is_one_component(ends: Ends, name: bytes) -> None:
    ends[0].send_entry(Entry(Kind.FIFO, name))
    with pytest.raises(ValueError):
        ends[1].receive()


@pytest.mark.parametrize("data", [b"\0", b"\x03", b"\x63" * 200, bytes((32,)) + b"\xff" * 20, bytes((33,)) + b"[]",
                                  bytes((33,)) + b"{"])
def test_nonsense(ends: Ends, data: bytes) -> None:
    ends[0]._send(data, ())
    with pytest.raises(ValueError):
        ends[1].receive()


def test_a_file_is_one(ends: Ends, tmp_path: Path) -> None:
    held = len(os.listdir("/proc/self/fd"))
    for path, flags in ((tmp_path, os.O_RDONLY), (Path("/dev/null"), os.O_RDONLY), (tmp_path, os.O_PATH)):
        fd = os.open(path, flags)
        ends[0].send_entry(Entry(Kind.FILE, b"x", descriptor=fd))
        os.close(fd)
        with pytest.raises(ValueError, match="a file is none"):
            ends[1].receive()
    ends[0].send_entry(Entry(Kind.FILE, b"x"))
    with pytest.raises(ValueError, match="a file is none"):
        ends[1].receive()
    (tmp_path / "file").touch()
    with open(tmp_path / "file", "rb") as file:
        ends[0].send_entry(Entry(Kind.FILE, b"x", descriptor=file.fileno()))
        received = ends[1].receive()
    assert isinstance(received, Entry)
    assert not os.get_inheritable(received.descriptor)
    os.close(received.descriptor)
    assert len(os.listdir("/proc/self/fd")) == held


def test_devices_are_not_for_machines_with_users_of_their_own() -> None:
    own = IdMap((Extent(0, 100000, 65536),))
    null = Entry(Kind.CHARACTER, b"null", stat.S_IFCHR, device=os.makedev(1, 3))
    with pytest.raises(OSError, match="device node"):
        Rules((own, own)).check_device(null)
    with pytest.raises(OSError, match="device node"):
        Rules((own, own)).check_from(null)
    Rules(None).check_from(null)
    Rules((own, own)).check_from(Entry(Kind.CHARACTER, b"whiteout", stat.S_IFCHR))


def test_nobody_s_files_are_nobody_s(tmp_path: Path) -> None:
    own = IdMap((Extent(0, 100000, 65536),))
    (tmp_path / "file").touch()
    status = (tmp_path / "file").stat()
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    entry = Entry(Kind.FILE, b"file", status.st_mode, NOBODY, 0, descriptor=fd)
    with pytest.raises(OSError, match="it belongs to the host's user 0, unknown in the machine"):
        Rules((own, own)).check_from(entry)
    os.chown(tmp_path / "file", 100000 + NOBODY, 100000)
    Rules((own, own)).check_from(entry)
    os.close(fd)
