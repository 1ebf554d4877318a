# SPDX-License-Identifier: MIT
"""Our sockets: an honest question to each, half of it, and what a client asks for that never reads."""

import os
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

import dns.message
from dbus_fast import Message, MessageType

from resolver._table import ffi, lib
from resolver.dbus.reader import Reader
from resolver.varlink.codec import encode

PATIENCE = 20.0
"""Seconds until an honest client gives up."""

HOSTILE_ADDRESS = "127.0.0.2"
"""DNS knows its clients by address: where the hostile one comes from. The honest are at 127.0.0.1."""

SLOW_BYTES = 64 * 1024
"""Of questions sent ahead by who reads no answer: some hundreds."""

_TIMEVAL = struct.Struct("ll")


class Door(NamedTuple):
    """`place` is a path, or for DNS a port."""

    place: str
    question: bytes
    slow: bytes
    """What asks for more than a socket holds; sent again and again until nothing more is taken."""
    family: int = socket.AF_UNIX
    kind: int = socket.SOCK_STREAM
    greeting: bytes = b""
    """Before the question, once a connection."""
    ended: Callable[[bytes], bool] = lambda answer: answer.endswith(b"\0")
    """Whether an answer is whole."""
    keeps: bool = False
    """The honest ask on one connection: how it is made is another program's matter."""

    @property
    def half(self) -> bytes:
        return self.question[:len(self.question) // 2]

    def connect(self, hostile: bool = False) -> socket.socket:
        """OSError where nobody takes us."""
        sock = socket.socket(self.family, self.kind)
        try:
            if self.family == socket.AF_INET:
                sock.bind((HOSTILE_ADDRESS if hostile else "127.0.0.1", 0))
                sock.settimeout(PATIENCE)
                sock.connect(("127.0.0.1", int(self.place)))
            else:
                # connect(2) then waits where the backlog is full; a socket with a Python timeout would not (unix(7)).
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(int(PATIENCE), 0))
                sock.connect(self.place)
                sock.settimeout(PATIENCE)
            if self.greeting:
                _greet(sock, self.greeting)
        except BaseException:
            sock.close()
            raise
        return sock

    def ask(self, sock: socket.socket) -> bytes:
        """The answer; ConnectionError for none, TimeoutError for a late one."""
        sock.sendall(self.question)
        if self.greeting:
            return _reply(sock)
        answer = b""
        while not self.ended(answer):
            data = sock.recv(65536)
            if not data:
                raise ConnectionResetError(f"{self.place} hung up behind {answer!r}")
            answer += data
        return answer


def _greet(sock: socket.socket, lines: bytes) -> None:
    sock.sendall(lines % str(os.geteuid()).encode().hex().encode())
    said = b""
    while said.count(b"\r\n") < 1:
        data = sock.recv(1)     # to the byte: what follows is read as messages
        if not data:
            raise ConnectionRefusedError("the bus takes no more connections")
        said += data
    _reply(sock)    # of Hello, which is the greeting's end


def _reply(sock: socket.socket) -> bytes:
    reader = Reader(sock)
    while True:
        received = reader.read()
        if received is None:
            raise TimeoutError
        if received.message.message_type in (MessageType.METHOD_RETURN, MessageType.ERROR):
            return repr(received.message.body).encode()


def _call(method: str, parameters: dict[str, object] | None = None, **flags: bool) -> bytes:
    return encode({"method": method, "parameters": parameters or {}, **flags})


def _bus_call(member: str, signature: str = "", *body: object, bus: bool = False) -> bytes:
    name = "org.freedesktop.DBus" if bus else "org.freedesktop.machine1"
    message = Message(name, "/" + name.replace(".", "/"), name if bus else f"{name}.Manager", member,
                      signature=signature, body=list(body), serial=1)
    return bytes(message._marshall(False))


def doors(dns_port: int = 0, bus: str = "") -> dict[str, Door]:
    """By name. The questions are answered with what the world's machine `web` has."""
    query = dns.message.make_query("web.machines.internal.", "A", id=1).to_wire()
    query = len(query).to_bytes(2) + query
    packet = bytes(ffi.buffer(ffi.new("struct question *", {
        "layout": lib.PACKET_LAYOUT, "kind": lib.QUESTION_HOST_BY_NAME, "name": b"web"})))
    machine = "/run/systemd/machine/io.systemd.Machine"
    return {
        "machine": Door(machine, _call("io.systemd.Machine.List", {"name": "web"}),
                        _call("io.systemd.Machine.List", more=True)),
        "watch": Door(machine, _call("io.systemd.Machine.List", {"name": "web"}),
                      _call("io.mymachines.Machines.Watch", more=True)),
        "userdb": Door("/run/systemd/userdb/io.systemd.Machine",
                       _call("io.systemd.UserDatabase.GetUserRecord",
                             {"service": "io.systemd.Machine", "userName": "vu-web-0"}),
                       _call("io.systemd.UserDatabase.GetUserRecord",
                             {"service": "io.systemd.Machine", "userName": "vu-web-0"}, more=True)),
        "hook": Door("/run/systemd/resolve.hook/io.systemd.Machine",
                     _call("io.systemd.Resolve.Hook.ResolveRecord",
                           {"question": [{"key": {"class": 1, "type": 1, "name": "web"}}]}),
                     _call("io.systemd.Resolve.Hook.QueryFilter", more=True)),
        "nss.sock": Door("/run/mymachines/nss.sock", packet, packet, kind=socket.SOCK_SEQPACKET, ended=bool),
        "dns": Door(str(dns_port), query, query, family=socket.AF_INET,
                    ended=lambda answer: len(answer) > 2 and len(answer) == 2 + int.from_bytes(answer[:2])),
        "dbus": Door(bus, _bus_call("GetMachine", "s", "web"), _bus_call("ListMachines"),
                     greeting=b"\0AUTH EXTERNAL %s\r\nBEGIN\r\n" + _bus_call("Hello", bus=True).replace(b"%", b"%%"),
                     keeps=True),
    }
