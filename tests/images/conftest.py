# SPDX-License-Identifier: MIT
"""A host with a pool of its own on a file system of any kind, and the real daemon, asked over Varlink."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from machine_images.discovery import POOL
from tests.files.trees import lay_out
from tests.lab import Daemon, TestHost, Unavailable, wait_for
from tests.lab.processes import children, describe

SIZE = 512 << 20    # bytes, sparse: mkfs.xfs takes nothing below 300 MiB
WAIT_SECONDS = 30.0
IMAGE_SOCKET = "/run/systemd/machine/io.systemd.MachineImage"

CALL = """
import json, os, sys
from resolver.varlink.client import Client
from resolver.varlink.errors import VarlinkError
method, parameters, uid = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
os.setresuid(uid, uid, uid)
with Client("SOCKET", 60) as client:
    try:
        more = method in ("List", "CleanPool") and "name" not in parameters
        call = client.call_more if more else lambda *words: [client.call(*words)]
        for reply in call("io.systemd.MachineImage." + method, parameters):
            print(json.dumps(reply))
    except VarlinkError as error:
        print(json.dumps({"error": error.name.rpartition(".")[2], **error.parameters}))
""".replace("SOCKET", IMAGE_SOCKET)

MOUNT = """
set -e
mount -t tmpfs tmpfs /var/lib
mkdir -m 700 /var/lib/machines
[ -z "$1" ] || mount -t "$1" ${2:+-o loop} "${2:-none}" /var/lib/machines
rm -rf /var/lib/machines/lost+found
"""


class Pool:
    """The host's images; paths are as seen from here."""

    def __init__(self, host: TestHost, kind: str) -> None:
        self.host, self.kind = host, kind
        self.daemon: Daemon = host.start_daemon()

    def path(self, name: str) -> Path:
        """Of something in the pool, or of an absolute path."""
        return Path(f"/proc/{self.host.pid}/root", os.path.join(POOL, name).lstrip("/"))

    def tree(self, name: str, **options: Any) -> Path:
        """An image with one of everything."""
        lay_out(self.path(name), **options)
        return self.path(name)

    def big(self, name: str, folders: int = 100, files: int = 200) -> Path:
        """An image whose cloning and removing takes a second or more."""
        top = self.path(name)
        for folder in range(folders):
            (top / str(folder)).mkdir(parents=True)
            for file in range(files):
                (top / str(folder) / str(file)).write_bytes(b"x")
        return top

    def call(self, method: str, *, uid: int = 0, **parameters: Any) -> list[dict[str, Any]]:
        """The replies, an error last, by its short name."""
        done = self.host.python(CALL, method, json.dumps(parameters), str(uid), check=True, timeout=90)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def begin(self, method: str, **parameters: Any) -> subprocess.Popen[bytes]:
        """A call that goes on; it ends with the host, or before."""
        words = [sys.executable, "-c", CALL, method, json.dumps(parameters), "0"]
        return self.host.popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def do(self, method: str, **parameters: Any) -> None:
        """What must succeed."""
        assert self.call(method, **parameters) == [{}]

    def error(self, method: str, **parameters: Any) -> str | tuple[str, object]:
        """What must fail: the error, with its number or parameter."""
        *_, last = self.call(method, **parameters)
        assert "error" in last, last
        detail = last.get("errno", last.get("parameter"))
        return last["error"] if detail is None else (last["error"], detail)

    def images(self) -> dict[str, dict[str, Any]]:
        """By name, without the host's own."""
        return {image["name"]: image for image in self.call("List") if image["name"] != ".host"}

    def entries(self) -> set[str]:
        return set(os.listdir(self.path("")))

    def worker(self) -> int:
        """The process that changes images, once it is there."""
        def look() -> int:
            found = [pid for pid in children(self.daemon.pid) if "machine_images" in describe(pid)]
            return found[0] if found else 0

        return wait_for(look, WAIT_SECONDS)

    def stopped_worker(self, when: Callable[[], bool]) -> int:
        """Frozen as soon as this is true."""
        pid = self.worker()
        wait_for(when, WAIT_SECONDS)
        os.kill(pid, signal.SIGSTOP)
        return pid

    def idle(self) -> None:
        """Until no worker is there any more."""
        wait_for(lambda: not [pid for pid in children(self.daemon.pid) if "machine_images" in describe(pid)],
                 WAIT_SECONDS)

    def restart(self) -> None:
        """A daemon where the last one has ended."""
        self.daemon = self.host.start_daemon()


MakePool = Callable[[str], Pool]


@pytest.fixture
def make_pool(host: TestHost, tmp_path: Path) -> MakePool:
    """make_pool("btrfs"), "ext4", "xfs", "tmpfs"."""
    def make(kind: str) -> Pool:
        file = ""
        if kind != "tmpfs":
            if shutil.which(f"mkfs.{kind}") is None:
                raise Unavailable(f"no mkfs.{kind}")
            image = tmp_path / "pool"
            with image.open("wb") as new:
                new.truncate(SIZE)
            subprocess.run([f"mkfs.{kind}", "-q", image], check=True, stdout=subprocess.DEVNULL)
            file = str(image)
        done = host.run(["sh", "-c", MOUNT, "sh", kind, file])
        if done.returncode:
            raise Unavailable(f"this kernel has no {kind}: {done.stderr}")
        return Pool(host, kind)

    return make


@pytest.fixture
def pool(make_pool: MakePool) -> Pool:
    return make_pool("tmpfs")


@pytest.fixture
def btrfs(make_pool: MakePool) -> Pool:
    if shutil.which("btrfs") is None:
        raise Unavailable("no btrfs-progs")
    return make_pool("btrfs")
