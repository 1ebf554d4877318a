# SPDX-License-Identifier: MIT
"""What an interface of D-Bus has, and how introspection tells of it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

_DOCTYPE = ('<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
            ' "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n')


def handler_name(prefix: str, member: str) -> str:
    """do_get_machine_uid_shift for GetMachineUIDShift."""
    return f"{prefix}_{_WORD_START.sub('_', member).lower()}"


@dataclass(frozen=True)
class Method:
    """`takes` and `gives` have a signature and a name for each argument: `s name, ay id`.

    A `hidden` one is answered and not told of: clients of later versions call it, and those of this one shall see
    what they know.
    """

    name: str
    takes: str = ""
    gives: str = ""
    hidden: bool = False

    @cached_property
    def signature(self) -> str:
        return "".join(signature for signature, _ in _arguments(self.takes))

    @cached_property
    def result(self) -> str:
        return "".join(signature for signature, _ in _arguments(self.gives))

    def xml(self) -> str:
        lines = [f'   <arg type="{signature}" name="{name}" direction="{direction}"/>\n'
                 for direction, arguments in (("in", self.takes), ("out", self.gives))
                 for signature, name in _arguments(arguments)]
        return f'  <method name="{self.name}">\n{"".join(lines)}  </method>\n'


@dataclass(frozen=True)
class Property:
    """`emits` is the annotation EmitsChangedSignal: `const` for what never changes, `false` for what is asked again."""

    name: str
    signature: str
    emits: str = "false"
    writable: bool = False
    hidden: bool = False

    def xml(self) -> str:
        access = "readwrite" if self.writable else "read"
        return (f'  <property name="{self.name}" type="{self.signature}" access="{access}">\n'
                f'   <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="{self.emits}"/>\n'
                "  </property>\n")


@dataclass(frozen=True)
class Signal:
    """`gives` as of Method."""

    name: str
    gives: str = ""

    @cached_property
    def signature(self) -> str:
        return "".join(signature for signature, _ in _arguments(self.gives))

    def xml(self) -> str:
        lines = [f'   <arg type="{signature}" name="{name}"/>\n' for signature, name in _arguments(self.gives)]
        return f'  <signal name="{self.name}">\n{"".join(lines)}  </signal>\n'


class Interface:
    """An interface by its name, its members in the order in which they are told."""

    def __init__(self, name: str, properties: Sequence[Property] = (), methods: Sequence[Method] = (),
                 signals: Sequence[Signal] = ()) -> None:
        self.name = name
        self.properties = {item.name: item for item in properties}
        self.methods = {item.name: item for item in methods}
        self.signals = {item.name: item for item in signals}

    @cached_property
    def xml(self) -> str:
        shown: list[Property | Method | Signal] = [
            *(item for item in self.properties.values() if not item.hidden),
            *(item for item in self.methods.values() if not item.hidden), *self.signals.values()]
        return f' <interface name="{self.name}">\n{"".join(item.xml() for item in shown)} </interface>\n'


PEER = Interface("org.freedesktop.DBus.Peer", methods=[Method("Ping"), Method("GetMachineId", "", "s machine_uuid")])
INTROSPECTABLE = Interface("org.freedesktop.DBus.Introspectable", methods=[Method("Introspect", "", "s xml_data")])
PROPERTIES = Interface(
    "org.freedesktop.DBus.Properties",
    methods=[Method("Get", "s interface_name, s property_name", "v value"),
             Method("GetAll", "s interface_name", "a{sv} props"),
             Method("Set", "s interface_name, s property_name, v value")],
    signals=[Signal("PropertiesChanged", "s interface_name, a{sv} changed_properties, as invalidated_properties")])

STANDARD = (PEER, INTROSPECTABLE, PROPERTIES)
"""What every object has (D-Bus specification, Standard Interfaces)."""


def node_xml(interfaces: Iterable[Interface], children: Iterable[str]) -> str:
    """What Introspect answers: children are the last parts of their paths."""
    inside = "".join(interface.xml for interface in (*STANDARD, *interfaces))
    below = "".join(f' <node name="{child}"/>\n' for child in children)
    return f"{_DOCTYPE}<node>\n{inside}{below}</node>\n"


def _arguments(text: str) -> list[tuple[str, str]]:
    return [(signature, name) for signature, _, name in (item.partition(" ") for item in text.split(", ") if item)]
