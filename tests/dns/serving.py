# SPDX-License-Identifier: MIT
"""The real server on a table of the test's own."""

import ipaddress
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from resolver.core.addresses import AF_INET, AF_INET6
from resolver.core.machine import ChosenAddress, Machine, MachineClass, ProcessId
from resolver.core.registry import Registry
from resolver.publisher import Publisher
from resolver.table.writer import TableWriter

PATIENCE = 20.0
"""Seconds until a process counts as hanging; it takes a fraction of one, but test machines are slow and shared."""


def chosen(text: str) -> ChosenAddress:
    """An address as the core would choose it; `fe80::1%7` with the scope."""
    host, _, scope = text.partition("%")
    packed = ipaddress.ip_address(host).packed
    family = AF_INET if len(packed) == 4 else AF_INET6
    return ChosenAddress(family, packed, int(scope or 0), scoped=bool(scope), reverse=not scope)


def machine(name: str, *addresses: str, number: int = 1) -> Machine:
    return Machine(name, MachineClass.CONTAINER, ProcessId(number), chosen=tuple(map(chosen, addresses)))


class Table:
    """A table at `path`, with machines that come and go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._registry = Registry()
        self._publisher = Publisher(TableWriter(str(path), self._registry))
        self._publisher.start()

    def add(self, name: str, *addresses: str) -> None:
        self._publisher.publish(self._registry.add(machine(name, *addresses, number=len(self._registry) + 2)))

    def remove(self, name: str) -> None:
        self._publisher.publish(self._registry.remove(name))

    def close(self, unlink: bool = True) -> None:
        self._publisher.close(unlink=unlink)


class Process:
    """A command of the project, awaited until it says READY=1; killed at the end, whatever happens."""

    def __init__(self, module: str, *arguments: object, before: Sequence[str] = ()) -> None:
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(f"{folder}/notify")
            ready.settimeout(PATIENCE)
            environment: Mapping[str, str] = {
                "NOTIFY_SOCKET": f"{folder}/notify", "PATH": os.environ["PATH"], "HOME": "/",
                "PYTHONPATH": os.pathsep.join(sys.path)}
            self.process = subprocess.Popen([*before, sys.executable, "-m", module, *map(str, arguments)],
                                            env=environment, stderr=subprocess.PIPE, text=True)
            try:
                self.said = ready.recv(4096).decode()
            except BaseException:
                self.process.kill()
                sys.stderr.write(self.process.communicate()[1])
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _value: object, _trace: TracebackType | None) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate()

    def stop(self) -> str:
        """End it in good order; its log."""
        self.process.terminate()
        log = self.process.communicate(timeout=PATIENCE)[1]
        assert self.process.returncode == 0, log
        assert "Traceback" not in log, log
        return log

    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024


class Server(Process):
    """mymachines-dns for `table`, at `listen` with a port that the kernel chooses."""

    def __init__(self, table: Table, *arguments: object, listen: str = "127.0.0.1", before: Sequence[str] = ()) -> None:
        place = f"[{listen}]:0" if ":" in listen else f"{listen}:0"
        super().__init__("resolver.dns", f"--table={table.path}", f"--listen={place}", *arguments, before=before)
        self.host = listen
        self.port = int(re.findall(r"port (\d+)", self.said)[0])

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port
