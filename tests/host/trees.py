# SPDX-License-Identifier: MIT
"""Files of every kind, and all that can be told of them. Also a program that tells it where there is nothing else:

    python3 trees.py PATH       prints `snapshot` of PATH as JSON
"""

import hashlib
import json
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .booted import BootedHost
    from .guests import Guest

PROGRAM = "/usr/src/mymachines/tests/host/trees.py"
"""In the booted host, and in containers that have its /usr."""

HOLE = 1 << 30
"""Bytes of a sparse file before its content: more than is copied by mistake without being noticed."""
LONG_AGO = (1_000_000_000, 1_234_567_890)

Snapshot = dict[str, dict[str, Any]]


def make(top: Path) -> None:
    """A tree with hard and symbolic links, a sparse file, attributes, a FIFO, owners, modes, times, and odd names."""
    (top / "folder/deeper").mkdir(parents=True)
    (top / "empty").mkdir(mode=0o700)
    file = top / "file"
    file.write_text("of the host\n")
    os.link(file, top / "folder/deeper/linked")
    (top / "executable").write_bytes(os.urandom(300_000))
    with (top / "sparse").open("wb") as sparse:
        sparse.seek(HOLE)
        sparse.write(b"end")
    (top / "symbolic").symlink_to("folder/deeper")
    (top / "absolute").symlink_to("/etc/hostname")
    (top / "dangling").symlink_to("../nowhere")
    os.mkfifo(top / "fifo", 0o640)
    os.setxattr(file, "user.mymachines", b"\0value")
    os.setxattr(top / "folder", "user.mymachines", b"of a folder")
    Path(os.fsdecode(bytes(top) + b"/\xff and\na line")).touch()
    os.chown(file, 1000, 1001)
    os.chown(top / "symbolic", 33, 34, follow_symlinks=False)
    os.chown(top / "empty", 65534, 65534)
    os.chmod(top / "executable", 0o4755)
    os.chmod(top / "folder", 0o2775)
    for path in (file, top / "folder/deeper", top / "symbolic", top / "fifo"):
        os.utime(path, LONG_AGO, follow_symlinks=False)


def snapshot(top: str) -> Snapshot:
    """By path below `top`, which itself is "."; hard links are told by the first path to the same file."""
    found: Snapshot = {}
    first: dict[tuple[int, int], str] = {}
    paths = [top]
    for folder, folders, files in os.walk(top):
        paths += sorted(os.path.join(folder, name) for name in (*folders, *files))
    for path in paths:
        status = os.lstat(path)
        relative = repr(os.path.relpath(path, top))
        facts: dict[str, Any] = {"mode": oct(status.st_mode), "owner": [status.st_uid, status.st_gid],
                                 "attributes": {name: os.getxattr(path, name, follow_symlinks=False).hex()
                                                for name in os.listxattr(path, follow_symlinks=False)}}
        if path != top or not stat.S_ISDIR(status.st_mode):
            facts["time"] = status.st_mtime_ns
        if stat.S_ISLNK(status.st_mode):
            facts["target"] = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            facts["same as"] = first.setdefault((status.st_dev, status.st_ino), relative)
            facts["size"], facts["is sparse"] = status.st_size, status.st_blocks * 512 < status.st_size // 2
            with open(path, "rb") as file:
                file.seek(max(0, status.st_size - 1_000_000))
                facts["content"] = hashlib.sha256(file.read()).hexdigest()
        found[relative] = facts
    return found


def seen(by: "BootedHost | Guest", path: str) -> Snapshot:
    """What the host, or a container that has python3, sees there."""
    found: Snapshot = json.loads(by.out(["python3", PROGRAM, path]))
    return found


def without(names: Sequence[str], found: Snapshot) -> Snapshot:
    """Some facts left out."""
    return {path: {name: fact for name, fact in facts.items() if name not in names} for path, facts in found.items()}


if __name__ == "__main__":
    json.dump(snapshot(sys.argv[1]), sys.stdout)
