# SPDX-License-Identifier: MIT
"""What is parsed, and what is promised for any bytes: a value, or that parser's own error, in time that length bounds.

Where two ways lead to one answer, both are gone: whole and in pieces, with the body and without, encoded and back.
"""

import itertools
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from dbus_fast import Message, Variant

from machine_images.varlink import machine_image_interface
from resolver._table import ffi, lib
from resolver.core.registry import Registry
from resolver.dbus.decode import decode as decode_message
from resolver.dbus.reader import ProtocolError as NoBus
from resolver.dbus.reader import Reader, Received, close_all
from resolver.dns.answers import Zone
from resolver.dns.options import zone_name
from resolver.dns.responder import Responder
from resolver.dns.wire import TCP_SIZE, UDP_SIZE, truncated
from resolver.guest.os_release import parse_os_release
from resolver.hook.resolve import hook_interface
from resolver.host import netlink, state_format
from resolver.leases.dnsmasq import parse_dnsmasq
from resolver.leases.lease import LEASES_MAX, PROBLEMS_MAX, Parsed
from resolver.leases.objects import parse_libvirt, parse_networkd
from resolver.table.packets import answer_packet
from resolver.userdb.records import user_database_interface
from resolver.varlink.codec import Decoder, ProtocolError, decode, encode, parse_call
from resolver.varlink.errors import VarlinkError
from resolver.varlink.interface import Interface, load_interface
from resolver.varlink.machine import machine_interface
from resolver.varlink.mymachines import mymachines_interface
from tests.dns.fuzz import mutate
from tests.dns.fuzz import seeds as dns_samples
from tests.dns.test_answers import Machines
from tests.hostside.wire import address, attribute, link, message, neighbour
from tests.leases.test_formats import DNSMASQ, LIBVIRT, NETWORKD
from tests.soak.protocols.changes import Change, change_json
from tests.table.test_packets import registry as known_registry


class Input(NamedTuple):
    """`read` must end well for any bytes; `samples` are such as honest clients send."""

    read: Callable[[bytes], object]
    samples: list[bytes]
    change: Change = mutate


# --- Varlink ---

class _Anybody:
    pid, uid, gid, pidfd = 1, 12345, 12345, None


def interfaces() -> list[Interface]:
    """All that any of our sockets answers."""
    return [load_interface("org.varlink.service"), machine_interface(), machine_image_interface(),
            mymachines_interface(), user_database_interface(), hook_interface()]


_METHODS = {method.name: method for interface in interfaces() for method in interface.methods.values()}


def read_varlink(data: bytes) -> list[object]:
    """A connection's bytes, through to what handlers get."""
    whole = _calls([data])
    middle = len(data) // 2
    assert _calls([data[:middle], data[middle:]]) == whole
    return whole


def _calls(pieces: list[bytes]) -> list[object]:
    decoder, found = Decoder(), []
    try:
        for piece in pieces:
            decoder.feed(piece)
            while (said := decoder.next_message()) is not None:
                assert decode(encode(said)[:-1]) == said
                found.append(_call(said))
    except ProtocolError:
        found.append(None)
    return found


def _call(said: dict[str, Any]) -> object:
    try:
        call = parse_call(said, _Anybody())
        method = _METHODS.get(call.method)
        return call.method if method is None else method.check_parameters(call.parameters)
    except ProtocolError:
        return None
    except VarlinkError as error:
        if error.name != "org.varlink.service.InvalidParameter":
            raise
        encode({"error": error.name, "parameters": error.parameters})
        return error.parameters


def varlink_samples() -> list[bytes]:
    registration = {"name": "web", "class": "container", "id": "0123456789abcdef" * 2, "leader": 1234,
                    "leaderProcessId": {"pid": 1234, "pidfdId": 5, "bootId": "0123456789abcdef" * 2},
                    "rootDirectory": "/srv/web", "ifIndices": [2, 3], "vSockCid": 5, "sshAddress": "vsock/5",
                    "service": "test", "allocateUnit": False}
    question = {"key": {"class": 1, "type": 28, "name": "web.machines.internal"}}
    calls: list[tuple[str, dict[str, Any]]] = [
        ("io.systemd.Machine.Register", registration),
        ("io.systemd.Machine.List", {"name": "web", "acquireMetadata": "graceful"}),
        ("io.systemd.Machine.MapFrom", {"name": "web", "uid": 0, "gid": 65534}),
        ("io.systemd.Machine.Open", {"name": "web", "mode": "shell", "user": "root", "environment": ["A=b"]}),
        ("io.systemd.Machine.CopyTo", {"name": "web", "source": "/a", "destination": "/b", "replace": True}),
        ("io.systemd.UserDatabase.GetUserRecord", {"service": "io.systemd.Machine", "uid": 1587086312}),
        ("io.systemd.Resolve.Hook.ResolveRecord", {"question": [question, question]}),
        ("io.mymachines.Machines.Watch", {}),
        *((name, {}) for name in _METHODS)]
    return [encode({"method": method, "parameters": parameters, **flags})
            for (method, parameters), flags in itertools.product(calls, ({}, {"more": True}))]


# --- D-Bus ---

def read_message(data: bytes) -> Message | None:
    """A message's octets."""
    try:
        found = decode_message(data)
    except ValueError:
        return None
    header = decode_message(data, header_only=True)
    assert (header.member, header.path, header.serial) == (found.member, found.path, found.serial)
    return found


def read_bus(data: bytes) -> list[str]:
    """A connection's octets; the first says how they are cut."""
    if not data:
        return []
    size = data[0] * 16 or len(data)
    whole, cut = _received([data[1:]]), _received([data[at:at + size] for at in range(1, len(data), size)])
    assert cut == whole
    return whole


def _received(pieces: list[bytes]) -> list[str]:
    ours, theirs = socket.socketpair()
    found = []
    with ours, theirs:
        ours.setblocking(False)
        reader = Reader(ours)
        try:
            for piece in (*pieces, b""):
                if piece:
                    theirs.sendall(piece)
                else:
                    theirs.shutdown(socket.SHUT_WR)
                while (received := reader.read()) is not None:
                    found.append(_told(received))
        except (EOFError, NoBus) as error:
            found.append(type(error).__name__)
        reader.close()
    return found


def _told(received: Received) -> str:
    close_all(received.message.unix_fds)
    return f"{received.message.member} {received.message.signature} {received.problem}"


def dbus_samples() -> list[bytes]:
    deep = Variant("a(sv)", [("x", Variant("ai", [1, 2]))])
    bodies: list[tuple[str, list[Any]]] = [
        ("", []), ("s", ["web"]), ("ss", ["org.freedesktop.machine1.Machine", "Name"]), ("u", [1234]),
        ("sayssus", ["web", bytes(16), "test", "container", 1234, ""]),
        ("sayssusai", ["web", bytes(16), "test", "container", 1234, "", [2, 3]]),
        ("sayssusaia(sv)", ["web", bytes(16), "t", "vm", 1, "", [2], [["Slice", Variant("s", "a")], ["X", deep]]]),
        ("ssasas", ["web", "root", ["/bin/sh", "-c"], ["A=b"]]), ("ssbb", ["web", "/a", True, False]),
        ("h", [0]), ("a{sv}b", [{"a": Variant("d", 1.5), "b": deep}, True])]
    return [bytes(Message("org.freedesktop.machine1", "/org/freedesktop/machine1", "org.freedesktop.machine1.Manager",
                          f"Member{number}", signature=signature, body=body, serial=number + 1)._marshall(True))
            for number, (signature, body) in enumerate(bodies)]


# --- DNS ---

class _Table(Machines):
    def generation(self) -> bytes:
        return b"1"


_RESPONDER = Responder(Zone(zone_name("machines.internal"), 0), _Table(("web", "10.1.2.3", "fd00::1")), OSError)
_RESPONDER.refresh()


def read_dns(packet: bytes) -> object:
    """A query, by UDP and by TCP."""
    _RESPONDER.known.clear()
    outcome: object = None
    for respond, size in ((_RESPONDER.respond_datagram, UDP_SIZE), (_RESPONDER.respond_message, TCP_SIZE)):
        outcome = respond(packet)
        assert isinstance(outcome, bytes)   # nothing is another's to answer here
        assert not outcome or (outcome[:2] == packet[:2] and 12 <= len(outcome) <= size)
        if outcome:
            short = truncated(outcome)
            assert short[:2] == packet[:2]
            assert len(short) <= len(outcome)
    return outcome


# --- the shim's packets ---

_REGISTRY: Registry = known_registry()


def read_question(packet: bytes) -> bytes | None:
    """What comes to nss.sock."""
    reply = answer_packet(_REGISTRY, packet)
    assert reply is None or len(reply) >= ffi.sizeof("struct reply_header")
    return reply


def question_samples() -> list[bytes]:
    asked = ((lib.QUESTION_HOST_BY_NAME, {"name": b"web"}), (lib.QUESTION_HOST_BY_ADDRESS, {"family": 2}),
             (lib.QUESTION_USER_BY_NAME, {"name": b"vu-Web-1000"}), (lib.QUESTION_USER_BY_ID, {"id": 101000}),
             (lib.QUESTION_GROUP_BY_NAME, {"name": b"vg-Web-1000"}), (lib.QUESTION_GROUP_BY_ID, {"id": 101000}))
    return [bytes(ffi.buffer(ffi.new("struct question *", {"layout": lib.PACKET_LAYOUT, "kind": kind, **fields})))
            for kind, fields in asked]


# --- files, and what the kernel says ---

def leases_by(parse: Callable[[bytes, str], Parsed]) -> Callable[[bytes], Parsed]:
    def read(data: bytes) -> Parsed:
        parsed = parse(data, "virbr0")
        assert len(parsed.leases) <= LEASES_MAX
        assert len(parsed.problems) <= PROBLEMS_MAX
        assert all(len(lease.mac) == 6 and len(lease.packed) in (4, 16) for lease in parsed.leases)
        return parsed
    return read


def read_state(data: bytes) -> list[bytes]:
    """Both files of a machine. What is believed can be written, and says the same again."""
    written = []
    for parse in (state_format.machine_from_public, state_format.machine_from_private):
        try:
            machine = parse(data)
        except ValueError:
            continue
        public = state_format.public_text(machine)
        assert not state_format.says_all(public) or state_format.machine_from_public(public) == machine
        text = state_format.private_text(machine)
        assert state_format.machine_from_private(text) == machine
        written.append(text)
    return written


def read_netlink(data: bytes) -> list[netlink.Message]:
    try:
        return netlink.parse(data)
    except netlink.NetlinkError:
        return []


def read_os_release(data: bytes) -> dict[str, str]:
    values = parse_os_release(data)
    assert all(value.isprintable() for value in values.values())
    return values


def state_samples() -> list[bytes]:
    public = b'NAME=web\nCLASS=container\nLEADER=1234\nLEADER_PIDFDID=77\nSERVICE="a b"\nID=' + b"ab" * 16
    public += b"\nROOT=/srv\\x20web\nNETIF=2 3\nSCOPE='machine-web.scope'\nREALTIME=17\nVSOCK_CID=5\n"
    machine = state_format.machine_from_public(public)
    says_all = public + b"MYMACHINES_BOOT_ID=" + b"4f" * 16 + b"\n"
    return [public, says_all, state_format.private_text(machine), state_format.public_text(machine)]


def netlink_samples() -> list[bytes]:
    v4, v6, mac = bytes([192, 0, 2, 1]), bytes(15) + b"\1", bytes.fromhex("525400aabbcc")
    route = bytes([2, 24, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0])
    return [
        address(2, attribute(1, v4), attribute(2, v4), attribute(3, b"e0\0")),
        address(10, attribute(1, v6), attribute(8, bytes([0x40, 3, 0, 0]))),
        link(attribute(1, mac), attribute(3, b"e0\0"), attribute(10, bytes(4)),
             attribute(18, attribute(1, b"veth\0") + attribute(4, b"bridge\0"))),
        neighbour(2, attribute(1, v4), attribute(2, mac)), neighbour(7, attribute(2, mac), attribute(9, bytes(4))),
        message(netlink.RTM_NEWROUTE, route + attribute(1, v4) + attribute(4, bytes(4)) + attribute(5, v4)),
        message(netlink.RTM_NEWNSID, bytes(4) + attribute(1, bytes(4))),
        message(netlink.NLMSG_ERROR, bytes(20)) + message(netlink.NLMSG_DONE, bytes(4))]


OS_RELEASE = b'ID=debian\nPRETTY_NAME="Debian \\"13\\" $x"\n# no\nVERSION=\'a\'b\\ c\nLONG="a\\\nb"\n'

INPUTS: dict[str, Input] = {
    "varlink": Input(read_varlink, varlink_samples(), change_json),
    "dbus-message": Input(read_message, dbus_samples()),
    "dbus-stream": Input(read_bus, [bytes([size]) + b"".join(dbus_samples()[:4]) for size in (0, 1, 4)]),
    "dns": Input(read_dns, dns_samples()),
    "nss.sock": Input(read_question, question_samples()),
    "leases-dnsmasq": Input(leases_by(parse_dnsmasq), [DNSMASQ]),
    "leases-libvirt": Input(leases_by(parse_libvirt), [LIBVIRT], change_json),
    "leases-networkd": Input(leases_by(parse_networkd), [NETWORKD], change_json),
    "state": Input(read_state, state_samples(), change_json),
    "netlink": Input(read_netlink, netlink_samples()),
    "os-release": Input(read_os_release, [OS_RELEASE]),
}
