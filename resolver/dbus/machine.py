# SPDX-License-Identifier: MIT
"""org.freedesktop.machine1.Machine: one machine."""

from collections.abc import Awaitable, Callable
from typing import Any

from resolver.core.errors import AccessDenied
from resolver.core.machine import Machine
from resolver.core.registry import Entry
from resolver.dbus.call import Call
from resolver.dbus.errors import file_not_found, invalid_args
from resolver.dbus.interface import Interface, Method, Property
from resolver.dbus.objects import as_text
from resolver.entering import Entering, Terminal
from resolver.guest.metadata import addresses_of, uid_shift_of
from resolver.manager import Manager

NO_CID = 2**32 - 1
"""VMADDR_CID_ANY (linux/vm_sockets.h): no vsock address is known."""

COPY_REPLACE = 1 << 0
"""The one flag of copies (org.freedesktop.machine1(5)): what is there is replaced."""

OSRelease = Callable[[Machine], Awaitable[dict[str, str]]]
"""Reads a machine's os-release(5), within a deadline (resolver.guest.metadata)."""

MACHINE = Interface(
    "org.freedesktop.machine1.Machine",
    properties=[
        Property("Name", "s", "const"),
        Property("Id", "ay", "const"),
        Property("Timestamp", "t", "const"),
        Property("TimestampMonotonic", "t", "const"),
        Property("Service", "s", "const"),
        Property("Unit", "s", "const"),
        Property("Leader", "u", "const"),
        Property("Class", "s", "const"),
        Property("RootDirectory", "s", "const"),
        Property("NetworkInterfaces", "ai", "const"),
        Property("VSockCID", "u", "const"),
        Property("SSHAddress", "s", "const"),
        Property("SSHPrivateKeyPath", "s", "const"),
        Property("State", "s"),
        # Of systemd 258 and later.
        Property("UID", "u", "const", hidden=True),
        Property("Subgroup", "s", "const", hidden=True),
        Property("LeaderPIDFDId", "t", "const", hidden=True),
        Property("Supervisor", "u", "const", hidden=True),
        Property("SupervisorPIDFDId", "t", "const", hidden=True),
    ],
    methods=[
        Method("Terminate"),
        Method("Kill", "s whom, i signal"),
        Method("GetAddresses", "", "a(iay) addresses"),
        Method("GetSSHInfo", "", "s ssh_address, s ssh_private_key_path"),
        Method("GetOSRelease", "", "a{ss} fields"),
        Method("GetUIDShift", "", "u shift"),
        Method("OpenPTY", "", "h pty, s pty_path"),
        Method("OpenLogin", "", "h pty, s pty_path"),
        Method("OpenShell", "s user, s path, as args, as environment", "h pty, s pty_path"),
        Method("BindMount", "s source, s destination, b read_only, b mkdir"),
        Method("CopyFrom", "s source, s destination"),
        Method("CopyTo", "s source, s destination"),
        Method("CopyFromWithFlags", "s source, s destination, t flags"),
        Method("CopyToWithFlags", "s source, s destination, t flags"),
        Method("OpenRootDirectory", "", "h fd"),
    ])


class MachineHandlers:
    """Made for one call about one machine."""

    def __init__(self, manager: Manager, entering: Entering, read_os_release: OSRelease, entry: Entry) -> None:
        self._manager = manager
        self._entering = entering
        self._read_os_release = read_os_release
        self._entry = entry
        self._machine = entry.machine

    # Methods.

    async def do_terminate(self, call: Call) -> None:
        await self._manager.terminate(self._machine.name, None, await call.subject())

    async def do_kill(self, call: Call, whom: str, signal: int) -> None:
        await self._manager.kill(self._machine.name, None, whom, signal, await call.subject())

    async def do_get_addresses(self, _call: Call) -> list[Any]:
        machine = await self._manager.settled(self._machine)
        return [[[address.family, address.packed] for address in addresses_of(machine)]]

    async def do_get_ssh_info(self, call: Call) -> list[str]:
        machine = self._machine
        if not machine.ssh_address or not machine.ssh_private_key_path:
            raise file_not_found("The machine was registered without an SSH address and key")
        if not await self._may_see_key(call):
            raise AccessDenied("where the key is, is told to root and to who registered the machine")
        return [machine.ssh_address, machine.ssh_private_key_path]

    async def do_get_os_release(self, _call: Call) -> list[dict[str, str]]:
        fields = await self._read_os_release(self._machine)
        return [{as_text(name): as_text(value) for name, value in fields.items()}]

    def do_get_uid_shift(self, _call: Call) -> list[int]:
        return [uid_shift_of(self._machine)]

    async def do_open_pty(self, call: Call) -> list[Any]:
        return _given(call, await self._entering.open_pty(self._entry, await call.subject()))

    async def do_open_login(self, call: Call) -> list[Any]:
        return _given(call, await self._entering.open_login(self._entry, await call.subject()))

    async def do_open_shell(self, call: Call, user: str, path: str, arguments: list[str],
                            environment: list[str]) -> list[Any]:
        return _given(call, await self._entering.open_shell(self._entry, user, path, arguments, environment,
                                                            await call.subject()))

    async def do_open_root_directory(self, call: Call) -> list[int]:
        return [call.give(await self._entering.open_root_directory(self._entry, await call.subject()))]

    async def do_bind_mount(self, call: Call, source: str, destination: str, read_only: bool, make: bool) -> None:
        await self._entering.bind_mount(self._entry, source, destination, read_only=read_only, make=make,
                                        subject=await call.subject())

    async def do_copy_from(self, call: Call, source: str, destination: str) -> None:
        await self.do_copy_from_with_flags(call, source, destination, 0)

    async def do_copy_to(self, call: Call, source: str, destination: str) -> None:
        await self.do_copy_to_with_flags(call, source, destination, 0)

    async def do_copy_from_with_flags(self, call: Call, source: str, destination: str, flags: int) -> None:
        replace = _replaces(flags)
        await call.while_listening(self._entering.copy_from(self._entry, source, destination, replace=replace,
                                                            subject=await call.subject()))

    async def do_copy_to_with_flags(self, call: Call, source: str, destination: str, flags: int) -> None:
        replace = _replaces(flags)
        await call.while_listening(self._entering.copy_to(self._entry, source, destination, replace=replace,
                                                          subject=await call.subject()))

    # Properties.

    def get_name(self, _call: Call) -> str:
        return self._machine.name

    def get_id(self, _call: Call) -> bytes:
        return self._machine.id or b""

    def get_timestamp(self, _call: Call) -> int:
        return self._machine.realtime

    def get_timestamp_monotonic(self, _call: Call) -> int:
        return self._machine.monotonic

    def get_service(self, _call: Call) -> str:
        return self._machine.service

    def get_unit(self, _call: Call) -> str:
        return self._machine.unit

    def get_leader(self, _call: Call) -> int:
        return self._machine.leader.pid

    def get_class(self, _call: Call) -> str:
        return self._machine.machine_class.value

    def get_root_directory(self, _call: Call) -> str:
        return self._machine.root_directory

    def get_network_interfaces(self, _call: Call) -> list[int]:
        return list(self._machine.network_interfaces)

    def get_v_sock_cid(self, _call: Call) -> int:
        return NO_CID if self._machine.vsock_cid is None else self._machine.vsock_cid

    def get_ssh_address(self, _call: Call) -> str:
        return self._machine.ssh_address

    async def get_ssh_private_key_path(self, call: Call) -> str:
        path = self._machine.ssh_private_key_path
        return path if path and await self._may_see_key(call) else ""

    def get_state(self, _call: Call) -> str:
        return "running"

    def get_uid(self, _call: Call) -> int:
        return self._machine.owner

    def get_subgroup(self, _call: Call) -> str:
        return ""

    def get_leader_pidfd_id(self, _call: Call) -> int:
        return self._machine.leader.pidfd_id or 0

    def get_supervisor(self, _call: Call) -> int:
        return 0

    def get_supervisor_pidfd_id(self, _call: Call) -> int:
        return 0

    async def _may_see_key(self, call: Call) -> bool:
        return (await call.subject()).uid in (0, self._machine.owner)


def _given(call: Call, terminal: Terminal) -> list[Any]:
    return [call.give(terminal.descriptor), terminal.path]


def _replaces(flags: int) -> bool:
    if flags & ~COPY_REPLACE:
        raise invalid_args(f"Unknown flags {flags:#x}")
    return bool(flags & COPY_REPLACE)
