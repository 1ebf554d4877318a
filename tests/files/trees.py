# SPDX-License-Identifier: MIT
"""Trees of all that a file system can hold, and what two of them have in common; not by the code under test."""

import hashlib
import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

OLD = 1_234_567_890_123_456_789
"""Nanoseconds since the epoch: of no clock that runs."""

CAPABLE = bytes.fromhex("0100000200040000000000000000000000000000")
"""security.capability: cap_net_bind_service... as vfs_cap_data, revision 2, effective (linux/capability.h)."""


def look(top: Path, *, shift: int = 0) -> dict[bytes, dict[str, Any]]:
    """All that can be told of a tree, by path; ids less `shift`."""
    found: dict[bytes, dict[str, Any]] = {}
    names: dict[tuple[int, int], bytes] = {}
    pending = [b""]
    while pending:
        path = pending.pop()
        full = os.path.join(os.fsencode(top), path) if path else os.fsencode(top)
        status = os.lstat(full)
        kind = stat.S_IFMT(status.st_mode)
        found[path] = {
            "mode": oct(status.st_mode), "owner": (status.st_uid - shift, status.st_gid - shift),
            "time": status.st_mtime_ns, "attributes": attributes(full),
            "device": status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
            "target": os.readlink(full) if kind == stat.S_IFLNK else None,
            "same as": names.setdefault((status.st_dev, status.st_ino), path) if kind != stat.S_IFDIR else None,
            "content": content(full) if kind == stat.S_IFREG else None,
        }
        if kind == stat.S_IFDIR:
            pending += sorted((os.path.join(path, name) for name in os.listdir(full)), reverse=True)
    return found


def attributes(path: bytes) -> dict[str, bytes]:
    return {name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False) if not name.startswith("security.selinux")}


def content(path: bytes) -> tuple[int, str] | str:
    """Size and digest; of a file with more than can be read, where its data lies."""
    if os.stat(path).st_size < 2**24:
        with open(path, "rb") as file:
            return os.stat(path).st_size, hashlib.sha256(file.read()).hexdigest()
    return f"{os.stat(path).st_size} bytes, {data_of(path)}"


def data_of(path: bytes | Path) -> list[tuple[int, bytes]]:
    """The pieces of a sparse file that hold anything but zeros."""
    pieces = []
    with open(path, "rb", buffering=0) as file:
        end, size = 0, os.fstat(file.fileno()).st_size
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            data = os.pread(file.fileno(), end - start, start)
            if data.strip(b"\0"):
                pieces.append((start, hashlib.sha256(data.strip(b"\0")).digest()))
    return pieces


def allocated(top: Path) -> int:
    """Bytes that the file system has given to it."""
    return sum(os.lstat(path).st_blocks * 512 for path in [top, *top.rglob("*")])


def lay_out(top: Path, *, devices: bool = True, lists: bool = True, sparse: int = 2**40) -> None:
    """One of everything. Ids are below 60000."""
    top.mkdir()
    (top / "empty").touch()
    (top / "plain").write_bytes(os.urandom(300_000))
    (top / "small").write_text("small\n")
    os.chown(top / "small", 1000, 1001)
    (top / "set-user-id").write_text("#!/bin/sh\n")
    os.chown(top / "set-user-id", 12, 34)
    (top / "set-user-id").chmod(0o6751)
    (top / "secret").write_text("nobody reads it")
    (top / "secret").chmod(0)
    os.setxattr(top / "plain", "user.comment", b"\0of the user\xff")
    (top / "capable").write_text("x")
    os.setxattr(top / "capable", "security.capability", CAPABLE)
    os.symlink("/nowhere/at all", top / "dangling")
    os.symlink("small", top / "link")
    os.chown(top / "link", 5, 6, follow_symlinks=False)
    os.link(top / "small", top / "another name")
    os.link(top / "link", top / "another link")
    (top / os.fsdecode(b"odd \n\xff\x1b[31m")).write_text("odd")
    os.mkfifo(top / "fifo", 0o640)
    os.link(top / "fifo", top / "another fifo")
    listener = socket.socket(socket.AF_UNIX)
    here = os.open(top, os.O_PATH)
    listener.bind(f"/proc/self/fd/{here}/socket")
    os.close(here)
    listener.close()
    if devices:
        os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(top / "disk", stat.S_IFBLK | 0o600, os.makedev(250, 77))
    os.mknod(top / "whiteout", stat.S_IFCHR, 0)
    with open(top / "sparse", "wb") as file:
        file.truncate(sparse)
        os.pwrite(file.fileno(), b"x" * 5000, sparse // 2 + 123)
    with open(top / "hole at the end", "wb") as file:
        file.write(b"y" * 100_000)
        file.truncate(10_000_000)
    directory = top / "directory"
    for name in ("empty", "closed", "full/of/directories", "set-group-id"):
        (directory / name).mkdir(parents=True)
    os.link(top / "small", directory / "full" / "third name")
    (directory / "closed" / "file").write_text("closed")
    (directory / "closed").chmod(0)
    os.chown(directory / "set-group-id", 0, 50)
    (directory / "set-group-id").chmod(0o2775)
    (directory / "set-group-id" / "of the group").write_text("x")
    if lists:
        subprocess.run(["setfacl", "-m", "u:1000:rw,g:2000:r", top / "plain"], check=True)
        subprocess.run(["setfacl", "-d", "-m", "u:1000:rwx", directory / "full"], check=True)
        (directory / "full" / "inherits").write_text("inherits")
    for number, path in enumerate(sorted([top, *top.rglob("*")], reverse=True)):
        os.utime(path, ns=(OLD + number, OLD - number), follow_symlinks=False)
