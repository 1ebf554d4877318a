# SPDX-License-Identifier: MIT
"""All that outlives a daemon, of a test host, in a form that can be compared: files, table and what List says."""

import os
import re
import socket
import stat
from pathlib import Path
from typing import Any

from resolver.table.reader import TableReader
from resolver.varlink.client import Client
from tests.lab import Container, TestHost

PUBLIC, PRIVATE, OURS = "run/systemd/machines", "run/systemd/mymachines", "run/mymachines"
MACHINE = "io.systemd.Machine"

_TIMES = re.compile(rb'(REALTIME|MONOTONIC|"realtime"|"monotonic")(=|: )\d+')

PATIENCE = 20.0
"""Seconds, for one call: on a busy machine, and while a daemon starts."""

Snapshot = dict[str, Any]


class Place:
    """The host's /run, from outside: what lies there, and who answers there."""

    def __init__(self, host: TestHost) -> None:
        self.root = Path(f"/proc/{host.pid}/root")
        self.socket = str(self.root / f"run/systemd/machine/{MACHINE}")
        self.table = str(self.root / OURS / "table-2")

    def call(self, method: str, **parameters: Any) -> None:
        """One call of io.systemd.Machine; errors as the client's."""
        with Client(self.socket, PATIENCE) as client:
            client.call(f"{MACHINE}.{method}", parameters)

    def files(self) -> Snapshot:
        """Names, modes, targets and contents, but for the time of a registration."""
        found: Snapshot = {}
        for folder in (PUBLIC, PRIVATE):
            for path in sorted((self.root / folder).iterdir()):
                mode = stat.filemode(path.lstat().st_mode)
                content = os.readlink(path) if path.is_symlink() else _TIMES.sub(rb"\1\2", path.read_bytes()).decode()
                found[f"{folder}/{path.name}"] = (mode, content)
        found[OURS] = sorted(os.listdir(self.root / OURS))
        return found

    def listed(self) -> Snapshot:
        """What List says of each machine but the host itself, without the time of its registration."""
        with Client(self.socket, PATIENCE) as client:
            replies = [reply for reply in client.call_more(f"{MACHINE}.List") if reply.get("name") != ".host"]
        for reply in replies:
            reply.pop("timestamp", None)
        return {reply["name"]: reply for reply in replies}

    def looked_up(self, *containers: Container) -> Snapshot:
        """What the table says of each."""
        reader = TableReader(self.table)
        found: Snapshot = {"names": sorted(reader.names())}
        for container in containers:
            found[container.name] = [
                reader.host_by_name(container.name), reader.user_by_id(container.host_uid(7)),
                reader.group_by_id(container.host_gid(7)), reader.user_by_name(f"vu-{container.name}-7"),
                reader.host_by_address(socket.AF_INET, socket.inet_aton(container.ipv4))]
        return found

    def snapshot(self, *containers: Container) -> Snapshot:
        return {"files": self.files(), "list": self.listed(), "table": self.looked_up(*containers)}
