# SPDX-License-Identifier: MIT
"""org.freedesktop.machine1.Manager: all machines."""

from collections.abc import Iterable, Sequence
from typing import Any

from dbus_fast import Message, Variant

from resolver.core.errors import NoSuchMachine
from resolver.core.idmap import HOST_ID_FIRST, IdMap
from resolver.core.machine import MachineClass, ProcessId
from resolver.core.registry import Change, Entry
from resolver.core.users import IdAnswer
from resolver.dbus.call import Call
from resolver.dbus.connection import Connection
from resolver.dbus.errors import invalid_args, no_machine_for_pid, no_such_mapping
from resolver.dbus.interface import Interface, Method, Property, Signal
from resolver.dbus.machine import MACHINE, MachineHandlers, OSRelease
from resolver.dbus.objects import Bound
from resolver.dbus.paths import MANAGER, decode_label, encode_label, machine_path
from resolver.dbus.registration import from_arguments, from_properties, unit_properties
from resolver.entering import Entering
from resolver.guest.metadata import uid_shift_of
from resolver.manager import Manager

_REGISTER = "s name, ay id, s service, s class, u leader, s root_directory"
_NETWORK = "ai ifindices"
_SCOPE = "a(sv) scope_properties"
_INVALID_IDS = (0xFFFF, 0xFFFFFFFF)  # (uid_t) -1 of 16 and of 32 bits

MANAGER_INTERFACE = Interface(
    "org.freedesktop.machine1.Manager",
    properties=[Property("PoolPath", "s"), Property("PoolUsage", "t"), Property("PoolLimit", "t")],
    methods=[
        Method("GetMachine", "s name", "o machine"),
        Method("GetImage", "s name", "o image"),
        Method("GetMachineByPID", "u pid", "o machine"),
        Method("ListMachines", "", "a(ssso) machines"),
        Method("ListImages", "", "a(ssbttto) images"),
        Method("CreateMachine", f"{_REGISTER}, {_SCOPE}", "o path"),
        Method("CreateMachineWithNetwork", f"{_REGISTER}, {_NETWORK}, {_SCOPE}", "o path"),
        Method("RegisterMachine", _REGISTER, "o path"),
        Method("RegisterMachineWithNetwork", f"{_REGISTER}, {_NETWORK}", "o path"),
        # Of systemd 259 and later.
        Method("RegisterMachineEx", "s name, a(sv) properties", "o path", hidden=True),
        Method("CreateMachineEx", f"s name, a(sv) properties, {_SCOPE}", "o path", hidden=True),
        Method("UnregisterMachine", "s name"),
        Method("TerminateMachine", "s id"),
        Method("KillMachine", "s name, s whom, i signal"),
        Method("GetMachineAddresses", "s name", "a(iay) addresses"),
        Method("GetMachineSSHInfo", "s name", "s ssh_address, s ssh_private_key_path"),
        Method("GetMachineOSRelease", "s name", "a{ss} fields"),
        Method("OpenMachinePTY", "s name", "h pty, s pty_path"),
        Method("OpenMachineLogin", "s name", "h pty, s pty_path"),
        Method("OpenMachineShell", "s name, s user, s path, as args, as environment", "h pty, s pty_path"),
        Method("BindMountMachine", "s name, s source, s destination, b read_only, b mkdir"),
        Method("CopyFromMachine", "s name, s source, s destination"),
        Method("CopyToMachine", "s name, s source, s destination"),
        Method("CopyFromMachineWithFlags", "s name, s source, s destination, t flags"),
        Method("CopyToMachineWithFlags", "s name, s source, s destination, t flags"),
        Method("OpenMachineRootDirectory", "s name", "h fd"),
        Method("GetMachineUIDShift", "s name", "u shift"),
        Method("RemoveImage", "s name"),
        Method("RenameImage", "s name, s new_name"),
        Method("CloneImage", "s name, s new_name, b read_only"),
        Method("MarkImageReadOnly", "s name, b read_only"),
        Method("GetImageHostname", "s name", "s hostname"),
        Method("GetImageMachineID", "s name", "ay id"),
        Method("GetImageMachineInfo", "s name", "a{ss} machine_info"),
        Method("GetImageOSRelease", "s name", "a{ss} os_release"),
        Method("SetPoolLimit", "t size"),
        Method("SetImageLimit", "s name, t size"),
        Method("CleanPool", "s mode", "a(st) images"),
        Method("MapFromMachineUser", "s name, u uid_inner", "u uid_outer"),
        Method("MapToMachineUser", "u uid_outer", "s machine_name, o machine_path, u uid_inner"),
        Method("MapFromMachineGroup", "s name, u gid_inner", "u gid_outer"),
        Method("MapToMachineGroup", "u gid_outer", "s machine_name, o machine_path, u gid_inner"),
    ],
    signals=[Signal("MachineNew", "s machine, o path"), Signal("MachineRemoved", "s machine, o path")])


class MachineSignals:
    """Tells who follows the machines; one of the manager's listeners."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Tell of machines that have come and gone."""
        if not self._connection.owns_name:
            return  # nobody would take it for ours
        for change in changes:
            if change.before is None and change.after is not None:
                self._tell("MachineNew", change.after.machine.name)
            elif change.before is not None and change.after is None:
                self._tell("MachineRemoved", change.before.machine.name)

    def _tell(self, signal: str, name: str) -> None:
        self._connection.send(Message.new_signal(
            MANAGER, MANAGER_INTERFACE.name, signal, MANAGER_INTERFACE.signals[signal].signature,
            [name, machine_path(name)]))


class Machines:
    """The machines as objects of the bus."""

    def __init__(self, manager: Manager, entering: Entering, read_os_release: OSRelease) -> None:
        self._manager = manager
        self._entering = entering
        self._read_os_release = read_os_release

    def all(self) -> list[Entry]:
        """The host itself first."""
        return [self._manager.host, *self._manager.registry]

    def by_name(self, name: str) -> Entry:
        """NoSuchMachine also for what could be no machine's name."""
        host = self._manager.host
        entry = host if name == host.machine.name else self._manager.registry.by_name(name)
        if entry is None:
            raise NoSuchMachine(f"No machine '{name}' known")
        return entry

    def find(self, label: str) -> Bound | None:
        """The object of a machine, by the last part of its path."""
        name = decode_label(label)
        host = self._manager.host
        entry = host if name == host.machine.name else self._manager.registry.by_name(name) if name else None
        return None if entry is None else Bound(MACHINE, self.handlers(entry))

    def labels(self) -> Iterable[str]:
        return (encode_label(entry.machine.name) for entry in self.all())

    def handlers(self, entry: Entry) -> MachineHandlers:
        return MachineHandlers(self._manager, self._entering, self._read_os_release, entry)


class ManagerHandlers:
    """What the interface has for machines, by its names there."""

    def __init__(self, manager: Manager, machines: Machines) -> None:
        self._manager = manager
        self._machines = machines

    # Looking.

    def do_get_machine(self, _call: Call, name: str) -> list[str]:
        return [_path(self._machines.by_name(name))]

    async def do_get_machine_by_pid(self, call: Call, pid: int) -> list[str]:
        if not pid:
            pid = (await call.subject()).pid
        try:
            entry = self._manager.find(None, ProcessId(pid))
        except NoSuchMachine:
            raise no_machine_for_pid(pid) from None
        if entry is self._manager.host:
            raise no_machine_for_pid(pid)  # machined, too, means those that were registered
        return [_path(entry)]

    def do_list_machines(self, _call: Call) -> list[Any]:
        return [[[machine.name, machine.machine_class.value, machine.service, machine_path(machine.name)]
                 for machine in (entry.machine for entry in self._machines.all())]]

    async def do_get_machine_addresses(self, call: Call, name: str) -> list[Any]:
        return await self._machine(name).do_get_addresses(call)

    async def do_get_machine_ssh_info(self, call: Call, name: str) -> list[str]:
        return await self._machine(name).do_get_ssh_info(call)

    async def do_get_machine_os_release(self, call: Call, name: str) -> list[dict[str, str]]:
        return await self._machine(name).do_get_os_release(call)

    def do_get_machine_uid_shift(self, call: Call, name: str) -> list[int]:
        return self._machine(name).do_get_uid_shift(call)

    def do_map_from_machine_user(self, _call: Call, name: str, uid: int) -> list[int]:
        _check_id("user", uid)
        entry = self._machines.by_name(name)
        return [_to_host(entry, entry.machine.uid_map, "user", uid)]

    def do_map_from_machine_group(self, _call: Call, name: str, gid: int) -> list[int]:
        _check_id("group", gid)
        entry = self._machines.by_name(name)
        return [_to_host(entry, entry.machine.gid_map, "group", gid)]

    def do_map_to_machine_user(self, _call: Call, uid: int) -> list[Any]:
        _check_id("user", uid)
        return _to_machine("User", uid, self._manager.registry.user_by_id(uid))

    def do_map_to_machine_group(self, _call: Call, gid: int) -> list[Any]:
        _check_id("group", gid)
        return _to_machine("Group", gid, self._manager.registry.group_by_id(gid))

    # Changing.

    async def do_register_machine(self, call: Call, *arguments: Any) -> list[str]:
        return [_path(await self._manager.register(from_arguments(*arguments), await call.subject()))]

    async def do_register_machine_with_network(self, call: Call, *arguments: Any) -> list[str]:
        return [_path(await self._manager.register(from_arguments(*arguments), await call.subject()))]

    async def do_register_machine_ex(self, call: Call, name: str, properties: list[tuple[str, Variant]]) -> list[str]:
        return [_path(await self._manager.register(from_properties(name, properties, call.descriptor),
                                                   await call.subject()))]

    async def do_create_machine(self, call: Call, *arguments: Any) -> list[str]:
        *machine, scope = arguments
        return [_path(await self._manager.create(from_arguments(*machine), unit_properties(scope),
                                                 await call.subject()))]

    async def do_create_machine_with_network(self, call: Call, *arguments: Any) -> list[str]:
        return await self.do_create_machine(call, *arguments)

    async def do_create_machine_ex(self, call: Call, name: str, properties: list[tuple[str, Variant]],
                                   scope: list[tuple[str, Variant]]) -> list[str]:
        return [_path(await self._manager.create(from_properties(name, properties, call.descriptor),
                                                 unit_properties(scope), await call.subject()))]

    async def do_unregister_machine(self, call: Call, name: str) -> None:
        await self._manager.unregister(self._name(name), None, await call.subject())

    async def do_terminate_machine(self, call: Call, name: str) -> None:
        await self._machine(name).do_terminate(call)

    async def do_kill_machine(self, call: Call, name: str, whom: str, signal: int) -> None:
        await self._machine(name).do_kill(call, whom, signal)

    async def do_open_machine_pty(self, call: Call, name: str) -> list[Any]:
        return await self._machine(name).do_open_pty(call)

    async def do_open_machine_login(self, call: Call, name: str) -> list[Any]:
        return await self._machine(name).do_open_login(call)

    async def do_open_machine_shell(self, call: Call, name: str, *what: Any) -> list[Any]:
        return await self._machine(name).do_open_shell(call, *what)

    async def do_open_machine_root_directory(self, call: Call, name: str) -> list[int]:
        return await self._machine(name).do_open_root_directory(call)

    async def do_bind_mount_machine(self, call: Call, name: str, *what: Any) -> None:
        await self._machine(name).do_bind_mount(call, *what)

    async def do_copy_from_machine(self, call: Call, name: str, *what: Any) -> None:
        await self._machine(name).do_copy_from(call, *what)

    async def do_copy_to_machine(self, call: Call, name: str, *what: Any) -> None:
        await self._machine(name).do_copy_to(call, *what)

    async def do_copy_from_machine_with_flags(self, call: Call, name: str, *what: Any) -> None:
        await self._machine(name).do_copy_from_with_flags(call, *what)

    async def do_copy_to_machine_with_flags(self, call: Call, name: str, *what: Any) -> None:
        await self._machine(name).do_copy_to_with_flags(call, *what)

    # Inside.

    def _machine(self, name: str) -> MachineHandlers:
        return self._machines.handlers(self._machines.by_name(name))

    def _name(self, name: str) -> str:
        return self._machines.by_name(name).machine.name


def _path(entry: Entry) -> str:
    return machine_path(entry.machine.name)


def _check_id(kind: str, number: int) -> None:
    if number in _INVALID_IDS:
        raise invalid_args(f"Invalid {kind} ID {number}")


def _to_host(entry: Entry, id_map: IdMap, kind: str, inside: int) -> int:
    machine = entry.machine
    if machine.machine_class is not MachineClass.CONTAINER:
        raise invalid_args("Not supported for non-container machines.")
    if not machine.uid_map and not machine.gid_map:
        # The host's own ids, which are moved by 0; or NoUIDShift, while a user namespace has no maps yet.
        return inside + uid_shift_of(machine)
    host = id_map.to_host(inside)
    if host is None:
        # Of users also where a group was asked for, as machined says it.
        raise no_such_mapping("User", f"Machine '{machine.name}' has no matching {kind} mappings.")
    return host


def _to_machine(kind: str, host: int, answer: IdAnswer | None) -> list[Any]:
    if host < HOST_ID_FIRST:
        raise no_such_mapping(kind, f"{kind} {host} belongs to host {kind[0]}ID range")
    if answer is None:
        raise no_such_mapping(kind, f"No matching {kind.lower()} mapping for {host}.")
    return [answer.machine, machine_path(answer.machine), answer.inside_id]
