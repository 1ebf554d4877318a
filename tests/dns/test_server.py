# SPDX-License-Identifier: MIT
"""The server as a process: sockets, hostile clients, other names' servers."""

import os
import re
import select
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import dns.message
import pytest
from dns.rcode import Rcode

from resolver.dns.tcp import CONNECTIONS_BY_SOURCE, CONNECTIONS_MAX, FORWARDED_MAX, IDLE_SECONDS
from tests.dns import fuzz
from tests.dns.serving import PATIENCE, Server, Table
from tests.lab import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")  # the table must be root's


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    table = Table(tmp_path / "table-2")
    table.add("web", "10.1.2.3", "fd00::1")
    table.add("many", *(f"10.2.0.{number}" for number in range(100)))
    yield table
    table.close()


@pytest.fixture
def server(table: Table) -> Iterator[Server]:
    with Server(table) as server:
        yield server
        server.stop()


def query(name: str, rdtype: str = "A", **options: Any) -> dns.message.Message:
    return dns.message.make_query(name, rdtype, **options)


def framed(message: dns.message.Message) -> bytes:
    wire = message.to_wire()
    return len(wire).to_bytes(2) + wire


def udp(server: Server, asked: dns.message.Message) -> dns.message.Message:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect(server.address)
        client.send(asked.to_wire())
        answer = dns.message.from_wire(client.recv(4096))
    assert asked.is_response(answer)
    return answer


class Stream:
    """One TCP connection to the server."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(server.address, PATIENCE)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def next(self) -> dns.message.Message:
        return dns.message.from_wire(self._file.read(int.from_bytes(self._file.read(2))))

    def ended(self) -> bool:
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self._file.close()
        self.socket.close()


def tcp(server: Server, asked: dns.message.Message) -> dns.message.Message:
    with Stream(server) as stream:
        stream.send(framed(asked))
        return stream.next()


def addresses(answer: dns.message.Message) -> list[str]:
    return [rdata.to_text() for rrset in answer.answer for rdata in rrset]


def test_truncated_by_udp_and_whole_by_tcp(server: Server) -> None:
    asked = query("many.machines.internal.")
    assert udp(server, asked).flags & dns.flags.TC
    assert len(addresses(tcp(server, asked))) == 100


def test_many_datagrams_at_once(server: Server) -> None:
    """More than one system call takes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect(server.address)
        server.process.send_signal(signal.SIGSTOP)
        for number in range(100):
            asked = query("web.machines.internal." if number % 2 else f"n{number}.machines.internal.")
            asked.id = number
            client.send(asked.to_wire())
        client.send(bytes(3000))
        server.process.send_signal(signal.SIGCONT)
        answers = {(answer := dns.message.from_wire(client.recv(4096))).id: answer for _ in range(100)}
    assert [answers[number].rcode() for number in range(100)] == [Rcode.NXDOMAIN, Rcode.NOERROR] * 50


def test_a_change_is_seen_at_once(server: Server, table: Table) -> None:
    asked = query("new.machines.internal.")
    for number in range(20):
        assert udp(server, asked).rcode() == Rcode.NXDOMAIN
        table.add("new", f"10.3.0.{number}")
        assert addresses(udp(server, asked)) == addresses(tcp(server, asked)) == [f"10.3.0.{number}"]
        table.remove("new")


def test_a_stopped_daemon(server: Server, table: Table) -> None:
    assert udp(server, query("web.machines.internal.")).rcode() == Rcode.NOERROR
    table.close()
    assert udp(server, query("web.machines.internal.")).rcode() == Rcode.SERVFAIL
    again = Table(table.path)
    again.add("web", "10.1.2.9")
    wait_for(lambda: addresses(udp(server, query("web.machines.internal."))) == ["10.1.2.9"], what="the new table")
    again.close()


# --- TCP ---

def test_pipelined(server: Server) -> None:
    asked = [query(name) for name in ("web.machines.internal.", "nobody.machines.internal.") * 200]
    with Stream(server) as stream:
        stream.send(b"".join(map(framed, asked)))
        stream.socket.shutdown(socket.SHUT_WR)
        assert all(one.is_response(stream.next()) for one in asked)
        assert stream.ended()


def test_byte_by_byte(server: Server) -> None:
    asked = query("web.machines.internal.")
    with Stream(server) as stream:
        stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in framed(asked):
            stream.send(bytes([byte]))
        assert addresses(stream.next()) == ["10.1.2.3"]


def test_64_kilobytes_a_byte_at_a_time(server: Server) -> None:
    """The length alone says that it is no query; what comes behind it is not kept, nor answered."""
    with Stream(server) as stream:
        stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = query("web.machines.internal.").to_wire()
        try:
            for byte in b"\xff\xff" + wire + bytes(65535 - len(wire)):
                stream.send(bytes([byte]))
        except ConnectionError:
            pass
        assert stream.ended()
    with Stream(server) as stream:
        stream.send(b"\0\0")
        assert stream.ended()
    with Stream(server) as stream:
        stream.send(b"\0\x0c" + bytes(2) + b"\x80" + bytes(9))      # a response
        assert stream.ended()
    assert udp(server, query("web.machines.internal.")).rcode() == Rcode.NOERROR


def test_a_client_that_does_not_read_its_answers(server: Server) -> None:
    asked = framed(query("many.machines.internal."))
    before = server.memory()
    with Stream(server) as stream:
        stream.socket.setblocking(False)
        sent = 0
        with selectors.DefaultSelector() as selector:
            selector.register(stream.socket, selectors.EVENT_WRITE)
            # Its socket fills up: the server has stopped reading.
            while sent < 2**26 and selector.select(1):
                try:
                    sent += stream.socket.send(asked * 100)
                except BlockingIOError:
                    pass
                except ConnectionError:
                    break
        assert sent < 2**26
        assert server.memory() - before < 8 * 2**20
        assert addresses(tcp(server, query("web.machines.internal."))) == ["10.1.2.3"]


def test_thousands_of_idle_connections(server: Server) -> None:
    with ExitStack() as stack:
        before = server.memory()
        for number in range(CONNECTIONS_MAX * 2):
            source = f"127.0.0.{2 + number % 32}", 0
            stack.enter_context(socket.create_connection(server.address, PATIENCE, source))
        assert addresses(tcp(server, query("web.machines.internal."))) == ["10.1.2.3"]
        assert len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())) < CONNECTIONS_MAX + 32
        assert server.memory() - before < 32 * 2**20


def test_who_asks_a_thousand_things_at_once_lets_others_ask_one(server: Server) -> None:
    """No time is measured: when the one is answered, the others have had a few of their answers each."""
    one = framed(query("web.machines.internal."))
    with ExitStack() as stack:
        server.process.send_signal(signal.SIGSTOP)
        greedy = [stack.enter_context(Stream(server)) for _ in range(100)]
        for stream in greedy:
            stream.send(one * 1000)
        with Stream(server) as honest:
            honest.send(one)
            server.process.send_signal(signal.SIGCONT)
            assert addresses(honest.next()) == ["10.1.2.3"]
        server.process.send_signal(signal.SIGSTOP)
        answered = sum(len(stream.socket.recv(2**20, socket.MSG_PEEK | socket.MSG_DONTWAIT))
                       for stream in greedy if select.select([stream.socket], [], [], 0)[0])
        assert answered < 100 * 40 * len(one), answered // len(one)
        server.process.send_signal(signal.SIGCONT)
        # And they get the rest, in their turn.
        assert all(len(greedy[0].next().answer) == 1 for _ in range(1000))


def test_one_client_takes_no_more_than_its_share_of_connections(server: Server) -> None:
    before = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
    with ExitStack() as stack:
        first = stack.enter_context(Stream(server))
        for _ in range(CONNECTIONS_BY_SOURCE):
            stack.enter_context(Stream(server))
        assert first.ended()
        assert len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())) - before <= CONNECTIONS_BY_SOURCE


def test_an_idle_connection_ends(server: Server) -> None:
    with Stream(server) as idle, Stream(server) as slow, Stream(server) as busy:
        slow.send(b"\0")
        began = time.monotonic()
        while time.monotonic() - began < IDLE_SECONDS / 2:
            busy.send(framed(query("web.machines.internal.")))
            busy.next()
        assert idle.ended()
        assert slow.ended()
        busy.send(framed(query("web.machines.internal.")))
        assert busy.next().rcode() == Rcode.NOERROR
        assert time.monotonic() - began < IDLE_SECONDS + PATIENCE


def test_fuzz_over_the_wire(server: Server) -> None:
    fuzz.attack(server, 20000, 11)


# --- other names ---

class Upstream:
    """A server that answers with the query itself, as a response, and what it is told: in a thread."""

    def __init__(self, mute: bool = False, size: int = 0, wrong: bool = False) -> None:
        self.seen: list[bytes] = []
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(self._tcp.getsockname())
        self._mute, self._size, self._wrong = mute, size, wrong
        self._pipe = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def place(self) -> str:
        return "{}:{}".format(*self._udp.getsockname())

    def close(self) -> None:
        os.write(self._pipe[1], b"x")
        self._thread.join()
        for descriptor in self._pipe:
            os.close(descriptor)
        self._udp.close()
        self._tcp.close()

    def _answer(self, wire: bytes) -> bytes:
        self.seen.append(wire)
        return dns.message.make_response(dns.message.from_wire(wire)).to_wire() + bytes(self._size)

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for readable in (self._udp, self._tcp, self._pipe[0]):
                selector.register(readable, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj == self._pipe[0]:
                        return
                    if key.fileobj is self._udp:
                        wire, peer = self._udp.recvfrom(4096)
                        if self._mute:
                            self.seen.append(wire)
                            continue
                        if self._wrong:     # what an attacker would send, who cannot see the query
                            self._udp.sendto(b"\0\0" + self._answer(wire)[2:], peer)
                            self._udp.sendto(wire[:2] + self._answer(query("other.example.").to_wire())[2:], peer)
                        self._udp.sendto(self._answer(wire), peer)
                    else:
                        accepted, _ = self._tcp.accept()
                        with accepted:
                            accepted.settimeout(PATIENCE)
                            file = accepted.makefile("rb")
                            answer = self._answer(file.read(int.from_bytes(file.read(2))))
                            accepted.sendall(len(answer).to_bytes(2) + answer)
                            file.close()


@pytest.fixture
def upstreams() -> Iterator[list[Upstream]]:
    made: list[Upstream] = []
    yield made
    for upstream in made:
        upstream.close()


@pytest.mark.parametrize("ask", [udp, tcp])
def test_other_names_are_forwarded(table: Table, upstreams: list[Upstream], ask: object) -> None:
    upstreams.append(Upstream())
    with Server(table, f"--forward={upstreams[0].place}") as server:
        asked = query("ExAmPle.com.", use_edns=0)
        answer = udp(server, asked) if ask is udp else tcp(server, asked)
        assert asked.is_response(answer)
        assert answer.question[0].name.labels[0] == b"ExAmPle"
        assert addresses(udp(server, query("web.machines.internal."))) == ["10.1.2.3"]
        assert len(upstreams[0].seen) == 1
        assert upstreams[0].seen[0][2:] == asked.to_wire()[2:]
        server.stop()


def test_answers_to_something_else_are_not_taken(table: Table, upstreams: list[Upstream]) -> None:
    upstreams.append(Upstream(wrong=True))
    with Server(table, f"--forward={upstreams[0].place}") as server:
        asked = query("example.com.")
        assert udp(server, asked).question == asked.question
        server.stop()


def test_the_next_server_is_asked_where_one_is_mute_or_not_there(table: Table, upstreams: list[Upstream]) -> None:
    upstreams += [Upstream(mute=True), Upstream()]
    with Server(table, "--forward=127.0.0.1:1", f"--forward={upstreams[0].place}",
                f"--forward={upstreams[1].place}") as server:
        assert udp(server, query("example.com.")).rcode() == Rcode.NOERROR
        assert upstreams[0].seen
        server.stop()


def test_no_server_answers(table: Table, upstreams: list[Upstream]) -> None:
    upstreams.append(Upstream(mute=True))
    with Server(table, f"--forward={upstreams[0].place}") as server:
        assert udp(server, query("example.com.")).rcode() == Rcode.SERVFAIL
        assert addresses(udp(server, query("web.machines.internal."))) == ["10.1.2.3"]
        server.stop()


def test_a_mute_server_holds_up_neither_the_zone_nor_this_server(table: Table, upstreams: list[Upstream]) -> None:
    upstreams.append(Upstream(mute=True))
    with Server(table, f"--forward={upstreams[0].place}") as server, Stream(server) as stream:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(server.address)
            for number in range(2000):
                client.send(query(f"n{number}.example.").to_wire())
        stream.send(b"".join(framed(query(f"n{number}.example.")) for number in range(FORWARDED_MAX * 2)))
        assert addresses(udp(server, query("web.machines.internal."))) == ["10.1.2.3"]
        assert len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())) < 600
        server.stop()


def test_it_is_no_resolver_for_all_the_world(table: Table, upstreams: list[Upstream]) -> None:
    upstreams.append(Upstream())
    with Server(table, f"--forward={upstreams[0].place}", "--forward-for=10.0.0.0/8") as server:
        assert udp(server, query("example.com.")).rcode() == Rcode.REFUSED
        assert tcp(server, query("example.com.")).rcode() == Rcode.REFUSED
        assert addresses(udp(server, query("web.machines.internal."))) == ["10.1.2.3"]
        assert upstreams[0].seen == []
        server.stop()


def test_a_longer_answer_than_the_client_takes_is_truncated(table: Table, upstreams: list[Upstream]) -> None:
    upstreams.append(Upstream(size=1400))
    with Server(table, f"--forward={upstreams[0].place}") as server:
        assert udp(server, query("example.com.", use_edns=0, payload=4096)).flags & dns.flags.TC
        server.stop()


# --- the process ---

def test_nowhere_to_listen() -> None:
    done = subprocess.run([sys.executable, "-m", "resolver.dns"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "nowhere to listen" in done.stderr


def test_an_address_that_is_taken(server: Server, table: Table) -> None:
    done = subprocess.run([sys.executable, "-m", "resolver.dns", f"--listen=127.0.0.1:{server.port}",
                           f"--table={table.path}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"127.0.0.1:{server.port}: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_look_up_goes_through_nss(table: Table, tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace")
    trace = tmp_path / "trace"
    with Server(table, before=[strace, "-f", "-qq", "-e", "trace=%file,connect,execve", "-o", str(trace)]) as server:
        assert udp(server, query("web.machines.internal.")).rcode() == Rcode.NOERROR
        tcp(server, query("nobody.machines.internal."))
        child, = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        server.process.communicate(timeout=PATIENCE)
    traced = trace.read_text()
    assert "table-2" in traced
    assert re.findall(r"nsswitch|libnss|/etc/passwd|/etc/group|nscd|resolv\.conf|/etc/hosts", traced) == []
