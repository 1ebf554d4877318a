# SPDX-License-Identifier: MIT
"""From a method call to the handler that answers it.

A handler object has `do_get_machine(call, *arguments)` for the method GetMachine, which returns what the reply holds,
as a list, or None for nothing; `get_leader(call)` for the property Leader, and `set_...(call, value)`.
Each may be a coroutine function, and then runs in a task of its own: it keeps no other call from its answer. It raises
one of resolver.core.errors, or of resolver.dbus.errors, for an error reply. A method without its do_* is not supported.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from dbus_fast import Message, MessageFlag, MessageType, Variant

from resolver.core.errors import NotSupported
from resolver.dbus.call import Call
from resolver.dbus.connection import Connection
from resolver.dbus.errors import (
    invalid_args,
    limits_exceeded,
    read_only,
    to_error_reply,
    unexpected,
    unknown_interface,
    unknown_method,
    unknown_object,
    unknown_property,
)
from resolver.dbus.interface import STANDARD, Interface, handler_name, node_xml
from resolver.dbus.reader import Received

CALLS_BY_SENDER = 64
"""Calls of one connection that may wait at once: each holds some kilobytes. libvirt has tens of threads, one a call."""

_STANDARD = {interface.name: interface for interface in STANDARD}
_MACHINE_ID = "/etc/machine-id"
_log = logging.getLogger(__name__)


class Bound(NamedTuple):
    """An interface of an object, and who answers for it."""

    interface: Interface
    handler: object


class Several:
    """Handlers of one interface whose methods are in several places: for each name, the first that has it."""

    def __init__(self, *handlers: object) -> None:
        self._handlers = handlers

    def __getattr__(self, name: str) -> Any:
        for handler in self._handlers:
            if hasattr(handler, name):
                return getattr(handler, name)
        raise AttributeError(name)


class Collection(NamedTuple):
    """Objects below a path that come and go."""

    find: Callable[[str], Bound | None]
    """By the last part of its path."""
    labels: Callable[[], Iterable[str]]


class Objects:
    """What is at which path. There is no object until it is asked for: ten thousand machines cost nothing here."""

    def __init__(self, connection: Connection, fixed: Mapping[str, Bound],
                 collections: Mapping[str, Collection]) -> None:
        self._connection = connection
        self._fixed = fixed
        self._collections = collections
        self._nodes = _nodes([*fixed, *collections])
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight: dict[str, int] = {}
        connection.on_call = self._on_call

    async def close(self) -> None:
        """Give up the calls that are not answered yet."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # Replies.

    def _on_call(self, received: Received) -> None:
        call = Call(self._connection, received.message)
        result = None
        try:
            if received.problem:
                raise invalid_args(received.problem)
            signature, result = self._start(call)
        except Exception as error:  # noqa: BLE001 - whatever a handler does, its caller gets a reply
            self._fail(call, error)
            call.close()
            return
        if not inspect.iscoroutine(result):
            self._reply(call, signature, result)
            call.close()
            return
        sender = received.message.sender or ""
        if self._in_flight.get(sender, 0) >= CALLS_BY_SENDER:
            result.close()
            self._fail(call, limits_exceeded(f"{CALLS_BY_SENDER} calls of this connection wait already"))
            call.close()
            return
        self._in_flight[sender] = self._in_flight.get(sender, 0) + 1
        task = asyncio.get_running_loop().create_task(self._finish(call, sender, signature, result))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, call: Call, sender: str, signature: str, result: Coroutine[Any, Any, Any]) -> None:
        try:
            self._reply(call, signature, await result)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(call, error)
        finally:
            call.close()
            self._in_flight[sender] -= 1
            if not self._in_flight[sender]:
                del self._in_flight[sender]

    def _reply(self, call: Call, signature: str, body: Sequence[Any] | None) -> None:
        message = call.message
        if message.flags.value & MessageFlag.NO_REPLY_EXPECTED.value:
            return
        try:
            self._connection.send(Message(
                message_type=MessageType.METHOD_RETURN, destination=message.sender, reply_serial=message.serial,
                signature=signature, body=list(body or ()), unix_fds=call.given, flags=MessageFlag.NO_REPLY_EXPECTED))
        except Exception as error:  # noqa: BLE001 - a value that is not what the interface promises
            self._fail(call, error)

    def _fail(self, call: Call, error: Exception) -> None:
        message = call.message
        answer = to_error_reply(error)
        if answer is None:
            _log.error("%s.%s failed", message.interface, message.member, exc_info=error)
            answer = unexpected()
        else:
            _log.debug("%s.%s of %s: %s", message.interface, message.member, message.sender, error)
        if message.flags.value & MessageFlag.NO_REPLY_EXPECTED.value:
            return
        name, text = answer
        self._connection.send(Message(
            message_type=MessageType.ERROR, destination=message.sender, reply_serial=message.serial, error_name=name,
            signature="s", body=[as_text(text)], flags=MessageFlag.NO_REPLY_EXPECTED))

    # Calls.

    def _start(self, call: Call) -> tuple[str, Any]:
        """The signature of the reply, and what the handler gave."""
        message = call.message
        path, name, member = message.path or "/", message.interface, message.member or ""
        if name == "org.freedesktop.DBus.Peer":
            return self._call(call, Bound(_STANDARD[name], self))  # on any path (D-Bus specification)
        found = self._find(path)
        if found is None:
            raise unknown_object(path)
        bound = [*(Bound(interface, _StandardHandlers(self, path, found)) for interface in STANDARD), *found]
        for each in bound:
            if name in (None, each.interface.name) and member in each.interface.methods:
                return self._call(call, each)
        raise unknown_method(name or "", member)

    def _call(self, call: Call, bound: Bound) -> tuple[str, Any]:
        interface, member = bound.interface, call.message.member or ""
        method = interface.methods.get(member)
        if method is None:
            raise unknown_method(interface.name, member)
        if call.message.signature != method.signature:
            raise invalid_args(f"Invalid arguments '{call.message.signature}' to call {interface.name}.{member}(), "
                               f"expecting '{method.signature}'.")
        handle = getattr(bound.handler, handler_name("do", member), None)
        if handle is None:
            raise NotSupported(f"{member} is not supported by this daemon yet")
        return method.result, handle(call, *call.body)

    def _find(self, path: str) -> list[Bound] | None:
        """What is at a path; None where there is nothing, not even something below it."""
        if path in self._fixed:
            return [self._fixed[path]]
        parent, _, label = path.rpartition("/")
        if parent in self._collections:
            bound = self._collections[parent].find(label)
            return None if bound is None else [bound]
        return [] if path in self._nodes else None

    def children(self, path: str) -> Iterable[str]:
        """The last parts of the paths right below."""
        collection = self._collections.get(path)
        return [*self._nodes.get(path, ()), *(collection.labels() if collection else ())]

    def do_ping(self, _call: Call) -> None:
        pass

    def do_get_machine_id(self, _call: Call) -> list[str]:
        with open(_MACHINE_ID, encoding="ascii") as file:
            return [file.read().strip()]


class _StandardHandlers:
    """Introspectable and Properties of one object."""

    def __init__(self, objects: Objects, path: str, bound: Sequence[Bound]) -> None:
        self._objects = objects
        self._path = path
        self._bound = {each.interface.name: each for each in bound}

    def do_introspect(self, _call: Call) -> list[str]:
        return [node_xml([each.interface for each in self._bound.values()], self._objects.children(self._path))]

    async def do_get(self, call: Call, interface: str, name: str) -> list[Variant]:
        bound, signature = self._property(interface, name)
        return [Variant(signature, await _value(call, bound, name))]

    async def do_get_all(self, call: Call, interface: str) -> list[dict[str, Variant]]:
        if not self._bound:
            raise unknown_object(self._path)
        if interface and interface not in self._bound and interface not in _STANDARD:
            raise unknown_interface(interface)
        return [{item.name: Variant(item.signature, await _value(call, bound, item.name))
                 for bound in self._bound.values() if interface in ("", bound.interface.name)
                 for item in bound.interface.properties.values() if not item.hidden}]

    async def do_set(self, call: Call, interface: str, name: str, value: Variant) -> None:
        bound, signature = self._property(interface, name)
        if not bound.interface.properties[name].writable:
            raise read_only(name)
        if value.signature != signature:
            raise invalid_args(f"Incorrect parameters for property '{name}', expected '{signature}', "
                               f"got '{value.signature}'.")
        await getattr(bound.handler, handler_name("set", name))(call, value.value)

    def _property(self, interface: str, name: str) -> tuple[Bound, str]:
        bound = self._bound.get(interface)
        if bound is None or name not in bound.interface.properties:
            raise unknown_property(interface, name)
        return bound, bound.interface.properties[name].signature


async def _value(call: Call, bound: Bound, name: str) -> Any:
    value = getattr(bound.handler, handler_name("get", name))(call)
    return await value if inspect.isawaitable(value) else value


def as_text(text: str) -> str:
    """Text as D-Bus can hold it: the bus hangs up on who sends another. What a guest chose may hold anything."""
    return text.encode(errors="replace").decode().replace("\0", "?")


def _nodes(paths: Iterable[str]) -> dict[str, list[str]]:
    """All paths on the way to `paths`, with the parts right below each."""
    nodes: dict[str, list[str]] = {"/": []}
    for path in paths:
        parent = "/"
        for part in path[1:].split("/"):
            child = f"{parent.rstrip('/')}/{part}"
            if part not in nodes[parent]:
                nodes[parent].append(part)
            nodes.setdefault(child, [])
            parent = child
    return nodes
