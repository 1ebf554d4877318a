# SPDX-License-Identifier: MIT
"""Random trees, there and back."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.files.at_work import copy, hidden, remove
from tests.files.trees import look

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

NAMES = st.binary(min_size=1, max_size=20).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_")).filter(
    lambda name: name not in (b".", b".."))
MODES = st.integers(0, 0o7777)
IDS = st.integers(0, 2**32 - 2)
TIMES = st.integers(-2**31 * 10**9, 2**31 * 10**9)
LEAVES = st.one_of(
    st.tuples(st.just("file"), st.lists(st.tuples(st.integers(0, 2**21), st.binary(max_size=100)), max_size=3)),
    st.tuples(st.just("link"), st.binary(min_size=1, max_size=100).map(lambda name: name.replace(b"\0", b"0"))),
    st.tuples(st.just("fifo"), st.none()),
    st.tuples(st.just("same"), st.integers(0, 10)))
THINGS = st.tuples(MODES, IDS, IDS, TIMES)
TREES = st.recursive(
    st.tuples(LEAVES, THINGS),
    lambda below: st.tuples(st.tuples(st.just("directory"), st.dictionaries(NAMES, below, max_size=5)), THINGS),
    max_leaves=20)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="mymachines-test-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


def make(path: bytes, tree: Any, files: list[bytes]) -> None:
    (kind, what), (mode, uid, gid, time) = tree
    if kind == "directory":
        os.mkdir(path)
        for name, below in what.items():
            make(os.path.join(path, name), below, files)
    elif kind == "file":
        with open(path, "wb") as file:
            for offset, data in what:
                os.pwrite(file.fileno(), data, offset)
    elif kind == "link":
        os.symlink(what, path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif files:
        os.link(files[what % len(files)], path, follow_symlinks=False)
    else:
        open(path, "wb").close()
    if kind != "directory":
        files.append(path)
    os.chown(path, uid, gid, follow_symlinks=False)
    if not os.path.islink(path):
        os.chmod(path, mode)
    os.utime(path, ns=(time, time), follow_symlinks=False)


@given(TREES)
@settings(max_examples=100, deadline=None)
def test_a_copy_of_a_copy_is_the_same(place: Path, tree: Any) -> None:
    make(os.fsencode(place / "source"), tree, [])
    before = look(place / "source")
    copy(place / "source", place / "copy")
    copy(place / "copy", place / "again")
    assert look(place / "copy") == before == look(place / "again")
    for name in ("source", "copy", "again"):
        remove(place / name)
    assert hidden(place) == []
    assert list(place.iterdir()) == []
