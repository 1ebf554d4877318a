# SPDX-License-Identifier: MIT
"""File systems for tests, each in a mount namespace of its own, reached through /proc/PID/root."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab import Unavailable, processes
from tests.lab.waiting import Lines

MakeFileSystem = Callable[..., Path]

IMAGE_SIZE = 512 * 2**20    # bytes, sparse: mkfs.xfs takes nothing below 300 MiB

MOUNT = """
set -e
case $1 in
    tmpfs) mount -t tmpfs -o size=$3 tmpfs /mnt;;
    ramfs) mount -t ramfs ramfs /mnt;;
    *) mount -t $1 -o loop $2 /mnt;;
esac
echo mounted
exec sleep infinity
"""


@pytest.fixture
def file_system(tmp_path: Path) -> Iterator[MakeFileSystem]:
    """file_system("btrfs") is the path of a new, empty one; file_system("tmpfs", "1m") of one of that size."""
    holders: list[subprocess.Popen[bytes]] = []

    def make(kind: str, size: str = "50%") -> Path:
        image = tmp_path / f"image{len(holders)}"
        if kind not in ("tmpfs", "ramfs"):
            if shutil.which(f"mkfs.{kind}") is None:
                raise Unavailable(f"no mkfs.{kind}")
            with image.open("wb") as file:
                file.truncate(IMAGE_SIZE)
            subprocess.run([f"mkfs.{kind}", "-q", image], check=True)
        words = ["unshare", "--mount", "sh", "-c", MOUNT, "sh", kind, str(image), size]
        holder = subprocess.Popen(words, stdout=subprocess.PIPE)
        holders.append(holder)
        try:
            assert Lines(holder).next(10) == "mounted"
        except EOFError:
            raise Unavailable(f"this kernel has no {kind}") from None
        top = Path(f"/proc/{holder.pid}/root/mnt")
        for left in top.iterdir():
            left.rmdir()    # lost+found
        return top

    yield make
    for holder in holders:
        processes.end(holder)
        assert holder.stdout is not None
        holder.stdout.close()


@pytest.fixture
def small(file_system: MakeFileSystem) -> Path:
    return file_system("tmpfs", "1m")
