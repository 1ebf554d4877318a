# SPDX-License-Identifier: MIT
"""How each row of docs/who-may.md is tried: by interface and method, a request to trying.py."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.lab import PROJECT

from .trying import GIFT, IN_MACHINE, TAKEN

PAGE = PROJECT / "docs/who-may.md"
CALLERS = ("root", "owner", "other", "inside")

VICTIM, IMAGE, GUEST = "victim", "gift", "who"
MANAGER, MACHINE, IMAGE_INTERFACE = (f"org.freedesktop.machine1.{name}" for name in ("Manager", "Machine", "Image"))
LOG_CONTROL = "org.freedesktop.LogControl1"
DNS_ADDRESS = "10.99.0.1"
GIVEN, MOUNTED = IN_MACHINE

_MACHINE1 = "/org/freedesktop/machine1"
_VICTIM_PATH, _IMAGE_PATH = f"{_MACHINE1}/machine/{VICTIM}", f"{_MACHINE1}/image/{IMAGE}"
_SOCKETS = {"io.systemd.Machine": "machine/io.systemd.Machine", "io.mymachines.Machines": "machine/io.systemd.Machine",
            "io.systemd.MachineImage": "machine/io.systemd.MachineImage",
            "io.systemd.UserDatabase": "userdb/io.systemd.Machine",
            "io.systemd.Resolve.Hook": "resolve.hook/io.systemd.Machine"}

REFUSED = frozenset({
    "org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
    "org.varlink.service.PermissionDenied", "io.systemd.InteractiveAuthenticationRequired", "EACCES"})
NOT_SUPPORTED = frozenset({"org.freedesktop.DBus.Error.NotSupported"})
NO_BUS = frozenset({"io.systemd.Machine.NoIPC", *NOT_SUPPORTED})
NO_QUOTA = frozenset({"", "io.systemd.System", *NOT_SUPPORTED})     # as the file system is
NOTHING: frozenset[str] = frozenset({""})


class Scene(NamedTuple):
    """What a call may be about. `own` is a process of the caller's, 0 where that is who calls; `foreign` nobody's."""

    leader: int
    own: int
    foreign: int
    guest_uid: int
    fresh: str


@dataclass(frozen=True)
class Trial:
    """`then`: how it ends for who may; `refused`: for who may not. `has`: whether a reply has what others do not see.
    `registers`: it leaves a machine Scene.fresh. `ends`: it takes the machine away."""

    request: Callable[[Scene], Mapping[str, Any]]
    then: frozenset[str] = NOTHING
    refused: frozenset[str] = REFUSED
    has: Callable[[Any], bool] | None = None
    registers: bool = False
    ends: bool = False


class Row(NamedTuple):
    answers: Mapping[str, bool]
    action: str


def rows() -> dict[str, dict[str, Row]]:
    """The page's tables, by their headings."""
    found: dict[str, dict[str, Row]] = {}
    for part in PAGE.read_text().split("\n## ")[1:]:
        heading, _, text = part.partition("\n")
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()
                 if line.startswith("|")]
        assert lines[0] == ["method", *CALLERS, "polkit"], heading
        found[heading] = {}
        for method, *cells, action in lines[2:]:
            assert method not in found[heading], method
            assert set(cells) <= {"yes", "no"}, method
            found[heading][method] = Row({caller: cell == "yes" for caller, cell in zip(CALLERS, cells, strict=True)},
                                         action.strip("-"))
    return found


def _varlink(method: str, parameters: Mapping[str, Any] | Callable[[Scene], Mapping[str, Any]] = {}, *,  # noqa: B006
             more: bool = False, socket: str = "", **rest: Any) -> Trial:
    interface = method.rpartition(".")[0]
    path = f"/run/systemd/{_SOCKETS[socket or interface]}"
    return Trial(lambda scene: {"varlink": path, "method": method, "more": more,
                                "parameters": parameters(scene) if callable(parameters) else parameters}, **rest)


def _dbus(path: str, method: str, signature: str = "", *arguments: Any,
          by: Callable[[Scene], list[Any]] | None = None, **rest: Any) -> Trial:
    return Trial(lambda scene: {"dbus": path, "method": method, "signature": signature,
                                "arguments": by(scene) if by else list(arguments)}, **rest)


def _machine(method: str, **rest: Any) -> Trial:
    fixed = {name: rest.pop(name) for name in list(rest) if name not in ("then", "refused", "has", "ends")}
    return _varlink(f"io.systemd.Machine.{method}", {"name": VICTIM, **fixed}, **rest)


def _register(own: str = "own", dot: str = "", **more: Any) -> Trial:
    rest = {name: more.pop(name) for name in list(more) if name in ("refused",)}

    def parameters(scene: Scene) -> dict[str, Any]:
        leader = getattr(scene, own)
        return {"name": scene.fresh + dot, "class": "container", **({"leader": leader} if leader else {}), **more}

    return _varlink("io.systemd.Machine.Register", parameters, registers=True, **rest)


def _manager(method: str, signature: str = "", *arguments: Any, **rest: Any) -> Trial:
    return _dbus(_MACHINE1, f"{MANAGER}.{method}", signature, *arguments, **rest)


def _registers(method: str, signature: str, *last: Any) -> Trial:
    return _manager(method, signature, registers=True, by=lambda scene: [
        scene.fresh, {"bytes": "0f" * 16}, "test", "container", scene.own, "", *last])


def _registers_ex(method: str, signature: str, *last: Any) -> Trial:
    """The leader by its pidfd: a number alone is not taken."""
    def request(scene: Scene) -> dict[str, Any]:
        leader = [["LeaderPIDFD", {"variant": ["h", 0]}]] if scene.own else []
        return {"dbus": _MACHINE1, "method": f"{MANAGER}.{method}", "signature": signature,
                "pidfds": [scene.own] if scene.own else [],
                "arguments": [scene.fresh, [["Class", {"variant": ["s", "container"]}], *leader], *last]}

    return Trial(request, registers=True)


def _of_machine(method: str, signature: str = "", *arguments: Any, **rest: Any) -> Trial:
    return _dbus(_VICTIM_PATH, f"{MACHINE}.{method}", signature, *arguments, **rest)


def _of_image(method: str, signature: str = "", *arguments: Any, **rest: Any) -> Trial:
    return _dbus(_IMAGE_PATH, f"{IMAGE_INTERFACE}.{method}", signature, *arguments, **rest)


def _standard(path: str, method: str, signature: str = "", *arguments: Any, **rest: Any) -> Trial:
    return _dbus(path, f"org.freedesktop.DBus.{method}", signature, *arguments, **rest)


def _set(path: str, interface: str, name: str, signature: str, value: object, **rest: Any) -> Trial:
    return _standard(path, "Properties.Set", "ssv", interface, name, {"variant": [signature, value]}, **rest)


def _query(name: str, kind: int, opcode: int = 0) -> str:
    """A DNS message with one question, in hexadecimal digits (RFC 1035, 4.1)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return (bytes([0, 1, opcode << 3, 0, 0, 1, 0, 0, 0, 0, 0, 0]) + labels + bytes([0, 0, kind, 0, 1])).hex()


def _open(path: str, write: bool = False) -> Trial:
    return Trial(lambda _: {"open": path, "write": write})


_NO_SHIFT = frozenset({"org.freedesktop.DBus.Error.NotSupported"})   # it has one id
_SHELL = {"mode": "shell", "user": "root", "path": "/bin/true", "args": ["true"]}
_PROGRAM: tuple[Any, ...] = ("root", "/bin/true", ["true"], [])
_RR = {"question": [{"key": {"class": 1, "type": 1, "name": f"{GUEST}.machines.internal"}}]}

TRIALS: Mapping[str, Mapping[str, Trial]] = {
    "io.systemd.Machine": {
        "Register": _register(),
        "Register: allocateUnit": _register(allocateUnit=True),
        "Register: a process of another user's": _register("foreign"),
        "Register: a name with a dot": _register(dot=".example",
                                                 refused=frozenset({"org.varlink.service.InvalidParameter"})),
        "Unregister": _machine("Unregister", ends=True),
        "Terminate": _machine("Terminate", ends=True),
        "Kill": _machine("Kill", whom="leader", signal=10, ends=True),
        "List": _machine("List"),
        "List: sshPrivateKeyPath": _machine("List", has=lambda reply: "sshPrivateKeyPath" in reply),
        "MapFrom": _machine("MapFrom", uid=0),
        "MapTo": _varlink("io.systemd.Machine.MapTo", lambda scene: {"uid": scene.guest_uid}),
        "Open: tty": _machine("Open", mode="tty"),
        "Open: login": _machine("Open", mode="login", then=NO_BUS),
        "Open: shell": _machine("Open", **_SHELL, then=NO_BUS),
        "Open: tty of .host": _varlink("io.systemd.Machine.Open", {"name": ".host", "mode": "tty"}),
        "Open: login of .host": _varlink("io.systemd.Machine.Open", {"name": ".host", "mode": "login"}),
        "Open: shell of .host": _varlink("io.systemd.Machine.Open", {"name": ".host", **_SHELL}),
        "OpenRootDirectory": _machine("OpenRootDirectory"),
        "OpenRootDirectory: of .host": _varlink("io.systemd.Machine.OpenRootDirectory", {"name": ".host"}),
        "BindMount": _machine("BindMount", source=GIFT, destination=MOUNTED, mkdir=True),
        "CopyFrom": _machine("CopyFrom", source="/run/mine", destination=TAKEN),
        "CopyTo": _machine("CopyTo", source=GIFT, destination=GIVEN),
    },
    "io.systemd.MachineImage": {name: _varlink(f"io.systemd.MachineImage.{name}", fields, **rest)  # type: ignore[arg-type]
                                for name, (fields, rest) in {
        "List": ({"name": IMAGE}, {}),
        "Update": ({"name": IMAGE, "newName": f"{IMAGE}2"}, {}),
        "Clone": ({"name": IMAGE, "newName": f"{IMAGE}2"}, {}),
        "Remove": ({"name": IMAGE}, {}),
        "SetPoolLimit": ({"limit": 1 << 40}, {"then": NO_QUOTA}),
        "CleanPool": ({"mode": "hidden"}, {"more": True, "then": frozenset({"io.systemd.MachineImage.NoSuchImage"})}),
    }.items()},
    "io.mymachines.Machines": {
        "Explain": _varlink("io.mymachines.Machines.Explain", {"name": VICTIM}),
        "Statistics": _varlink("io.mymachines.Machines.Statistics", {}),
        "Watch": _varlink("io.mymachines.Machines.Watch", more=True),
    },
    "io.systemd.UserDatabase": {
        "GetUserRecord": _varlink("io.systemd.UserDatabase.GetUserRecord",
                                  {"service": "io.systemd.Machine", "userName": f"vu-{GUEST}-0"}),
        "GetGroupRecord": _varlink("io.systemd.UserDatabase.GetGroupRecord",
                                   {"service": "io.systemd.Machine", "groupName": f"vg-{GUEST}-0"}),
        "GetMemberships": _varlink("io.systemd.UserDatabase.GetMemberships",
                                   {"service": "io.systemd.Machine", "userName": f"vu-{GUEST}-0"}, more=True,
                                   then=frozenset({"io.systemd.UserDatabase.NoRecordFound"})),
    },
    "io.systemd.Resolve.Hook": {
        "QueryFilter": _varlink("io.systemd.Resolve.Hook.QueryFilter"),
        "ResolveRecord": _varlink("io.systemd.Resolve.Hook.ResolveRecord", _RR),
    },
    MANAGER: {
        "GetMachine": _manager("GetMachine", "s", VICTIM),
        "GetImage": _manager("GetImage", "s", IMAGE),
        "GetMachineByPID": _manager("GetMachineByPID", "u", by=lambda scene: [scene.leader]),
        "ListMachines": _manager("ListMachines"),
        "ListImages": _manager("ListImages"),
        "CreateMachine": _registers("CreateMachine", "sayssusa(sv)", []),
        "CreateMachineWithNetwork": _registers("CreateMachineWithNetwork", "sayssusaia(sv)", [], []),
        "RegisterMachine": _registers("RegisterMachine", "sayssus"),
        "RegisterMachineWithNetwork": _registers("RegisterMachineWithNetwork", "sayssusai", []),
        "RegisterMachineEx": _registers_ex("RegisterMachineEx", "sa(sv)"),
        "CreateMachineEx": _registers_ex("CreateMachineEx", "sa(sv)a(sv)", []),
        "UnregisterMachine": _manager("UnregisterMachine", "s", VICTIM, ends=True),
        "TerminateMachine": _manager("TerminateMachine", "s", VICTIM, ends=True),
        "KillMachine": _manager("KillMachine", "ssi", VICTIM, "leader", 10, ends=True),
        "GetMachineAddresses": _manager("GetMachineAddresses", "s", VICTIM),
        "GetMachineSSHInfo": _manager("GetMachineSSHInfo", "s", VICTIM),
        "GetMachineOSRelease": _manager("GetMachineOSRelease", "s", VICTIM),
        "GetMachineUIDShift": _manager("GetMachineUIDShift", "s", VICTIM, then=_NO_SHIFT),
        "OpenMachinePTY": _manager("OpenMachinePTY", "s", VICTIM),
        "OpenMachinePTY: of .host": _manager("OpenMachinePTY", "s", ".host"),
        "OpenMachineLogin": _manager("OpenMachineLogin", "s", VICTIM, then=NO_BUS),
        "OpenMachineLogin: of .host": _manager("OpenMachineLogin", "s", ".host"),
        "OpenMachineShell": _manager("OpenMachineShell", "sssasas", VICTIM, *_PROGRAM, then=NO_BUS),
        "OpenMachineShell: of .host": _manager("OpenMachineShell", "sssasas", ".host", *_PROGRAM),
        "BindMountMachine": _manager("BindMountMachine", "sssbb", VICTIM, GIFT, MOUNTED, False, True),
        "CopyFromMachine": _manager("CopyFromMachine", "sss", VICTIM, "/run/mine", TAKEN),
        "CopyToMachine": _manager("CopyToMachine", "sss", VICTIM, GIFT, GIVEN),
        "CopyFromMachineWithFlags": _manager("CopyFromMachineWithFlags", "ssst", VICTIM, "/run/mine", TAKEN, 0),
        "CopyToMachineWithFlags": _manager("CopyToMachineWithFlags", "ssst", VICTIM, GIFT, GIVEN, 0),
        "OpenMachineRootDirectory": _manager("OpenMachineRootDirectory", "s", VICTIM),
        "RemoveImage": _manager("RemoveImage", "s", IMAGE),
        "RenameImage": _manager("RenameImage", "ss", IMAGE, f"{IMAGE}2"),
        "CloneImage": _manager("CloneImage", "ssb", IMAGE, f"{IMAGE}2", False),
        "MarkImageReadOnly": _manager("MarkImageReadOnly", "sb", IMAGE, True, then=NO_QUOTA),
        "GetImageHostname": _manager("GetImageHostname", "s", IMAGE),
        "GetImageMachineID": _manager("GetImageMachineID", "s", IMAGE),
        "GetImageMachineInfo": _manager("GetImageMachineInfo", "s", IMAGE),
        "GetImageOSRelease": _manager("GetImageOSRelease", "s", IMAGE),
        "SetPoolLimit": _manager("SetPoolLimit", "t", 1 << 40, then=NO_QUOTA),
        "SetImageLimit": _manager("SetImageLimit", "st", IMAGE, 1 << 40, then=NO_QUOTA),
        "CleanPool": _manager("CleanPool", "s", "hidden"),
        "MapFromMachineUser": _manager("MapFromMachineUser", "su", GUEST, 0),
        "MapToMachineUser": _manager("MapToMachineUser", "u", by=lambda scene: [scene.guest_uid]),
        "MapFromMachineGroup": _manager("MapFromMachineGroup", "su", GUEST, 0),
        "MapToMachineGroup": _manager("MapToMachineGroup", "u", by=lambda scene: [scene.guest_uid]),
    },
    MACHINE: {
        "Terminate": _of_machine("Terminate", ends=True),
        "Kill": _of_machine("Kill", "si", "leader", 10, ends=True),
        "GetAddresses": _of_machine("GetAddresses"),
        "GetSSHInfo": _of_machine("GetSSHInfo"),
        "GetOSRelease": _of_machine("GetOSRelease"),
        "GetUIDShift": _of_machine("GetUIDShift", then=_NO_SHIFT),
        "OpenPTY": _of_machine("OpenPTY"),
        "OpenLogin": _of_machine("OpenLogin", then=NO_BUS),
        "OpenShell": _of_machine("OpenShell", "ssasas", *_PROGRAM, then=NO_BUS),
        "BindMount": _of_machine("BindMount", "ssbb", GIFT, MOUNTED, False, True),
        "CopyFrom": _of_machine("CopyFrom", "ss", "/run/mine", TAKEN),
        "CopyTo": _of_machine("CopyTo", "ss", GIFT, GIVEN),
        "CopyFromWithFlags": _of_machine("CopyFromWithFlags", "sst", "/run/mine", TAKEN, 0),
        "CopyToWithFlags": _of_machine("CopyToWithFlags", "sst", GIFT, GIVEN, 0),
        "OpenRootDirectory": _of_machine("OpenRootDirectory"),
    },
    IMAGE_INTERFACE: {
        "Remove": _of_image("Remove"),
        "Rename": _of_image("Rename", "s", f"{IMAGE}2"),
        "Clone": _of_image("Clone", "sb", f"{IMAGE}2", False),
        "MarkReadOnly": _of_image("MarkReadOnly", "b", True, then=NO_QUOTA),
        "SetLimit": _of_image("SetLimit", "t", 1 << 40, then=NO_QUOTA),
        "GetHostname": _of_image("GetHostname"),
        "GetMachineID": _of_image("GetMachineID"),
        "GetMachineInfo": _of_image("GetMachineInfo"),
        "GetOSRelease": _of_image("GetOSRelease"),
    },
    "org.freedesktop.DBus.Properties": {
        "Get": _standard(_MACHINE1, "Properties.Get", "ss", MANAGER, "PoolPath"),
        "Get: SSHPrivateKeyPath": _standard(_VICTIM_PATH, "Properties.Get", "ss", MACHINE, "SSHPrivateKeyPath",
                                            has=lambda reply: reply != [""]),
        "GetAll": _standard(_VICTIM_PATH, "Properties.GetAll", "s", MACHINE),
        "GetAll: of LogControl1": _standard("/org/freedesktop/LogControl1", "Properties.GetAll", "s", LOG_CONTROL),
        "Set: LogLevel": _set("/org/freedesktop/LogControl1", LOG_CONTROL, "LogLevel", "s", "info"),
        "Set: LogTarget": _set("/org/freedesktop/LogControl1", LOG_CONTROL, "LogTarget", "s", "auto"),
        "Set: any other": _set(_VICTIM_PATH, MACHINE, "Name", "s", "other",
                               refused=REFUSED | {"org.freedesktop.DBus.Error.PropertyReadOnly"}),
    },
    "org.freedesktop.DBus.Introspectable": {"Introspect": _standard(_VICTIM_PATH, "Introspectable.Introspect")},
    "org.freedesktop.DBus.Peer": {name: _standard(_MACHINE1, f"Peer.{name}") for name in ("Ping", "GetMachineId")},
    "DNS": {name: Trial(lambda _, query=query: {"dns": DNS_ADDRESS, "query": query},  # type: ignore[misc]
                        refused=frozenset({"rcode 5", "rcode 4"})) for name, query in {
        "query": _query(f"{GUEST}.machines.internal", 1), "transfer": _query("machines.internal", 252),
        "update": _query("machines.internal", 6, 5)}.items()},
    "Files": {
        "nss.sock: ask": Trial(lambda _: {"nss": VICTIM}),
        "table-2: read": _open("/run/mymachines/table-2"),
        "table-2: write": _open("/run/mymachines/table-2", True),
        "mymachinesd.lock: read": _open("/run/mymachines/mymachinesd.lock"),
        "machines/NAME: read": _open(f"/run/systemd/machines/{VICTIM}"),
        "machines/NAME: write": _open(f"/run/systemd/machines/{VICTIM}", True),
        "mymachines/NAME: read": _open(f"/run/systemd/mymachines/{VICTIM}"),
    },
    "org.varlink.service": {
        f"{method} @ {interface}": _varlink(f"org.varlink.service.{method}", fields, socket=interface)
        for interface in _SOCKETS
        for method, fields in (("GetInfo", {}), ("GetInterfaceDescription", {"interface": interface}))},
}
"""`METHOD @ INTERFACE` is one of several trials of the row METHOD."""


def described(text: str) -> set[str]:
    """The methods of a Varlink description."""
    return set(re.findall(r"(?m)^method (\w+)", text))
