# SPDX-License-Identifier: MIT
"""io.systemd.Resolve.Hook, from a client written against the interface's text; the process, and its table."""

import base64
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import pytest

from resolver.varlink.client import Client
from tests.dns.serving import PATIENCE, Process, Table

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")  # the table must be root's

HOOK = "io.systemd.Resolve.Hook"
A, AAAA, SRV, ANY = 1, 28, 33, 255

ANSWER_SECONDS = 0.1
"""What is promised; a test that is put off the processor asks again."""


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    table = Table(tmp_path / "table-2")
    table.add("web", "10.1.2.3", "fd00::1")
    table.add("ai", "10.1.2.4")
    table.add("Mixed.Case", "10.1.2.5")
    yield table
    table.close()


def start(table: Table, *arguments: str) -> Process:
    socket_path = table.path.with_name("hook") / "io.systemd.Machine"
    return Process("resolver.hook", f"--socket={socket_path}", f"--table={table.path}", *arguments)


@pytest.fixture
def hook(table: Table) -> Iterator[Path]:
    with start(table) as process:
        yield table.path.with_name("hook") / "io.systemd.Machine"
        process.stop()


def question(name: str, rdtype: int = A, rdclass: int = 1) -> dict[str, Any]:
    return {"key": {"class": rdclass, "type": rdtype, "name": name}}


def ask(hook: Path, *questions: dict[str, Any]) -> dict[str, Any]:
    with Client(str(hook), PATIENCE) as client:
        return client.call(f"{HOOK}.ResolveRecord", {"question": list(questions)})


def records(reply: dict[str, Any]) -> set[tuple[str, str, str, int]]:
    """(owner, type, data, ttl) of the answer, read by dnspython."""
    found = set()
    for answer in reply["answer"]:
        raw = base64.b64decode(answer["raw"], validate=True)
        name, used = dns.name.from_wire(raw, 0)
        # A message with this one record, for dnspython reads no record alone.
        message = dns.message.from_wire(b"\0\0\x84\0\0\0\0\1\0\0\0\0" + raw)
        rrset, = message.answer
        assert rrset.name == name
        assert used < len(raw)
        found.add((rrset.name.to_text(), dns.rdatatype.to_text(rrset.rdtype), rrset[0].to_text(), rrset.ttl))
    return found


class Subscription:
    """QueryFilter with `more`, as resolved holds it."""

    def __init__(self, hook: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(hook))
        self._socket.sendall(json.dumps({"method": f"{HOOK}.QueryFilter", "more": True}).encode() + b"\0")
        self._file = self._socket.makefile("rb")

    def next(self) -> list[str]:
        text = bytearray()
        while (byte := self._file.read(1)) != b"\0":
            assert byte, "the subscription has ended"
            text += byte
        message = json.loads(text)
        assert message["continues"] is True
        domains: list[str] = message["parameters"]["filterDomains"]
        return domains

    def ended(self) -> bool:
        return self._file.read(1) == b""

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def test_the_filter_has_the_machines_and_the_zone(hook: Path) -> None:
    with Client(str(hook), PATIENCE) as client:
        reply = client.call(f"{HOOK}.QueryFilter", {})
    assert reply == {"filterDomains": ["ai", "mixed.case", "web", "machines.internal"]}


@pytest.mark.parametrize("name", ["web", "WEB", "web."])
def test_a_machine(hook: Path, name: str) -> None:
    reply = ask(hook, question(name), question(name, AAAA))
    owner = name.removesuffix(".") + "."
    assert reply["rcode"] == 0
    assert records(reply) == {(owner, "A", "10.1.2.3", 0), (owner, "AAAA", "fd00::1", 0)}


def test_a_machine_in_the_zone(hook: Path) -> None:
    assert records(ask(hook, question("web.machines.internal"))) == {("web.machines.internal.", "A", "10.1.2.3", 0)}
    assert ask(hook, question("nobody.machines.internal")) == {"rcode": 3}


def test_a_machine_without_that_type_is_not_asked_of_dns(hook: Path) -> None:
    assert ask(hook, question("ai", AAAA)) == {"rcode": 0, "answer": []}
    assert ask(hook, question("web", SRV)) == {"rcode": 0, "answer": []}


@pytest.mark.parametrize("name", ["www.nic.ai", "nic.ai", "x.web", "www.x.web", "case", "nobody", "internal", "", ".",
                                  "web.machines.internal.example", "bücher", "a..b", "x" * 64, "\0", "."*300,
                                  "web\\.x", "1.2.1.10.in-addr.arpa"])
def test_what_is_not_exactly_ours_is_left_to_dns(hook: Path, name: str) -> None:
    assert ask(hook, question(name), question(name, AAAA)) == {}


@pytest.mark.parametrize("odd", [question("web", A, 3), question("web", 0), question("web", -1),
                                 question("web", 70000), question("web", A, 2**40)])
def test_odd_classes_and_types_are_left_to_dns(hook: Path, odd: dict[str, Any]) -> None:
    assert ask(hook, odd) == {}


def test_each_question_is_looked_at_by_itself(hook: Path) -> None:
    assert records(ask(hook, question("ai"), question("web"))) == {
        ("ai.", "A", "10.1.2.4", 0), ("web.", "A", "10.1.2.3", 0)}
    # The two spellings of one name, as resolved asks: the one that is a machine's is answered.
    assert records(ask(hook, question("wéb"), question("web"))) == {("web.", "A", "10.1.2.3", 0)}
    assert records(ask(hook, question("nobody.machines.internal"), question("ai"))) == {("ai.", "A", "10.1.2.4", 0)}
    assert ask(hook) == {}


def test_what_a_newer_resolved_adds_is_no_reason_to_fail(hook: Path) -> None:
    with Client(str(hook), PATIENCE) as client:
        reply = client.call(f"{HOOK}.ResolveRecord", {"question": [question("ai") | {"new": 1}], "ifindex": 3})
    assert reply["rcode"] == 0


def test_a_subscriber_hears_of_what_comes_and_goes(hook: Path, table: Table) -> None:
    subscription = Subscription(hook)
    try:
        assert "later" not in subscription.next()
        table.add("later", "10.1.2.9")
        assert "later" in subscription.next()
        assert ask(hook, question("later"))["rcode"] == 0
        table.remove("later")
        assert "later" not in subscription.next()
        assert ask(hook, question("later")) == {}
    finally:
        subscription.close()


def test_a_subscriber_hears_at_once(hook: Path, table: Table) -> None:
    subscription = Subscription(hook)
    try:
        subscription.next()
        fastest = PATIENCE
        for number in range(10):
            began = time.monotonic()
            table.add(f"m{number}", f"10.9.0.{number}")
            while f"m{number}" not in subscription.next():
                pass
            fastest = min(fastest, time.monotonic() - began)
        assert fastest < ANSWER_SECONDS     # the thread sleeps five times as long when nobody wakes it
    finally:
        subscription.close()


def test_a_table_that_grows_is_followed(hook: Path, table: Table) -> None:
    subscription = Subscription(hook)
    try:
        subscription.next()
        for number in range(300):
            table.add(f"m{number}", f"10.9.{number >> 8}.{number & 255}")
        while "m299" not in subscription.next():
            pass
        assert ask(hook, question("m299"))["rcode"] == 0
    finally:
        subscription.close()


def test_without_a_table_nothing_is_ours(hook: Path, table: Table) -> None:
    subscription = Subscription(hook)
    try:
        subscription.next()
        table.close()
        assert subscription.next() == []
        assert ask(hook, question("web")) == {}
        assert ask(hook, question("web.machines.internal")) == {}
    finally:
        subscription.close()


def test_answers_come_in_time_whoever_else_is_there(hook: Path) -> None:
    crowd = [Subscription(hook) for _ in range(100)]
    mute = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(100)]
    try:
        for one in mute:
            one.connect(str(hook))
            one.sendall(b'{"method"')
        fastest = PATIENCE
        for _ in range(20):
            began = time.monotonic()
            ask(hook, question("web"))
            fastest = min(fastest, time.monotonic() - began)
        assert fastest < ANSWER_SECONDS
    finally:
        for subscription in crowd:
            subscription.close()
        for one in mute:
            one.close()


def test_the_socket_is_for_all_and_goes_with_the_process(table: Table) -> None:
    with start(table) as process:
        path = table.path.with_name("hook") / "io.systemd.Machine"
        assert stat.S_IMODE(path.lstat().st_mode) == 0o666      # resolved is not root
        subscription = Subscription(path)
        subscription.next()
        process.stop()
        assert list(path.parent.iterdir()) == []
        assert subscription.ended()
        subscription.close()


def test_a_socket_of_a_process_that_crashed_is_replaced(table: Table) -> None:
    path = table.path.with_name("hook") / "io.systemd.Machine"
    with start(table) as process:
        process.process.send_signal(signal.SIGKILL)
        process.process.wait(PATIENCE)
        process.process.communicate()
    assert path.exists()
    with start(table) as process:
        assert records(ask(path, question("web")))
        process.stop()
    assert not path.exists()


def test_it_asks_no_one(table: Table) -> None:
    code = "import sys, resolver.hook.__main__; print({'pwd', 'grp', 'dns.resolver', 'dns.query'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_it_needs_no_asyncio() -> None:
    """Which would be a third of its memory."""
    run = subprocess.run([sys.executable, "-c", "import sys, resolver.hook.__main__; print('asyncio' in sys.modules)"],
                         capture_output=True, text=True, timeout=PATIENCE)
    assert (run.stdout, run.stderr) == ("False\n", "")
