# SPDX-License-Identifier: MIT
"""Scenarios without a table: the daemon is asked, or there is none either. Run by inside.py."""

import errno
import os
import signal
import socket
import struct
import time

from resolver._table import lib

from .entry_points import HOST_NOT_FOUND, NOTFOUND, SUCCESS, UNAVAIL, UNTOUCHED, Reply, Shim
from .fake_daemon import SOCKET, V4, WEB_PACKET, Talk, daemon, header, host_packet, id_packet
from .tables import MACHINES, TABLE, publish, table_bytes
from .with_table import WEB_TUPLES, WEB_USER

DEADLINE_SECONDS = 0.25


def asked(shim: Shim) -> None:
    """Without a table, the daemon's answers are given, and its questions are in the grammar."""
    unavailable = Reply(UNAVAIL, errno.ENOENT, UNTOUCHED, UNTOUCHED)

    def talk(question: bytes) -> bytes:
        kind = struct.unpack_from("=II", question)[1]
        bodies = {1: WEB_PACKET, 2: host_packet(b"web", ("10.0.0.2", 0, 2)), 3: id_packet(), 4: id_packet()}
        bodies[5] = id_packet(name=b"vg-web-5")
        return header(question) + bodies[kind] if kind in bodies else header(question, lib.ANSWER_UNKNOWN)

    with daemon(talk) as questions:
        assert shim.gethostbyname4("WEB.").value == WEB_TUPLES
        assert shim.gethostbyaddr("10.0.0.2").value == ("web", V4, ["10.0.0.2"])
        assert shim.getpwnam("vu-web-1000").value == WEB_USER
        assert shim.getpwuid((1 << 20) + 1000).value == WEB_USER
        assert shim.getgrnam("vg-web-5").status == SUCCESS
        assert shim.getgrgid(1 << 20).status == NOTFOUND
        assert shim.getpwuid(1 << 20) == unavailable  # the reply is another user's
        assert shim.getpwuid(1000).status == NOTFOUND  # nobody is asked
        assert shim.getpwnam("root").status == NOTFOUND
        assert shim.gethostbyname("a" * 70).h_errnop == HOST_NOT_FOUND
        assert len(questions) == 7
        assert questions[0] == struct.pack("=IIII16s68s", 1, 1, 0, 0, b"", b"WEB.")
        assert questions[1] == struct.pack("=IIII16s68s", 1, 2, 0, V4, bytes([10, 0, 0, 2]), b"")
        assert questions[3] == struct.pack("=IIII16s68s", 1, 4, (1 << 20) + 1000, 0, b"", b"")


def wrong_replies(shim: Shim) -> None:
    """Whatever is not in the grammar is no answer; nothing is waited for after it."""
    no_host = Reply(UNAVAIL, errno.ENOENT, HOST_NOT_FOUND, UNTOUCHED)
    no_user = Reply(UNAVAIL, errno.ENOENT, UNTOUCHED, UNTOUCHED)
    unterminated = bytearray(WEB_PACKET)
    unterminated[:68] = b"w" * 68
    too_many = bytearray(WEB_PACKET)
    too_many[68:72] = struct.pack("=I", 129)
    strange_family = bytearray(WEB_PACKET)
    strange_family[72:76] = struct.pack("=I", 1)
    host_replies: list[Talk] = [
        lambda _: b"",  # hangs up
        lambda _: b"x",
        header,
        lambda q: header(q, layout=2) + WEB_PACKET,
        lambda q: header(q, result=lib.ANSWER_UNAVAILABLE),
        lambda q: header(q, result=lib.ANSWER_UNKNOWN) + b"x",
        lambda q: header(q, result=77) + WEB_PACKET,
        lambda _: struct.pack("=III", 1, 2, 0) + WEB_PACKET,
        lambda q: header(q) + WEB_PACKET[:-1],
        lambda q: header(q) + WEB_PACKET[:-28],
        lambda q: header(q) + WEB_PACKET + b"x",
        lambda q: header(q) + WEB_PACKET + bytes(28),
        lambda q: header(q) + WEB_PACKET + bytes(8000),
        lambda q: header(q) + bytes(unterminated),
        lambda q: header(q) + bytes(too_many),
        lambda q: header(q) + bytes(strange_family),
        lambda q: header(q) + host_packet(b""),
    ]
    user_replies: list[Talk] = [
        lambda q: header(q, result=lib.ANSWER_UNKNOWN) + b"x",
        lambda q: header(q) + id_packet()[:-1],
        lambda q: header(q) + id_packet() + b"x",
        lambda q: header(q) + id_packet(name=b"vu-web-1001"),
        lambda q: header(q) + id_packet(name=b"v" * 32),
        lambda q: header(q) + id_packet(machine=b"m" * 68),
        lambda q: header(q) + id_packet(host_id=0),
        lambda q: header(q) + id_packet(host_id=65535),
        lambda q: header(q) + id_packet(host_id=4294967295),
    ]
    start = time.monotonic()
    for talk in host_replies:
        with daemon(talk) as questions:
            assert shim.gethostbyname4("web") == no_host
            assert len(questions) == 1
    for talk in user_replies:
        with daemon(talk) as questions:
            assert shim.getpwnam("vu-web-1000") == no_user
            assert len(questions) == 1
    with daemon(lambda q: header(q) + host_packet(b"web", ("10.0.0.3", 0, 2))):
        assert shim.gethostbyaddr("10.0.0.2") == no_host
    with daemon(lambda q: header(q) + WEB_PACKET):
        assert shim.gethostbyaddr("10.0.0.2") == no_host
        assert shim.gethostbyname4("web").value == WEB_TUPLES
    with daemon(lambda q: header(q) + WEB_PACKET, socket.SOCK_STREAM):
        assert shim.gethostbyname4("web") == no_host
    assert time.monotonic() - start < 10 * DEADLINE_SECONDS * 4


def mute(shim: Shim) -> None:
    """A daemon that does not reply costs one deadline, not one for each look-up; later it is asked again."""
    with daemon(lambda _: None) as questions:
        start = time.monotonic()
        assert shim.getpwuid(1 << 20).status == UNAVAIL
        waited = time.monotonic() - start
        assert DEADLINE_SECONDS * 0.9 < waited < DEADLINE_SECONDS * 10, waited
        for number in range(500):
            assert shim.getpwuid((1 << 20) + number).status == UNAVAIL
        assert time.monotonic() - start < DEADLINE_SECONDS * 10
        assert len(questions) <= 3
    with daemon(lambda q: header(q) + WEB_PACKET):
        while shim.gethostbyname4("web").value != WEB_TUPLES:
            assert time.monotonic() < start + 10, "taken for mute for ever"


def backlog(shim: Shim) -> None:
    """A socket on which nobody accepts and whose backlog is full: nothing is waited for."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(SOCKET))
        listener.listen(0)
        waiting = []
        while True:
            client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            client.setblocking(False)
            waiting.append(client)
            if client.connect_ex(str(SOCKET)) == errno.EAGAIN:
                break
        start = time.monotonic()
        assert shim.getpwuid(1 << 20) == Reply(UNAVAIL, errno.ENOENT, UNTOUCHED, UNTOUCHED)
        assert time.monotonic() - start < DEADLINE_SECONDS
        for client in waiting:
            client.close()


def interrupted(shim: Shim) -> None:
    """Signals neither end the wait nor make it longer."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    with daemon(lambda _: None):
        start = time.monotonic()
        assert shim.getpwuid(1 << 20).status == UNAVAIL
        waited = time.monotonic() - start
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert DEADLINE_SECONDS * 0.9 < waited < DEADLINE_SECONDS * 10, waited


def not_roots_daemon(shim: Shim) -> None:
    """A daemon that is not root's is not believed: the kernel says who listens."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.chmod("/run/mymachines", 0o777)
        os.setuid(1234)
        with daemon(lambda q: header(q) + WEB_PACKET):
            os.write(told, b"x")
            time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    try:
        assert shim.gethostbyname4("web").status == UNAVAIL
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def absent(shim: Shim) -> None:
    """Neither table nor daemon: unavailable at once, and what needs neither is known. No descriptor stays open."""
    before = os.listdir("/proc/self/fd")
    start = time.monotonic()
    for _ in range(200):
        assert shim.gethostbyname4("web") == Reply(UNAVAIL, errno.ENOENT, HOST_NOT_FOUND, UNTOUCHED)
        assert shim.getpwuid(1 << 20) == Reply(UNAVAIL, errno.ENOENT, UNTOUCHED, UNTOUCHED)
        assert shim.getpwuid(0).status == NOTFOUND
    assert time.monotonic() - start < DEADLINE_SECONDS * 10
    for talk in (lambda _: b"x", lambda q: header(q) + WEB_PACKET):
        with daemon(talk):
            for _ in range(20):
                shim.gethostbyname4("web")
                shim.getpwuid(1 << 20)
    publish(TABLE, table_bytes(MACHINES))
    for _ in range(20):
        assert shim.gethostbyname4("web").status == SUCCESS
        publish(TABLE, table_bytes(MACHINES))
    assert os.listdir("/proc/self/fd") == before
