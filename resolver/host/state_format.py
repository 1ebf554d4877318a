# SPDX-License-Identifier: MIT
"""The two files of a machine, as text: sd-login's public one and our private one. No input or output.

Public: lines KEY=VALUE, by the rules of systemd.exec(5), EnvironmentFile=. libsystemd reads CLASS and NETIF of it
(sd_machine_get_class(3)), bus clients and nspawn LEADER, systemd-machined all. Private: one JSON object with what the
public file has no place for, or must not show. Mostly there is nothing of that, and then no private file: the public
one says so, by a key that is ours and that all others pass over.

machined writes C escapes into its own file and reads it back by the rules above, so that `\\n` becomes `n`. We write
double quotes, which every reader takes alike, and read both.
"""

import json
import re
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from resolver.core.errors import InvalidArgument
from resolver.core.machine import Machine, MachineClass, ProcessId
from resolver.core.names import check_machine_name

_COMMENT = "# Written by mymachinesd for sd-login(3); mymachinesctl list is the way to read it."
_SAYS_ALL = "MYMACHINES_BOOT_ID"
"""The key of a public file that says all there is. Its value is the boot's id, which goes with the pidfd's."""
_LINE = re.compile(rb"([A-Z][A-Z0-9_]*)=(.*)")
_PLAIN = re.compile(r"[A-Za-z0-9_/.,:@+=-]+(?: [A-Za-z0-9_/.,:@+=-]+)*")
_TO_ESCAPE = re.compile(r'(["\\`$])')
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_C_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[0-3][0-7]{2}|.)", re.DOTALL)
_C_LETTERS = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v", b"s": b" "}
_ENCODER = json.JSONEncoder()  # with the defaults, by which it is C that encodes
_DECODER = json.JSONDecoder()

# Of the private file, by the key.
_PRIVATE_TYPES: Mapping[str, type] = {
    "name": str, "class": str, "leader": dict, "service": str, "id": str, "rootDirectory": str,
    "networkInterfaces": list, "unit": str, "owner": int, "realtime": int, "monotonic": int, "vsockCid": int,
    "sshAddress": str, "sshPrivateKeyPath": str, "controlAddress": str}
_LEADER_TYPES: Mapping[str, type] = {"pid": int, "pidfdId": int, "startTime": int, "bootId": str}


def public_text(machine: Machine) -> bytes:
    """The public file."""
    leader = machine.leader
    fields = {
        "NAME": machine.name,
        "SCOPE": machine.unit,  # machined's key for the unit, whatever its type
        "SERVICE": machine.service,
        "ROOT": machine.root_directory,
        "ID": machine.id.hex() if machine.id is not None else "",
        "LEADER": str(leader.pid),
        "LEADER_PIDFDID": "" if leader.pidfd_id is None else str(leader.pidfd_id),
        "CLASS": machine.machine_class.value,
        "REALTIME": str(machine.realtime),
        "MONOTONIC": str(machine.monotonic),
        "NETIF": " ".join(map(str, machine.network_interfaces)),
        "VSOCK_CID": "" if machine.vsock_cid is None else str(machine.vsock_cid),
        _SAYS_ALL: "" if _has_more(machine) else leader.boot_id or "",
    }
    words = {key: value for key, value in fields.items() if value}
    if not _PLAIN.fullmatch(" ".join(words.values())):
        quoted = {key: _quoted(value) for key, value in words.items()}
        if "" in quoted.values():
            quoted.pop(_SAYS_ALL, None)
        words = {key: value for key, value in quoted.items() if value}
    return "".join([_COMMENT, "\n", *(f"{key}={word}\n" for key, word in words.items())]).encode()


def _has_more(machine: Machine) -> bool:
    """Whether there is something of it that no key of the public file is for."""
    leader = machine.leader
    return bool(machine.owner or machine.ssh_address or machine.ssh_private_key_path or machine.control_address
                or leader.pidfd_id is None or leader.start_time is not None)


def says_all(data: bytes) -> bool:
    """Whether a public file is ours and says all; else there is a private file, or it is another one's."""
    return f"\n{_SAYS_ALL}=".encode() in data


def _quoted(value: str) -> str:
    """A value as every reader takes it, '' where there is no such form.

    A control character would do for systemd's parser, between quotes, but a reader that goes by lines would take what
    follows for a key; and a value that is no UTF-8 makes systemd refuse the file. The private file has these.
    """
    if _PLAIN.fullmatch(value):
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return ""
    return "" if _CONTROL.search(value) else '"' + _TO_ESCAPE.sub(r"\\\1", value) + '"'


_REGISTRATION = re.compile(rb"\n[ \t\r\v\f]*(NAME|LEADER|MONOTONIC)=(.*)")
"""The lines of parse_public() that tell registrations apart, each with the end of the line before it."""


def parse_public(data: bytes) -> dict[str, str]:
    """The keys of a public file. Total: what is no line of the format is left out; of two lines the last counts."""
    found = {}
    for line in data.split(b"\n"):
        match = _LINE.fullmatch(line.strip())
        if match is not None:
            found[match[1].decode()] = _text(match[2])
    return found


def _unquoted(value: bytes) -> bytes:
    if len(value) >= 2 and value[:1] == value[-1:] == b'"':
        return re.sub(rb'\\(["\\`$])', rb"\1", value[1:-1])
    if len(value) >= 2 and value[:1] == value[-1:] == b"'":
        return value[1:-1]
    return _C_ESCAPE.sub(_c_unescaped, value)


def _c_unescaped(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if len(code) == 3:
        return bytes([int(code[1:], 16) if code[:1] == b"x" else int(code, 8)])
    return _C_LETTERS.get(code, code)


def private_text(machine: Machine) -> bytes:
    """The private file: all that was registered and that the kernel does not tell."""
    leader = machine.leader
    return _ENCODER.encode({
        "name": machine.name,
        "class": machine.machine_class.value,
        "leader": {"pid": leader.pid, "pidfdId": leader.pidfd_id, "startTime": leader.start_time,
                   "bootId": leader.boot_id},
        "service": machine.service,
        "id": None if machine.id is None else machine.id.hex(),
        "rootDirectory": machine.root_directory,
        "networkInterfaces": list(machine.network_interfaces),
        "unit": machine.unit,
        "owner": machine.owner,
        "realtime": machine.realtime,
        "monotonic": machine.monotonic,
        "vsockCid": machine.vsock_cid,
        "sshAddress": machine.ssh_address,
        "sshPrivateKeyPath": machine.ssh_private_key_path,
        "controlAddress": machine.control_address,
    }).encode() + b"\n"  # ASCII alone: a surrogate from a client's JSON survives


def machine_from_private(data: bytes, known_name: str = "") -> Machine:
    """The machine of a private file. ValueError where it is damaged; unknown keys and most missing ones are fine.

    `known_name`, where it is the machine's, is not checked again."""
    get = _object(data, _PRIVATE_TYPES).get
    name: str = get("name") or ""
    said = get("leader")
    if said is None:
        raise ValueError("no leader")
    leader = _checked(said, _LEADER_TYPES).get
    return Machine(
        name=name if name and name == known_name else _machine_name(name),
        machine_class=_machine_class(get("class") or ""),
        leader=ProcessId(_pid(leader("pid") or 0), leader("pidfdId"), leader("startTime"), _shared(leader("bootId"))),
        service=_shared(get("service")) or "",
        id=_machine_id(get("id") or ""),
        root_directory=get("rootDirectory") or "",
        network_interfaces=_indices(get("networkInterfaces") or []),
        unit=get("unit") or "",
        owner=get("owner") or 0,
        realtime=get("realtime") or 0,
        monotonic=get("monotonic") or 0,
        vsock_cid=get("vsockCid"),
        ssh_address=get("sshAddress") or "",
        ssh_private_key_path=get("sshPrivateKeyPath") or "",
        control_address=get("controlAddress") or "",
    )


def _shared(text: str | None) -> str | None:
    """The same text for all that have it."""
    return None if text is None else sys.intern(text)


class PublicRegistration(NamedTuple):
    """What tells registrations apart."""

    name: str
    leader_pid: int
    monotonic: int


def registration_of(data: bytes) -> PublicRegistration:
    """Which registration a public file is of. ValueError where NAME or LEADER is missing."""
    get = dict(_REGISTRATION.findall(b"\n" + data)).get  # without the others: ten thousand files are read at a start
    return PublicRegistration(_machine_name(_text(get(b"NAME", b""))), _pid(_number(_text(get(b"LEADER", b"0")))),
                              _number(_text(get(b"MONOTONIC", b"0"))))


def _text(value: bytes) -> str:
    """What a line of parse_public() has behind the sign."""
    value = value.strip()
    return (value if value.isalnum() else _unquoted(value)).decode(errors="surrogateescape")


def machine_from_public(data: bytes) -> Machine:
    """The machine of a public file alone: one that says all, or machined's. ValueError where NAME, CLASS or LEADER is
    missing.

    Nobody is told to own it, so it is root's.
    """
    fields = parse_public(data)
    pidfd_id = fields.get("LEADER_PIDFDID")
    vsock_cid = fields.get("VSOCK_CID")
    return Machine(
        name=_machine_name(fields.get("NAME", "")),
        machine_class=_machine_class(fields.get("CLASS", "")),
        leader=ProcessId(_pid(_number(fields.get("LEADER", "0"))), None if pidfd_id is None else _number(pidfd_id),
                         boot_id=_shared(fields.get(_SAYS_ALL))),
        service=_shared(fields.get("SERVICE")) or "",
        id=_machine_id(fields.get("ID", "")),
        root_directory=fields.get("ROOT", ""),
        network_interfaces=_indices([_number(word) for word in fields.get("NETIF", "").split()]),
        unit=fields.get("SCOPE") or fields.get("UNIT", ""),
        realtime=_number(fields.get("REALTIME", "0")),
        monotonic=_number(fields.get("MONOTONIC", "0")),
        vsock_cid=None if vsock_cid is None else _number(vsock_cid),
    )


def _object(data: bytes, types: Mapping[str, type]) -> dict[str, Any]:
    try:
        fields = _DECODER.decode(data.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("no JSON object")
    return _checked(fields, types)


def _checked(fields: dict[str, Any], types: Mapping[str, type]) -> dict[str, Any]:
    """The fields, where those of `types` have these types, or are null. In one pass: ten thousand files are read at a
    start."""
    for key, value in fields.items():
        if value is None or key not in types:
            continue
        if type(value) is not types[key]:  # and not isinstance: true is an int
            raise ValueError(f"{key} has the wrong type")
        if type(value) is int and not 0 <= value < 2**64:
            raise ValueError(f"{key} is out of range")
    return fields


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):
        raise ValueError(f"no number: {text[:40]!r}")
    return int(text)


def _machine_name(name: str) -> str:
    try:
        return check_machine_name(name)
    except InvalidArgument as error:
        raise ValueError(str(error)) from None


def _machine_class(text: str) -> MachineClass:
    if text == MachineClass.HOST:
        raise ValueError("the host is no machine")
    return MachineClass(text)


def _pid(pid: int) -> int:
    if not 0 < pid < 2**31:
        raise ValueError(f"no process has the number {pid}")
    return pid


def _machine_id(text: str) -> bytes | None:
    if not text:
        return None
    if len(text) != 32:
        raise ValueError("a machine id has 32 digits")
    return bytes.fromhex(text)


def _indices(values: list[Any]) -> tuple[int, ...]:
    if values and not all(type(value) is int and 0 < value < 2**31 for value in values):
        raise ValueError("no interface indices")
    return tuple(values)
