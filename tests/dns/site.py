# SPDX-License-Identifier: MIT
"""The DNS servers of a site, as Debian has them: BIND 9 and Knot DNS, each with one zone, on a port of loopback."""

import shutil
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab import TestHost, Unavailable, wait_for
from tests.lab.processes import end

ZONE = "machines.example."
KEY_NAME, SECRET = "publisher", "c2VjcmV0IG9mIHRoZSBwdWJsaXNoZXIgMTIzNDU2Nzg="
ADDRESS = "127.0.0.1"
START_SECONDS = 20.0

ZONE_FILE = f"""\
$TTL 60
@ IN SOA ns hostmaster 1 3600 600 86400 60
@ IN NS ns
ns IN A {ADDRESS}
"""


class SiteServer(ABC):
    """Runs until `close`; keeps its zone over `stop` and `start`, as it does on disk."""

    program = ""

    def __init__(self, folder: Path, host: TestHost | None = None) -> None:
        """`host`: on whose loopback it runs, else the machine's own."""
        if shutil.which(self.program) is None:
            raise Unavailable(f"{self.program} is not installed")
        self.folder = folder
        self.host = host
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.zone_file = folder / "machines.example.zone"
        self.zone_file.write_text(ZONE_FILE)
        self.key_file = folder / "key"
        self.key_file.write_text(f'key "{KEY_NAME}" {{\n\talgorithm hmac-sha256;\n\tsecret "{SECRET}";\n}};\n')
        self.key_file.chmod(0o600)
        self.configure()

    @abstractmethod
    def configure(self) -> None: ...

    @abstractmethod
    def command(self) -> list[str]: ...

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            popen = subprocess.Popen if self.host is None else self.host.popen
            self.process = popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(self._answers, START_SECONDS, f"{self.program} to answer\n{self.log()}")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        return "status: NOERROR" in self.dig(ZONE, "SOA", "+tries=1", "+time=1", "+comments")

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            try:
                self.process.wait(START_SECONDS)
            finally:
                end(self.process)
                self.process = None

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-3000:]

    def snapshot(self, to: Path) -> None:
        """Copies all that it keeps; while it is stopped."""
        shutil.copytree(self.folder, to)

    def restore(self, snapshot: Path) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(snapshot, self.folder)

    def dig(self, name: str, kind: str, *options: str) -> str:
        command = ["dig", f"@{ADDRESS}", f"-p{self.port}", "+noall", "+answer", *options, name, kind]
        if self.host is not None:
            return self.host.run(command).stdout
        return subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS).stdout

    def zone(self) -> dict[tuple[str, str], set[str]]:
        """By a zone transfer: what is there by name and type, but for SOA and NS and the server's own name."""
        answer = self.dig(ZONE, "AXFR", f"-yhmac-sha256:{KEY_NAME}:{SECRET}")
        assert "SOA" in answer, answer
        found: dict[tuple[str, str], set[str]] = {}
        for line in answer.splitlines():
            words = line.split(None, 4)
            if len(words) == 5 and words[3] in ("A", "AAAA", "TXT") and words[0] != f"ns.{ZONE}":
                found.setdefault((words[0].lower(), words[3]), set()).add(words[4])
        return found

    def addresses(self) -> dict[str, set[str]]:
        """Below the zone, both families together."""
        found: dict[str, set[str]] = {}
        for (name, kind), values in self.zone().items():
            if kind != "TXT":
                found.setdefault(name.removesuffix(f".{ZONE}"), set()).update(values)
        return found


class Bind(SiteServer):
    program = "named"

    def configure(self) -> None:
        (self.folder / "named.conf").write_text(f"""\
include "{self.key_file}";
options {{
    directory "{self.folder}"; pid-file none; session-keyfile none; managed-keys-directory "{self.folder}";
    listen-on port {self.port} {{ {ADDRESS}; }}; listen-on-v6 {{ none; }};
    recursion no; dnssec-validation no; notify no;
}};
controls {{ }};
zone "{ZONE}" {{
    type primary; file "{self.zone_file}";
    allow-update {{ key "{KEY_NAME}"; }}; allow-transfer {{ key "{KEY_NAME}"; }};
}};
""")

    def command(self) -> list[str]:
        return ["named", "-f", "-4", "-n1", "-c", str(self.folder / "named.conf")]


class Knot(SiteServer):
    program = "knotd"

    def configure(self) -> None:
        (self.folder / "knot.conf").write_text(f"""\
server:
    rundir: "{self.folder}"
    listen: {ADDRESS}@{self.port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "{self.folder}"
log:
  - target: stderr
    any: info
key:
  - id: {KEY_NAME}
    algorithm: hmac-sha256
    secret: {SECRET}
acl:
  - id: publisher
    key: {KEY_NAME}
    action: [update, transfer]
zone:
  - domain: {ZONE}
    storage: "{self.folder}"
    file: "{self.zone_file.name}"
    acl: publisher
""")

    def command(self) -> list[str]:
        return ["knotd", "-c", str(self.folder / "knot.conf")]


def _free_port() -> int:
    """For UDP and TCP alike."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp, \
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind((ADDRESS, 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind((ADDRESS, port))
            except OSError:
                continue
            return port
