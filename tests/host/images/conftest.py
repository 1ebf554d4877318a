# SPDX-License-Identifier: MIT
"""A pool that each test fills with small images, and that is as before when the test ends."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.host.booted import BootedHost
from tests.host.guests import BOOT_SECONDS, MACHINES
from tests.lab import wait_for

OTHERS = ("/etc/machines", "/run/machines", "/usr/local/lib/machines", "/usr/lib/machines")
"""Search paths beside the pool. None is there on a Debian host."""
SETTINGS = "/etc/systemd/nspawn"
OS_RELEASE = 'ID=tiny\nVERSION_ID=7\nPRETTY_NAME="Tiny Linux"\n'
MACHINE_ID = "0123456789abcdef0123456789abcdef"

BOOTS = """\
#!/bin/bash
trap 'exit 0' RTMIN+3 RTMIN+4 TERM
touch /var/waits
while :; do sleep 0.2; done
"""
RUNS_SCRIPT = "[Exec]\nBoot=no\nParameters=/init\nKillSignal=SIGRTMIN+3\n[Files]\nBindReadOnly=/usr\n"
"""What systemd-nspawn is told of a `bootable` image."""
RUNS_SECONDS = 30.0
REMOVE_SECONDS = 120.0  # thousands of files, on a busy disk
SHARED = {"web"}
"""What the pool of a booted host has at first, and keeps."""


class Images:
    """What a test does to the host's images, past the daemon."""

    def __init__(self, host: BootedHost) -> None:
        self.host = host
        self.since = time.time()
        self._started: list[str] = []

    def directory(self, name: str, folder: str = MACHINES, **etc: str) -> Path:
        """A tree with an os-release, a host name, and what more /etc shall have; as seen from here."""
        tree = self.host.path(f"{folder}/{name}")
        self.host.run(["mkdir", "-p", f"{folder}/{name}/etc", f"{folder}/{name}/usr"])    # folder may be in /run
        files = {"os-release": OS_RELEASE, "hostname": f"{name}-host\n"}
        for file, text in (files | {key.replace("_", "-"): value for key, value in etc.items()}).items():
            self.host.run(["tee", f"{folder}/{name}/etc/{file}"], stdin=text)
        return tree

    def raw(self, name: str, size: int = 4 << 20, data: bytes = b"") -> Path:
        """A disk that begins with `data` and then is a hole."""
        disk = self.host.path(f"{MACHINES}/{name}.raw")
        disk.write_bytes(data)
        with disk.open("r+b") as file:
            file.truncate(size)
        return disk

    def bootable(self, name: str) -> None:
        """A directory that `machinectl start` runs: the host's /usr, and a script that waits for its end."""
        tree = self.directory(name)
        for folder in ("var", "run", "tmp", "proc", "sys", "dev", "root"):
            (tree / folder).mkdir()
        for link in ("bin", "sbin", "lib", "lib64"):
            (tree / link).symlink_to(f"usr/{link}")
        (tree / "init").write_text(BOOTS)
        (tree / "init").chmod(0o755)
        self.settings(name, RUNS_SCRIPT)

    def settings(self, name: str, text: str) -> None:
        self.host.path(SETTINGS).mkdir(exist_ok=True)
        self.host.path(f"{SETTINGS}/{name}.nspawn").write_text(text)

    def start(self, *names: str, verb: Sequence[str] = ("start",)) -> None:
        """By machinectl; `bootable` ones are waited for. They end with the test."""
        self._started.extend(names)
        waiting = [self.host.path(f"{MACHINES}/{name}/var/waits") for name in names]
        for path in waiting:
            path.unlink(missing_ok=True)
        self.host.run(["machinectl", *verb, *names], timeout=BOOT_SECONDS)
        for path in waiting:
            if (path.parent.parent / "init").exists():
                wait_for(path.exists, RUNS_SECONDS)

    def entries(self) -> set[str]:
        """The names of all that is in the pool, seen or not; systemd-nspawn's own locks aside."""
        names = self.host.out(["ls", "-A", "--quoting-style=literal", MACHINES]).splitlines()
        return {name for name in names if not name.endswith(".lck")}

    def close(self) -> None:
        for name in self._started:
            unit = f"systemd-nspawn@{name}.service"
            self.host.run(["systemctl", "stop", unit], check=False)
            wait_for(lambda unit=unit: self.host.out(  # type: ignore[misc]
                ["systemctl", "show", "--property=ActiveState", "--value", unit]) in ("inactive", "failed"),
                RUNS_SECONDS)
            self.host.run(["systemctl", "disable", unit], check=False)
            self.host.run(["systemctl", "reset-failed", unit], check=False)
        own = [f"{MACHINES}/{name}" for name in self.entries() - SHARED]
        gone = [*own, *OTHERS, SETTINGS]
        self.host.run(["chattr", "-f", "-R", "-i", *gone], check=False)
        self.host.run(["rm", "-rf", "--one-file-system", *gone], timeout=REMOVE_SECONDS)
        assert self.entries() == SHARED


@pytest.fixture
def images(booted: BootedHost) -> Iterator[Images]:
    """images.directory("db"), images.raw("disk") are images; they go with the test, and whatever came of them."""
    found = Images(booted)
    try:
        yield found
    finally:
        found.close()
