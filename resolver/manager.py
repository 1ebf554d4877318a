# SPDX-License-Identifier: MIT
"""What may be done with machines, whichever way the request came: register, unregister, terminate, kill, look up.

The one place that changes the registry. What changed is told to `listeners`, the table first; a request is answered
only after that. Each machine's leader is held by pidfd: its exit takes the machine away, whoever else says what.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from resolver import leaders
from resolver.addressing import (
    RESTORED_SECONDS,
    Addressing,
    Explained,
    Followed,
    Network,
    Outside,
    SeeingNothing,
)
from resolver.authority import Authority, Subject
from resolver.core.errors import (
    InvalidArgument,
    MachineExists,
    NoSuchMachine,
    NotAvailable,
    NotSupported,
)
from resolver.core.frozen import but
from resolver.core.machine import ChosenAddress, Machine, MachineClass, ProcessId
from resolver.core.names import alias_of, check_machine_name, name_key
from resolver.core.registration import Registration
from resolver.core.registry import MACHINES_MAX, Change, Entry, Registry
from resolver.guest.metadata import GuestFiles
from resolver.host.exits import Exits
from resolver.host.kill import is_shared_unit, kill_all
from resolver.host.links import HostLinks
from resolver.host.netns import NetlinkOpener
from resolver.host.process import NoSuchProcess, Process
from resolver.host.reach import HostChange
from resolver.host.state_files import StateFiles
from resolver.state_keeper import StateKeeper
from resolver.units import UnitProperty, Units

MAP_RETRY_FIRST_SECONDS = 0.01
MAP_RETRY_LAST_SECONDS = 30.0
"""While a machine's id map is still empty it is read again, at growing intervals, in all for about a minute: a manager
writes it within moments of making the namespace, and the kernel tells nobody."""

RIVALS_TOLD_MAX = 8
"""Named in the log: LXC gives all its containers one map."""

_log = logging.getLogger(__name__)

Listener = Callable[[Sequence[Change]], None]
Published = Callable[[str], tuple[ChosenAddress, ...] | None]
"""The addresses that look-ups have of a machine, by its name; None where they know of none by that name."""


@dataclass(slots=True)
class Held:
    """What is kept open for a machine."""

    process: Process
    addresses: Followed
    map_timer: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What became of a machine's addresses."""

    entry: Entry
    network: Network
    addresses: tuple[Explained, ...]
    rivals: tuple[str, ...] = ()
    """Machines that were there before and have some of its ids, which keep their names."""


class Manager:
    """The machines of this host."""

    def __init__(self, registry: Registry, states: StateFiles, opener: NetlinkOpener, links: HostLinks,
                 authority: Authority, units: Units, host: Machine, guest: GuestFiles,
                 listeners: Iterable[Listener], outside: Outside | None = None) -> None:
        self.registry = registry
        self.host = Entry(host)
        """The machine .host: this host itself. It can be looked at and not be changed."""
        self.guest = guest
        """Reads what only a guest's files tell."""
        self.machines_max = MACHINES_MAX
        """No more are taken in; those that are there stay."""
        self._states = StateKeeper(states, registry)
        self._authority = authority
        self._units = units
        self._listeners = list(listeners)
        self._held: dict[str, Held] = {}
        self._exits = Exits(self._on_leader_exit)
        self._registering: set[str] = set()
        self._addressing = Addressing(opener, links, outside or SeeingNothing(), lambda: iter(self._held),
                                      self._followed, self._update)

    # Requests.

    async def register(self, request: Registration, subject: Subject) -> Entry:
        """Take in a machine and publish it. Any MachineError."""
        return await self._register(request, subject, "register-machine", None)

    async def create(self, request: Registration, properties: Sequence[UnitProperty], subject: Subject) -> Entry:
        """Take in a machine whose leader is first put into a scope of its own, with these properties."""
        return await self._register(request, subject, "create-machine", properties)

    async def _register(self, request: Registration, subject: Subject, action: str,
                        scope: Sequence[UnitProperty] | None) -> Entry:
        names = own_names()
        check_machine_name(request.name, names, single_label=not subject.privileged)
        request.check()
        await self._authority.check(
            subject, action, {"name": request.name, "class": request.machine_class, "verb": "register"})
        key = name_key(request.name)
        if key in self._registering:
            raise MachineExists(f"a machine {request.name} is being registered")
        if len(self.registry) + len(self._registering) >= self.machines_max:
            raise NotAvailable(f"{self.machines_max} machines are registered, and no more are taken")
        self._forget_dead(self.registry.by_name(key))
        there = self.registry.by_name(key)
        if there is not None:  # before anything is followed by that name
            raise MachineExists(f"a machine {there.machine.name} is registered already")
        self._registering.add(key)
        try:
            process = leaders.find(request.leader, subject)
            try:
                leaders.check_room(process)
                leaders.check(process, subject)
                # Its number may have been the leader's of a machine that has just ended.
                self._forget_dead(self.registry.by_leader(process.pid))
                if scope is not None:
                    await self._units.start_scope(
                        scope_name(request.name), process.pid, f"{request.machine_class.label} {request.name}", scope,
                        process.fileno())
                return await self._take_in(request, subject, process, alias_of(request.name, names))
            except BaseException:
                process.close()
                raise
        except NoSuchProcess as error:
            raise InvalidArgument("leader", str(error)) from None
        except OSError as error:
            leaders.check_descriptors(error)
            raise
        finally:
            self._registering.discard(key)

    async def unregister(self, name: str | None, leader: ProcessId | None, subject: Subject) -> None:
        """Let a machine go; its processes stay. NotAvailable where that could not outlive the daemon."""
        entry = await self._to_be_changed(name, leader, "unregister", subject)
        self._states.remove(entry.machine)
        self._let_go(entry, "unregistered")

    async def terminate(self, name: str | None, leader: ProcessId | None, subject: Subject) -> None:
        """Have the machine's unit stopped, or its processes killed. It goes when its leader has."""
        entry = await self._to_be_changed(name, leader, "terminate", subject)
        process = self._held_of(entry).process
        if self._has_unit_of_its_own(entry):
            try:
                await self._units.stop(entry.machine.unit)
                return
            except NotSupported:
                pass  # no systemd: by hand
        if leaders.rules_pid_namespace(process):
            leaders.send_signal(process, signal.SIGKILL)  # and the kernel kills all others there (pid_namespaces(7))
        else:
            await self._kill_all(entry, process, signal.SIGKILL)

    async def kill(self, name: str | None, leader: ProcessId | None, whom: str | None, number: int,
                   subject: Subject) -> None:
        """Send a signal to the leader, or to all processes (`whom`: leader, all; all where it is not said)."""
        if whom not in (None, "", "leader", "all"):
            raise InvalidArgument("whom", f"{whom!r} is neither leader nor all")
        if not 0 < number < signal.NSIG:
            raise InvalidArgument("signal", f"{number} is no signal")
        entry = await self._to_be_changed(name, leader, "kill", subject)
        process = self._held_of(entry).process
        if whom == "leader":
            leaders.send_signal(process, number)
        else:
            await self._kill_all(entry, process, number)

    def leader_of(self, entry: Entry) -> Process:
        """A machine's leader, held anew; the caller's to close. NoSuchMachine where it has gone."""
        try:
            return Process.from_pidfd(os.dup(self._held_of(entry).process.fileno()))
        except NoSuchProcess:
            raise NoSuchMachine("its leader has just exited") from None

    def find(self, name: str | None, process: ProcessId | None) -> Entry:
        """The machine by name, by its leader or by any process of its unit, or by both where they agree."""
        if name is None and process is None:
            raise InvalidArgument("name", "name or pid must be given")
        by_name = by_process = None
        if name is not None:
            by_name = self._by_name(name)
            if by_name is None:
                raise NoSuchMachine(f"no machine {name} is registered")
        if process is not None:
            by_process = self._by_process(process)
            if by_process is None:
                raise NoSuchMachine(f"process {process.pid} belongs to no machine")
        if by_name is not None and by_process is not None and by_name is not by_process:
            raise NoSuchMachine(f"process {process.pid if process else 0} does not belong to {name}")
        found = by_name or by_process
        assert found is not None
        return found

    async def settled(self, machine: Machine) -> Machine:
        """A machine that was found, with its addresses of now: after a restart, it may still have those of before."""
        key = name_key(machine.name)
        held = self._held.get(key)
        if held is None or not held.addresses.behind:
            return machine
        await self._addressing.settle(key)
        entry = self.registry.by_name(key)
        if entry is None or entry.machine.leader != machine.leader:
            raise NoSuchMachine(f"machine {machine.name} has just gone")
        return entry.machine

    async def explain(self, name: str) -> Explanation:
        """Why look-ups give what they give of a machine, by its name or alias."""
        entry = self._by_name(name) or self.registry.by_host_name(name)
        if entry is None:
            raise NoSuchMachine(f"no machine {name} is registered")
        if entry is self.host:
            return Explanation(entry, Network.HOST, ())
        await self._addressing.settle(entry.key)
        entry = self.registry.by_name(entry.key)
        if entry is None:
            raise NoSuchMachine(f"machine {name} has just gone")
        followed = self._held[entry.key].addresses
        network = followed.network
        if network is Network.HOST and entry.machine.machine_class is MachineClass.VM:
            network = Network.UNKNOWN  # its leader's is not the guest's
        rivals = tuple(self.registry.rivals(entry)) if entry.contested else ()
        return Explanation(entry, network, followed.explained(), rivals)

    # Start and stop.

    async def restore(self, published: Published = lambda _: None) -> None:
        """Take back the machines of the state files, but for those whose leader has gone. Nothing is told of it.

        Containers whose addresses are `published` keep these until catch_up() has looked at them; the others have the
        addresses of now.
        """
        loaded = self._states.load()
        for name, error in loaded.errors:
            _log.warning("The state file of machine %s is passed over: %s", name, error)
        found: list[tuple[Machine, Process, tuple[ChosenAddress, ...] | None]] = []
        to_follow: list[tuple[str, Process]] = []
        for saved in loaded.machines:
            try:
                process = Process.from_identity(saved.leader)
            except NoSuchProcess as error:
                _log.info("Machine %s has gone meanwhile: %s", saved.name, error)
                self._states.forget(saved)
                continue
            listed = saved.machine_class is MachineClass.CONTAINER and saved.name in loaded.ours
            chosen = published(saved.name) if listed else None
            if chosen is None:
                to_follow.append((saved.name, process))
            found.append((saved, process, chosen))
        followed = iter(await asyncio.gather(*(self._addressing.follow(name, process, RESTORED_SECONDS)
                                               for name, process in to_follow)))
        names = own_names()
        # In the order of registration: who came first keeps what only one can have.
        for saved, process, chosen in found:
            addresses = next(followed) if chosen is None else self._addressing.remember(saved.name, process)
            self._restore(saved, Held(process, addresses), alias_of(saved.name, names), chosen or ())
        self._states.tidy()

    def catch_up(self) -> None:
        """Begin to look at the machines that were taken back without."""
        self._addressing.catch_up()

    def host_changed(self, change: HostChange) -> None:
        """Choose addresses anew, soon, where a change of the host's links or routes may make others right."""
        self._addressing.host_changed(change)

    def seen(self, key: str) -> None:
        """Neighbours or leases tell something else of a machine, by its key."""
        self._addressing.seen(key)

    def close(self) -> None:
        """Let go of every descriptor. Machines and their state files stay."""
        self._addressing.close()
        self._states.close()
        for held in self._held.values():
            self._drop(held)
        self._held.clear()
        self._exits.close()

    # Inside.

    async def _to_be_changed(self, name: str | None, leader: ProcessId | None, verb: str, subject: Subject) -> Entry:
        """The machine, if the subject may change it, and if it is still there when that is known."""
        entry = self.find(name, leader)
        if entry is self.host:
            raise NotSupported("this is the host itself")
        await self._authority.check(subject, "manage-machines", details(entry, verb))
        self._held_of(entry)
        return entry

    def _has_unit_of_its_own(self, entry: Entry) -> bool:
        unit = entry.machine.unit
        return bool(unit) and not is_shared_unit(unit) and not any(
            other is not entry and other.machine.unit == unit for other in self.registry)

    async def _take_in(self, request: Registration, subject: Subject, process: Process, alias: str) -> Entry:
        held = Held(process, await self._addressing.follow(request.name, process))
        # From here on nothing waits: the machine is taken in whole, or not at all.
        try:
            leader, maps, unit = process.facts()
            judged = self._addressing.choose(request, held.addresses)
            machine = Machine(
                name=request.name, machine_class=request.machine_class, leader=leader, service=request.service,
                id=request.id, root_directory=request.root_directory, network_interfaces=request.network_interfaces,
                unit=unit, owner=subject.uid, realtime=time.time_ns() // 1000,
                monotonic=time.monotonic_ns() // 1000, vsock_cid=request.vsock_cid, ssh_address=request.ssh_address,
                ssh_private_key_path=request.ssh_private_key_path, control_address=request.control_address,
                uid_map=maps.uid, gid_map=maps.gid, addresses=judged.addresses, chosen=judged.chosen, alias=alias)
            changes = self.registry.add(machine)
            try:
                self._states.save(machine)
            except BaseException:
                self.registry.remove(machine.name)
                raise
        except BaseException:
            self._drop(held)
            raise
        self._hold(machine, held, maps.pending)
        self._tell(changes)
        # Behind the answer, which waits for readers alone.
        asyncio.get_running_loop().call_soon(_log.info, "New machine %s, leader %d", machine.name, leader.pid)
        entry = self.registry.by_name(machine.name)
        assert entry is not None
        if entry.contested:
            _log.warning("Another machine has some ids of the maps of machine %s; these keep its names: %s",
                         machine.name, ", ".join(self.registry.rivals(entry)[:RIVALS_TOLD_MAX]))
        return entry

    def _restore(self, saved: Machine, held: Held, alias: str, chosen: tuple[ChosenAddress, ...]) -> None:
        try:
            maps = held.process.id_maps()
            saved = but(saved, alias=alias, uid_map=maps.uid, gid_map=maps.gid, chosen=chosen)
            if not held.addresses.behind:
                judged = self._addressing.choose(saved, held.addresses)
                saved = but(saved, addresses=judged.addresses, chosen=judged.chosen)
            self.registry.add(saved)
        except (NoSuchProcess, MachineExists) as error:
            _log.warning("Machine %s is let go: %s", saved.name, error)
            self._states.forget(saved)
            self._drop(held)
            return
        self._hold(saved, held, maps.pending)

    def _held_of(self, entry: Entry) -> Held:
        """What is held for a machine that was found before something was waited for."""
        current = self.registry.by_name(entry.key)
        if current is None or current.machine.leader != entry.machine.leader:
            raise NoSuchMachine(f"machine {entry.machine.name} has just gone")
        return self._held[entry.key]

    def _hold(self, machine: Machine, held: Held, map_pending: bool) -> None:
        key = name_key(machine.name)
        self._held[key] = held
        self._exits.watch(held.process, machine.name)
        if map_pending:
            held.map_timer = asyncio.get_running_loop().call_later(
                MAP_RETRY_FIRST_SECONDS, self._read_maps_again, machine.name, MAP_RETRY_FIRST_SECONDS)

    def _drop(self, held: Held) -> None:
        self._exits.forget(held.process)
        if held.map_timer is not None:
            held.map_timer.cancel()
        self._addressing.forget(held.addresses)
        held.process.close()

    def _let_go(self, entry: Entry, why: str) -> None:
        self._drop(self._held.pop(entry.key))
        changes = self.registry.remove(entry.machine.name)
        self._states.unit_left(entry.machine.unit)
        self._tell(changes)
        _log.info("Machine %s %s", entry.machine.name, why)

    def _has_ended(self, entry: Entry) -> None:
        self._states.forget(entry.machine)
        self._let_go(entry, "has ended")

    def _tell(self, changes: Sequence[Change]) -> None:
        for listener in self._listeners:
            listener(changes)

    def _on_leader_exit(self, name: str) -> None:
        entry = self.registry.by_name(name)
        assert entry is not None
        self._has_ended(entry)

    def _followed(self, key: str) -> tuple[Machine, Followed] | None:
        entry, held = self.registry.by_name(key), self._held.get(key)
        return None if entry is None or held is None else (entry.machine, held.addresses)

    def _read_maps_again(self, name: str, paused: float) -> None:
        entry, held = self.registry.by_name(name), self._held.get(name_key(name))
        if entry is None or held is None:
            return
        held.map_timer = None
        try:
            maps = held.process.id_maps()
        except NoSuchProcess:
            return  # the pidfd tells, if it has not yet
        if maps.pending:
            if paused < MAP_RETRY_LAST_SECONDS:
                held.map_timer = asyncio.get_running_loop().call_later(
                    paused * 2, self._read_maps_again, name, paused * 2)
            else:
                _log.warning("Machine %s has a user namespace, but its id maps are still empty", name)
        self._update([but(entry.machine, uid_map=maps.uid, gid_map=maps.gid)])

    def _update(self, machines: Sequence[Machine]) -> None:
        changes: list[Change] = []
        for machine in machines:
            entry = self.registry.by_name(machine.name)
            if entry is not None and entry.machine != machine:
                changes += self.registry.update(machine)
        if changes:
            self._tell(changes)

    def _forget_dead(self, entry: Entry | None) -> None:
        """Let a machine go whose leader has exited, where that has not been noticed yet."""
        if entry is not None and self._held[entry.key].process.exited():
            self._has_ended(entry)

    def _by_name(self, name: str) -> Entry | None:
        if name == self.host.machine.name:
            return self.host
        check_machine_name(name)
        return self.registry.by_name(name)

    async def _kill_all(self, entry: Entry, process: Process, number: int) -> None:
        unit = entry.machine.unit
        if not self._has_unit_of_its_own(entry):
            raise NotSupported(f"the machine has no unit of its own, others live in {unit or 'its control group'} too")
        try:
            # In a thread: a guest that forks faster than it is signalled makes it last. The machine may go meanwhile.
            with Process.from_pidfd(os.dup(process.fileno())) as leader:
                await asyncio.to_thread(kill_all, leader, unit, number)
        except NoSuchProcess:
            raise NoSuchMachine("its leader has just exited") from None

    def _by_process(self, wanted: ProcessId) -> Entry | None:
        entry = self.host if wanted.pid == self.host.machine.leader.pid else self.registry.by_leader(wanted.pid)
        try:
            with Process.from_identity(wanted) if wanted.boot_id else Process.open(wanted.pid) as process:
                if wanted.pidfd_id not in (None, process.identity().pidfd_id):
                    return None
                return entry or self.registry.by_unit(process.unit())
        except NoSuchProcess:
            return None


def own_names() -> frozenset[str]:
    """The host's own name, with and without its domain, as keys (uname(2): asked of the kernel, not of NSS)."""
    return _forms_of(os.uname().nodename)


@lru_cache(1)
def _forms_of(name: str) -> frozenset[str]:
    key = name_key(name)
    return frozenset({key, key.partition(".")[0]})


def scope_name(machine: str) -> str:
    """The scope of a machine that is created: machine-NAME.scope, escaped as systemd.unit(5) says."""
    escaped = "".join(c if c.isascii() and (c.isalnum() or c in ":_.") else f"\\x{ord(c):02x}" for c in machine)
    return f"machine-{escaped}.scope"


def details(entry: Entry, verb: str) -> dict[str, str]:
    """What polkit's rules may decide by: `machine` and `verb` as systemd-machined has them, and more."""
    machine = entry.machine
    return {"machine": machine.name, "name": machine.name, "class": machine.machine_class, "verb": verb}
