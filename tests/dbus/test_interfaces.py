# SPDX-License-Identifier: MIT
"""What the objects say of themselves, against machine1.txt and as busctl sees it."""

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from machine_images.dbus import IMAGE, ImageHandlers, ImageManagerHandlers
from resolver.dbus.interface import Interface, handler_name
from resolver.dbus.machine import MACHINE, MachineHandlers
from resolver.dbus.manager import MANAGER_INTERFACE, ManagerHandlers
from resolver.dbus.paths import IMAGES, MACHINES, MANAGER
from tests.dbus.bus import Bus
from tests.dbus.world import MACHINE_INTERFACE, PROPERTIES, Client, Failed, World, client, run

FACTS = [line.split() for line in Path(__file__).with_name("machine1.txt").read_text().splitlines()
         if line and not line.startswith("#")]
INTERFACES: dict[str, Interface] = {"Manager": MANAGER_INTERFACE, "Machine": MACHINE, "Image": IMAGE}
INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
LOG_CONTROL = "/org/freedesktop/LogControl1"


async def introspect(caller: Client, path: str) -> ET.Element:
    return ET.fromstring(await caller.call("Introspect", path=path, interface=INTROSPECTABLE))


def told(node: ET.Element, name: str) -> set[tuple[str, ...]]:
    """The members of an interface, in the form of machine1.txt."""
    members: set[tuple[str, ...]] = set()
    (interface,) = node.findall(f"interface[@name='org.freedesktop.machine1.{name}']")
    for item in interface:
        arguments = {direction: "".join(argument.get("type", "") for argument in item.findall("arg")
                                        if argument.get("direction") == direction) or "-"
                     for direction in ("in", "out", None)}
        if item.tag == "property":
            changes = item.find("annotation[@name='org.freedesktop.DBus.Property.EmitsChangedSignal']")
            assert changes is not None
            assert item.get("access") == "read"
            members.add((name, "property", item.get("name", ""), item.get("type", ""),
                         "const" if changes.get("value") == "const" else "-"))
        elif item.tag == "signal":
            members.add((name, "signal", item.get("name", ""), arguments[None], "-"))
        else:
            members.add((name, "method", item.get("name", ""), arguments["in"], arguments["out"]))
    return members


def test_introspection_tells_what_clients_know(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        async with World(bus, tmp_path), client(bus) as caller:
            for name, path in (("Manager", MANAGER), ("Machine", f"{MACHINES}/_2ehost"),
                               ("Image", f"{IMAGES}/_2ehost")):
                assert told(await introspect(caller, path), name) == {
                    tuple(fact) for fact in FACTS if fact[0] == name and fact[1] != "later"}

    run(test())


@pytest.mark.parametrize("fact", [fact for fact in FACTS if fact[1] == "later"], ids=lambda fact: fact[2])
def test_what_later_clients_call_is_there(fact: list[str]) -> None:
    interface = INTERFACES[fact[0]]
    if fact[2] in interface.methods:
        method = interface.methods[fact[2]]
        assert [method.signature, method.result] == fact[3:]
    else:
        assert interface.properties[fact[2]].signature == fact[3]


HANDLERS: Mapping[str, list[type]] = {
    MANAGER_INTERFACE.name: [ManagerHandlers, ImageManagerHandlers], MACHINE.name: [MachineHandlers],
    IMAGE.name: [ImageHandlers]}


@pytest.mark.parametrize("interface", INTERFACES.values(), ids=lambda interface: interface.name)
def test_every_handler_is_of_a_member(interface: Interface) -> None:
    handlers = HANDLERS[interface.name]
    members = {handler_name("do", name) for name in interface.methods}
    members |= {handler_name("get", name) for name in interface.properties}
    had = {name for each in handlers for name in dir(each)}
    assert {name for name in had if name.startswith(("do_", "get_"))} <= members
    assert members <= had


def test_the_tree_is_found_from_its_root(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        async with World(bus, tmp_path) as world, client(bus) as caller:
            await world.register("web")
            found, waiting = set(), ["/"]
            while waiting:
                path = waiting.pop()
                found.add(path)
                waiting += [f"{path.rstrip('/')}/{node.get('name')}"
                            for node in (await introspect(caller, path)).findall("node")]
            images = {path for path in found if path.startswith(f"{IMAGES}/")}
            assert f"{IMAGES}/_2ehost" in images  # and what this machine has in /var/lib/machines
            assert found - images == {"/", "/org", "/org/freedesktop", LOG_CONTROL, MANAGER, MACHINES, IMAGES,
                                      f"{MACHINES}/_2ehost", f"{MACHINES}/web"}

    run(test())


def test_busctl_reads_it(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        async with World(bus, tmp_path):
            shown = await asyncio.to_thread(bus.busctl, "introspect", "org.freedesktop.machine1", MANAGER)
            assert shown.returncode == 0, shown.stderr
            lines = {tuple(line.split()[:4]) for line in shown.stdout.splitlines()}
            assert (".CreateMachineWithNetwork", "method", "sayssusaia(sv)", "o") in lines
            assert (".PoolPath", "property", "s", '"/var/lib/machines"') in lines

    run(test())


def test_all_properties_of_a_machine(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        async with World(bus, tmp_path) as world, client(bus) as caller:
            leader = world.leader()
            await caller.call("RegisterMachineWithNetwork", "sayssusai", "web", bytes(range(16)), "test", "vm", leader,
                              "/srv/web", [7, 8])
            said = await caller.call("GetAll", "s", MACHINE_INTERFACE, path=f"{MACHINES}/web", interface=PROPERTIES)
            machine = world.manager.find("web", None).machine
            assert {name: value.value for name, value in said.items()} == {
                "Name": "web", "Id": bytes(range(16)), "Timestamp": machine.realtime,
                "TimestampMonotonic": machine.monotonic, "Service": "test", "Unit": machine.unit, "Leader": leader,
                "Class": "vm", "RootDirectory": "/srv/web", "NetworkInterfaces": [7, 8], "VSockCID": 2**32 - 1,
                "SSHAddress": "", "SSHPrivateKeyPath": "", "State": "running"}
            assert {name: value.signature for name, value in said.items()} == {
                fact[2]: fact[3] for fact in FACTS if fact[:2] == ["Machine", "property"]}
            # No interface: of all interfaces. Those that are not told of are there for who asks.
            assert said.keys() == (await caller.call("GetAll", "s", "", path=f"{MACHINES}/web",
                                                     interface=PROPERTIES)).keys()
            assert await caller.get(f"{MACHINES}/web", "LeaderPIDFDId") == (machine.leader.pidfd_id or 0)
            assert await caller.get(f"{MACHINES}/_77eb", "Name") == "web"

    run(test())


@pytest.mark.parametrize(("path", "interface", "member", "signature", "body", "error"), [
    (MANAGER, PROPERTIES, "Get", "ss", [MACHINE_INTERFACE, "Name"], "DBus.Error.UnknownProperty"),
    (f"{MACHINES}/_2ehost", PROPERTIES, "Get", "ss", [MACHINE_INTERFACE, "Nome"], "DBus.Error.UnknownProperty"),
    (f"{MACHINES}/_2ehost", PROPERTIES, "Get", "ss", ["", "Name"], "DBus.Error.UnknownProperty"),
    (f"{MACHINES}/_2ehost", PROPERTIES, "Get", "s", ["Name"], "DBus.Error.InvalidArgs"),
    (f"{MACHINES}/_2ehost", PROPERTIES, "GetAll", "s", ["no.such"], "DBus.Error.UnknownInterface"),
    (f"{MACHINES}/_2ehost", PROPERTIES, "GetSome", "s", ["no.such"], "DBus.Error.UnknownMethod"),
    (f"{MACHINES}/nosuch", PROPERTIES, "GetAll", "s", [MACHINE_INTERFACE], "DBus.Error.UnknownObject"),
    (f"{MACHINES}/a_", PROPERTIES, "GetAll", "s", [MACHINE_INTERFACE], "DBus.Error.UnknownObject"),
    (f"{MACHINES}/_2ehost/x", MACHINE_INTERFACE, "GetAddresses", "", [], "DBus.Error.UnknownObject"),
    (f"{MACHINES}/nosuch", MACHINE_INTERFACE, "GetAddresses", "", [], "DBus.Error.UnknownObject"),
    (f"{MACHINES}/nosuch", INTROSPECTABLE, "Introspect", "", [], "DBus.Error.UnknownObject"),
    (f"{IMAGES}/nosuch", INTROSPECTABLE, "Introspect", "", [], "DBus.Error.UnknownObject"),
    ("/nope", INTROSPECTABLE, "Introspect", "", [], "DBus.Error.UnknownObject"),
    ("/org/freedesktop", PROPERTIES, "GetAll", "s", [""], "DBus.Error.UnknownObject"),
    (MANAGER, MACHINE_INTERFACE, "GetAddresses", "", [], "DBus.Error.UnknownMethod"),
    (MANAGER, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", "", [], "DBus.Error.UnknownMethod"),
    ("/nope", "org.freedesktop.DBus.Peer", "Pong", "", [], "DBus.Error.UnknownMethod"),
])
def test_what_is_not_there(bus: Bus, tmp_path: Path, path: str, interface: str, member: str, signature: str,
                           body: list[Any], error: str) -> None:
    async def test() -> None:
        async with World(bus, tmp_path), client(bus) as caller:
            with pytest.raises(Failed) as failed:
                await caller.call(member, signature, *body, path=path, interface=interface)
            assert failed.value.name == error

    run(test())


def test_a_peer_answers_on_any_path(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        async with World(bus, tmp_path), client(bus) as caller:
            assert await caller.call("Ping", path="/nope", interface="org.freedesktop.DBus.Peer") == []

    run(test())


def test_a_method_is_found_without_its_interface(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        async with World(bus, tmp_path), client(bus) as caller:
            assert await caller.call("GetMachine", "s", ".host", interface=None) == f"{MACHINES}/_2ehost"

    run(test())


def test_nothing_of_the_machines_can_be_set(bus: Bus, tmp_path: Path) -> None:
    from dbus_fast import Variant

    async def test() -> None:
        async with World(bus, tmp_path), client(bus) as caller:
            for name, error in (("State", "DBus.Error.PropertyReadOnly"), ("Stat", "DBus.Error.UnknownProperty")):
                with pytest.raises(Failed) as failed:
                    await caller.call("Set", "ssv", MACHINE_INTERFACE, name, Variant("s", "x"),
                                      path=f"{MACHINES}/_2ehost", interface=PROPERTIES)
                assert failed.value.name == error

    run(test())
