# SPDX-License-Identifier: MIT
"""Dialogues with a server: what it answers, in which order, and what it does not let clients do."""

import logging
import os
import resource
import select
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resolver.varlink import peer as peer_module
from resolver.varlink.codec import CALL_MAX
from resolver.varlink.server import Limits, listen
from tests.lab.waiting import wait_for
from tests.servers.conftest import Serve, open_files
from tests.servers.dialogue import PATIENCE, Dialogue, message, rights

QUICK = Limits(input_seconds=0.2, output_seconds=0.2)

SERVICE = "org.varlink.service"


def error(name: str, **parameters: Any) -> dict[str, Any]:
    return {"error": name, "parameters": parameters}


# --- what is answered ---

def test_service_tells_about_itself(serve: Serve) -> None:
    server = serve()
    assert server.call(f"{SERVICE}.GetInfo") == {"parameters": {
        "vendor": "vendor", "product": "product", "version": "1", "url": "https://example.org",
        "interfaces": ["io.systemd", "org.example.test", SERVICE]}}
    described = server.call(f"{SERVICE}.GetInterfaceDescription", {"interface": SERVICE})["parameters"]["description"]
    assert "interface org.varlink.service\n" in described
    assert server.call(f"{SERVICE}.GetInterfaceDescription", {"interface": "a.b"}) == error(
        f"{SERVICE}.InterfaceNotFound", interface="a.b")


@pytest.mark.parametrize(("call", "reply"), [
    (("org.example.none.Echo", {}), error(f"{SERVICE}.InterfaceNotFound", interface="org.example.none")),
    (("org.example.test.echo", {}), error(f"{SERVICE}.MethodNotFound", method="org.example.test.echo")),
    (("Missing", {}), error(f"{SERVICE}.MethodNotImplemented", method="org.example.test.Missing")),
    (("Echo", {}), error(f"{SERVICE}.InvalidParameter", parameter="text")),
    (("Echo", {"text": 5}), error(f"{SERVICE}.InvalidParameter", parameter="text")),
    (("Echo", {"text": "x", "loud": True}), error(f"{SERVICE}.InvalidParameter", parameter="loud")),
    (("Refuse", {"field": "class"}), error(f"{SERVICE}.InvalidParameter", parameter="class")),
    (("NoMachine", {}), error("io.systemd.Machine.NoSuchMachine")),
    (("Bug", {}), error("io.systemd.System", origin="linux", errno=5, errnoName="EIO")),
    (("Bug", {"errno": 28}), error("io.systemd.System", origin="linux", errno=28, errnoName="ENOSPC")),
    (("Unlike", {}), error("io.systemd.System", origin="linux", errno=5, errnoName="EIO")),
    (("Nothing", {}), error("io.systemd.System", origin="linux", errno=5, errnoName="EIO")),
    (("Note", {"text": "x"}), {"parameters": {}}),
])
def test_replies(serve: Serve, call: tuple[str, dict[str, Any]], reply: dict[str, Any]) -> None:
    server = serve()
    with Dialogue(server.path) as client:
        client.send_call(*call)
        assert client.receive() == reply
        client.send_call("Echo", {"text": "still here"})
        assert client.receive() == {"parameters": {"text": "still here"}}


def test_a_method_without_interface(serve: Serve) -> None:
    with Dialogue(serve().path) as client:
        client.send(b'{"method":"Echo"}\0{"method":""}\0')
        assert client.receive() == error(f"{SERVICE}.InterfaceNotFound", interface="Echo")
        assert client.receive() == error(f"{SERVICE}.InterfaceNotFound", interface="")


def test_bugs_are_logged_with_a_traceback(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    serve().call("Bug")
    record = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert "Bug failed" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_upgrade_is_refused(serve: Serve) -> None:
    assert serve().call("Echo", {"text": "x"}, upgrade=True) == error(
        f"{SERVICE}.MethodNotImplemented", method="org.example.test.Echo")


def test_more_says_which_reply_is_the_last(serve: Serve) -> None:
    with Dialogue(serve().path) as client:
        client.send_call("Count", {"to": 3}, more=True)
        assert [client.receive() for _ in range(3)] == [
            {"parameters": {"number": 0, "pad": ""}, "continues": True},
            {"parameters": {"number": 1, "pad": ""}, "continues": True},
            {"parameters": {"number": 2, "pad": ""}}]
        client.send_call("Count", {"to": 1}, more=True)
        assert client.receive() == {"parameters": {"number": 0, "pad": ""}}
        client.send_call("Echo", {"text": "more than one is never"}, more=True)
        assert client.receive() == {"parameters": {"text": "more than one is never"}}


def test_several_replies_need_more(serve: Serve) -> None:
    server = serve()
    assert server.call("Count", {"to": 1}) == {"parameters": {"number": 0, "pad": ""}}
    assert server.call("Count", {"to": 2}) == error(f"{SERVICE}.ExpectedMore")
    assert server.handlers.ended.wait(PATIENCE)
    assert server.call("Subscribe") == error(f"{SERVICE}.ExpectedMore")


def test_an_error_may_come_behind_replies(serve: Serve) -> None:
    with Dialogue(serve().path) as client:
        client.send_call("CountThenFail", {"to": 2}, more=True)
        assert client.receive() == {"parameters": {"number": 0}, "continues": True}
        assert client.receive() == {"parameters": {"number": 1}, "continues": True}
        assert client.receive() == error("io.systemd.Machine.NoSuchMachine")


def test_a_stream_that_breaks_its_promise_ends_the_connection(serve: Serve) -> None:
    with Dialogue(serve().path) as client:
        client.send_call("Subscribe", more=True)
        assert [client.receive()["continues"] for _ in range(2)] == [True, True]
        client.closed_after()


def test_calls_sent_together_are_answered_in_order(serve: Serve) -> None:
    with Dialogue(serve().path) as client:
        client.send(b"".join(message("Echo", {"text": str(n)}) for n in range(500)) + message(
            "Count", {"to": 2}, more=True) + message("Echo", {"text": "last"}))
        assert [client.receive()["parameters"]["text"] for _ in range(500)] == [str(n) for n in range(500)]
        assert [client.receive().get("continues", False) for _ in range(3)] == [True, False, False]


def test_a_call_byte_by_byte(serve: Serve) -> None:
    with Dialogue(serve().path) as client:
        for byte in message("Echo", {"text": "slow"}) * 2:
            client.send(bytes([byte]))
        assert client.receive() == client.receive() == {"parameters": {"text": "slow"}}


def test_oneway_gets_no_reply_and_is_done_though_the_caller_has_gone(serve: Serve) -> None:
    server = serve()
    with Dialogue(server.path) as client:
        for method, parameters in (("Note", {"text": "a"}), ("Bug", {}), ("Echo", {"wrong": 1}), ("None", {}),
                                   ("Count", {"to": 5}), ("Descriptor", {"count": 2})):
            client.send_call(method, parameters, oneway=True)
        client.send_call("Echo", {"text": "the first reply"})
        assert client.receive() == {"parameters": {"text": "the first reply"}}
    with Dialogue(server.path) as client:
        client.send(b"".join(message("Note", {"text": f"b{n}"}, oneway=True) for n in range(50)))
    wait_for(lambda: len(server.handlers.notes) == 51, PATIENCE)


def test_who_has_shut_down_his_side_still_gets_replies(serve: Serve) -> None:
    with Dialogue(serve().path) as client:
        client.send(message("Echo", {"text": "1"}) + message("Count", {"to": 3}, more=True))
        client.sock.shutdown(socket.SHUT_WR)
        assert client.receive() == {"parameters": {"text": "1"}}
        assert [client.receive()["parameters"]["number"] for _ in range(3)] == [0, 1, 2]
        client.closed_after()


# --- what clients may not do ---

@pytest.mark.parametrize("bad", [
    b"hello\0", b"\0", b"[]\0", b"{}\0", b'{"method":5}\0', b'{"method":"a.B","parameters":[]}\0',
    b'{"method":"a.B","more":1}\0', b'{"method":"a.B","oneway":true,"more":true}\0',
    b'{"method":"a.B","method":"a.B"}\0',
    b"\xff\xfe\0", b'{"method":"a.B","parameters":' + b"[" * 5000 + b"\0", b"GET / HTTP/1.1\r\n\r\n\0",
    b"x" * (CALL_MAX + 1)])
def test_what_is_not_varlink_closes_that_connection_only(serve: Serve, bad: bytes,
                                                         caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server = serve()
    with Dialogue(server.path) as bystander, Dialogue(server.path) as client:
        client.send_call("Echo", {"text": "fine"})
        assert client.receive()
        try:
            client.send(bad)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert client.closed_after() < PATIENCE
        bystander.send_call("Echo", {"text": "fine"})
        assert bystander.receive() == {"parameters": {"text": "fine"}}
    assert [record.levelno for record in caplog.records if "protocol error" in record.getMessage()] == [logging.INFO]


def test_a_hundred_megabytes_are_cut_off_early(serve: Serve) -> None:
    with Dialogue(serve().path) as client:
        sent = 0
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012 - whenever it comes
            while sent < 100 * 2**20:
                sent += client.sock.send(b'{"method":"' if sent == 0 else b"x" * 65536)
        # What the kernel holds of it, wmem_default, was on its way already.
        assert sent < CALL_MAX + 2**20


@pytest.mark.parametrize("beginning", [b"", b'{"method":"org.exa', b'{"method":"a.B"}\0{"meth'])
def test_a_message_that_never_ends_has_a_deadline(serve: Serve, beginning: bytes) -> None:
    server = serve(limits=QUICK)
    with Dialogue(server.path) as client:
        client.send(beginning)
        if b"\0" in beginning:
            assert client.receive()
        assert 0.1 < client.closed_after() < PATIENCE


def test_dripping_bytes_gains_no_time(serve: Serve) -> None:
    with Dialogue(serve(limits=QUICK).path) as client:
        begin = time.monotonic()
        client.sock.settimeout(0.05)
        while time.monotonic() - begin < PATIENCE:
            try:
                client.send(b" ")
                if client.sock.recv(1) == b"":
                    break
            except TimeoutError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                break
        assert time.monotonic() - begin < PATIENCE


def test_who_has_asked_may_stay_idle(serve: Serve) -> None:
    with Dialogue(serve(limits=QUICK).path) as client, Dialogue(serve(limits=QUICK).path) as other:
        client.send_call("Echo", {"text": "1"})
        assert client.receive()
        other.closed_after()  # several sweeps have gone by
        client.send_call("Echo", {"text": "2"})
        assert client.receive() == {"parameters": {"text": "2"}}


def test_a_slow_reader_holds_up_its_generator_and_nobody_else(serve: Serve) -> None:
    server = serve()
    count, pad = 300, 10_000
    with Dialogue(server.path) as client:
        client.send_call("Count", {"to": count, "pad": pad}, more=True)
        client.sock.recv(1, socket.MSG_PEEK)
        seen = 0

        def at_rest() -> bool:
            nonlocal seen
            before, seen = seen, server.handlers.yielded
            return before == seen > 0

        server.call("Echo", {"text": "others are served"})
        wait_for(at_rest, PATIENCE)
        # wmem_default, 208 KiB, and what is under way
        assert server.handlers.yielded * pad < 1_000_000
        assert [client.receive()["parameters"]["number"] for _ in range(count)] == list(range(count))
        client.send_call("Echo", {"text": "and on"})
        assert client.receive() == {"parameters": {"text": "and on"}}


@pytest.mark.parametrize("call", [("Count", {"to": 10_000, "pad": 10_000}), ("Big", {"size": 2**22})])
def test_who_never_reads_is_dropped(serve: Serve, call: tuple[str, dict[str, Any]]) -> None:
    server = serve(limits=QUICK)
    with Dialogue(server.path) as client:
        client.send_call(*call, more=True)
        wait_for(lambda: server.server.connection_count == 0, PATIENCE)
        if call[0] == "Count":
            assert server.handlers.ended.wait(PATIENCE)


def test_a_big_reply_arrives_whole(serve: Serve) -> None:
    assert serve().call("Big", {"size": 2**22}) == {"parameters": {"pad": "x" * 2**22}}


def test_a_caller_who_goes_stops_its_generator(serve: Serve) -> None:
    server = serve()
    with Dialogue(server.path) as client:
        client.send_call("Count", {"to": 10**9, "pad": 1000}, more=True)
        assert client.receive()
    assert server.handlers.ended.wait(PATIENCE)
    wait_for(lambda: server.server.connection_count == 0, PATIENCE)


def test_a_generator_that_waits_is_asked_again_when_it_is_called(serve: Serve) -> None:
    server = serve()
    paused = server.handlers.paused
    with Dialogue(server.path) as client:
        client.send_call("Follow", more=True)
        for number in range(3):
            assert client.receive() == {"parameters": {"number": number}, "continues": True}
            wait_for(lambda: paused, PATIENCE)
            assert server.call("Echo", {"text": "x"}) == {"parameters": {"text": "x"}}
            server.in_loop(paused.pop())
        client.receive()
        wait_for(lambda: paused, PATIENCE)
        go_on, = paused
    wait_for(lambda: not paused, PATIENCE)      # who has gone is called by nobody
    server.in_loop(go_on)                       # and if he is, nothing comes of it
    assert server.call("Echo", {"text": "x"}) == {"parameters": {"text": "x"}}


# --- descriptors and credentials ---

def test_descriptors_of_clients_do_not_stay(serve: Serve) -> None:
    server = serve()
    reading, writing = os.pipe()
    try:
        with Dialogue(server.path) as client:
            assert client.sock.sendmsg([message("Echo", {"text": "take"})[:10]], rights([writing] * 200))
            client.sock.sendmsg([message("Echo", {"text": "take"})[10:]], rights([writing] * 200))
            assert client.receive() == {"parameters": {"text": "take"}}
            os.close(writing)
            writing = -1
            # Nobody else has the other end: at once, not only when the connection closes.
            assert os.read(reading, 1) == b""
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def test_descriptors_go_with_their_reply(serve: Serve) -> None:
    server = serve()
    with Dialogue(server.path) as client:
        client.send_call("Echo", {"text": "accepted"})
        assert client.receive()
        before = open_files()
        client.send_call("Descriptor", {"count": 3})
        reply, fds = client.receive_fds()
        assert reply == {"parameters": {"descriptor": 0}}
        try:
            assert [os.read(fd, 9) for fd in fds] == [b"0", b"1", b"2"]
        finally:
            for fd in fds:
                os.close(fd)
        # Server and test are one process: what the server had opened is closed too.
        wait_for(lambda: open_files().keys() == before.keys(), PATIENCE)


def test_descriptors_wait_with_their_reply_and_are_closed_with_the_connection(serve: Serve) -> None:
    server = serve(limits=QUICK)
    before = open_files()
    with Dialogue(server.path) as client:
        # Some hundreds fill the socket; the one that does not fit waits with its descriptor.
        client.send(message("Descriptor", {"count": 1}) * 1500)
        client.sock.recv(1, socket.MSG_PEEK)
        wait_for(lambda: server.server.connection_count == 0, PATIENCE)
    wait_for(lambda: open_files().keys() == before.keys(), PATIENCE)


def test_who_calls(serve: Serve) -> None:
    assert serve().call("Who")["parameters"] == {"uid": os.geteuid(), "pid": os.getpid(), "same": True}


def test_who_calls_on_a_kernel_without_peer_pidfds(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_module, "SO_PEERPIDFD", 9999)
    assert serve().call("Who")["parameters"] == {"uid": os.geteuid(), "pid": os.getpid(), "same": True}


@pytest.mark.parametrize("option", [77, 9999])
def test_the_pidfd_of_a_peer_that_is_gone_is_of_no_other_process(
        option: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peer_module, "SO_PEERPIDFD", option)
    with listen(str(tmp_path / "s")) as listener:
        code = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(tmp_path / 's')!r})"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
        sock, _ = listener.accept()
        with sock:
            peer = peer_module.Peer(sock)
            assert peer.pid != os.getpid()
            try:
                # From Linux 6.15 or so on, SO_PEERPIDFD tells of dead processes too: such a pidfd is readable at once.
                assert peer.pidfd is None or select.select([peer.pidfd], [], [], 0)[0]
                assert option == 77 or peer.pidfd is None
            finally:
                peer.close()


def test_an_older_kernel_is_believed_only_while_the_connection_is_up(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peer_module, "SO_PEERPIDFD", 9999)
    with listen(str(tmp_path / "s")) as listener, Dialogue(str(tmp_path / "s")) as client:
        sock, _ = listener.accept()
        with sock:
            client.sock.close()
            assert peer_module.Peer(sock).pidfd is None


# --- the socket ---

def test_socket_is_everybodys_and_its_directory_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "socket"
    with listen(str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
        assert os.listdir(path.parent) == ["socket"]


def test_socket_takes_the_place_of_an_old_one_and_goes(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "socket0").write_text("left over")
    server = serve()
    assert server.call("Echo", {"text": "x"})
    server.stop()
    assert os.listdir(tmp_path) == []


def test_a_successors_socket_stays(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    with listen(server.path):
        server.stop()
        assert os.path.exists(server.path)


def test_nothing_stays_where_the_socket_cannot_be_made(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "socket0").mkdir()
    with pytest.raises(IsADirectoryError):
        serve()
    assert os.listdir(tmp_path) == ["socket0"]


def test_a_client_never_finds_no_socket(serve: Serve, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    connected, listeners = 0, [listen(path)]
    try:
        for _ in range(50):
            listeners.append(listen(path))
            with Dialogue(path):
                connected += 1
    finally:
        for listener in listeners:
            listener.close()
    assert connected == 50


def test_a_listening_descriptor_is_adopted(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    server = serve(listener_fd=listener.detach())
    server.path = str(path)
    assert server.call("Echo", {"text": "x"}) == {"parameters": {"text": "x"}}
    server.stop()
    assert path.exists()


def test_close_ends_connections_and_calls(serve: Serve) -> None:
    server = serve()
    with Dialogue(server.path) as idle, Dialogue(server.path) as busy:
        busy.send_call("Count", {"to": 10**9, "pad": 10_000}, more=True)
        busy.sock.recv(1)
        server.stop()
        idle.closed_after()
        assert server.handlers.ended.is_set()
        with pytest.raises(FileNotFoundError):
            Dialogue(server.path)


# --- how many ---

def test_who_has_the_most_gives_up_the_longest_idle(serve: Serve) -> None:
    server = serve(limits=Limits(connections=4, reserved_for_root=1, connections_by_uid=3))
    clients = [Dialogue(server.path) for _ in range(4 if os.geteuid() == 0 else 3)]
    try:
        for client in [*clients[1:], clients[0]]:
            client.send_call("Echo", {"text": "x"})
            assert client.receive()
        clients.append(Dialogue(server.path))
        clients[-1].send_call("Echo", {"text": "new"})
        assert clients[-1].receive() == {"parameters": {"text": "new"}}
        clients[1].closed_after()
        for client in (clients[0], clients[2]):
            client.send_call("Echo", {"text": "still"})
            assert client.receive() == {"parameters": {"text": "still"}}
    finally:
        for client in clients:
            client.sock.close()


@pytest.fixture
def room_for_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.usefixtures("room_for_descriptors")
def test_a_thousand_idle_connections_of_one_user_leave_room_for_others(serve: Serve, tmp_path: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    server = serve(limits=Limits(connections=600, connections_by_uid=512, reserved_for_root=50))
    code = f"""
import os, socket, sys
os.setgid(12345); os.setuid(int(sys.argv[1]))
held = []
for _ in range(1000):
    held.append(socket.socket(socket.AF_UNIX)); held[-1].connect({server.path!r})
held[-1].send({message("Who")!r}); assert held[-1].recv(1000)
print("connected", flush=True); sys.stdin.read()
"""
    hogs = [subprocess.Popen([sys.executable, "-c", code, str(uid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for uid in (12345, 12346)]
    try:
        for hog in hogs:
            assert hog.stdout is not None
            assert hog.stdout.readline() == b"connected\n"
        begin = time.monotonic()
        assert server.call("Who")["parameters"]["uid"] == 0
        assert time.monotonic() - begin < 1
        assert server.server.connection_count <= 551
        other = (f"import os; from resolver.varlink.client import Client; os.setgid(12347); os.setuid(12347); "
                 f"print(Client({server.path!r}).call('org.example.test.Who')['uid'])")
        run = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, timeout=60)
        assert (run.stdout, run.stderr) == ("12347\n", "")
    finally:
        for hog in hogs:
            hog.communicate(b"", timeout=60)
    wait_for(lambda: server.server.connection_count == 0, PATIENCE)


class Told(logging.Handler):
    """An event for a line in the log. wait_for() is of no use where nothing can be opened: it looks at processes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.event = threading.Event()
        self._text = text

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self.event.set()


def test_without_descriptors_the_server_waits_and_goes_on(serve: Serve) -> None:
    server = serve()
    told = Told("cannot accept")
    log = logging.getLogger("resolver.varlink.server")
    log.addHandler(told)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    highest = max(int(fd) for fd in open_files())
    filler: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        try:
            while True:
                filler.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        client.connect(server.path)
        assert told.event.wait(PATIENCE)
    finally:
        log.removeHandler(told)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in filler:
            os.close(fd)
    with client:
        client.sendall(message("Echo", {"text": "x"}))
        assert client.recv(100)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("endless", [False, True])
def test_one_user_has_a_few_streams_at_a_time_and_the_next_in_their_turn(
        serve: Serve, tmp_path: Path, endless: bool) -> None:
    tmp_path.chmod(0o755)   # it is gone into before the user changes: who may pass above it does not matter
    limits = Limits(streams_by_uid=3, output_seconds=0.5 if endless else PATIENCE)
    server = serve(limits=limits)
    code = f"""
import os, socket, sys
os.chdir({str(tmp_path)!r})
os.setgid(12345); os.setuid(12345)
held = []
for _ in range(9):
    held.append(socket.socket(socket.AF_UNIX)); held[-1].connect({os.path.basename(server.path)!r})
    held[-1].send({message("Count", {"to": 10**9 if endless else 200, "pad": 10_000}, more=True)!r})
    held[-1].settimeout({PATIENCE})
print("asked", flush=True); sys.stdin.readline()
for sock in held:
    replies = 0
    try:
        while {not endless} and replies < 200 and (data := sock.recv(65536)):
            replies += data.count(b"\\0")
    except ConnectionResetError: pass
    print(replies, flush=True)
"""
    hog = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert hog.stdout is not None
        assert hog.stdout.readline() == "asked\n"

        def streams() -> list[Any]:
            return server.server._streams.get(12345, [])

        if endless:
            # Those that listen read nothing and go by their deadline; so do those that wait. Nothing stays.
            wait_for(lambda: server.server.connection_count == 0, PATIENCE)
        else:
            wait_for(lambda: len(streams()) == 9, PATIENCE)
            # Those that have begun are stopped by full sockets, and the others have not begun.
            assert [stream._waiting is not None for stream in streams()] == [False] * 3 + [True] * 6
            # Root is served beside them, streams too; so are this user's calls of one reply.
            with Dialogue(server.path) as client:
                client.send_call("Count", {"to": 2}, more=True)
                assert [client.receive()["parameters"]["number"] for _ in range(2)] == [0, 1]
        output, _ = hog.communicate("go\n", timeout=60)
        assert output.split() == ["0" if endless else "200"] * 9
    finally:
        hog.kill()
        hog.communicate()
    wait_for(lambda: not server.server._streams and server.server.connection_count == 0, PATIENCE)
