# SPDX-License-Identifier: MIT
"""From a call to the handler that answers it, and from what the handler gives to bytes. No input or output.

A handler is a method `do_get_user_record(self, call)` for GetUserRecord. It may be

- a function that returns a dict, a Reply, or None for a reply without parameters;
- a coroutine function that returns one of these;
- a generator or async generator that yields them, for calls with `more`. All but the last say that more follow. Where
  the caller did not say `more`, one reply is all it may get: a second one turns the call into ExpectedMore. Each reply
  is taken when the one before has left, so a generator over what may change walks over a copy. A generator that waits
  for something yields a Pause.

It raises VarlinkError or one of resolver.core.errors for an error reply. Any other exception is a bug: it is logged,
and answered with io.systemd.System, the only error that libsystemd turns into an errno.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from resolver.varlink.call import Call, Reply
from resolver.varlink.codec import encode
from resolver.varlink.errors import (
    SERVICE,
    SYSTEM,
    interface_not_found,
    method_not_found,
    method_not_implemented,
    to_varlink_error,
    unexpected,
)
from resolver.varlink.interface import Interface, Method, load_interface
from resolver.varlink.known import KnownReplies

_log = logging.getLogger(__name__)

H = TypeVar("H", bound=Callable[..., Any])

_DONE = encode({"parameters": {}})
"""The reply to most that is done, and not asked."""

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def handler_name(method: str) -> str:
    """do_get_uid_shift for GetUIDShift."""
    return "do_" + _WORD_START.sub("_", method).lower()


def ends_with_caller(handle: H) -> H:
    """Marks a handler whose work is for its caller alone, and is given up with it."""
    handle.ends_with_caller = True  # type: ignore[attr-defined]
    return handle


class Service:
    """What one socket answers: org.varlink.service, io.systemd's errors, and the interfaces that were given."""

    def __init__(self, vendor: str, product: str, version: str, url: str, interfaces: Iterable[Interface],
                 handlers: Mapping[str, object], known: KnownReplies | None = None) -> None:
        """`handlers` has an object with do_* methods for each interface, by its name.

        A method without its do_* is answered MethodNotImplemented. `known`: for a service whose replies are the same
        for all callers, and do nothing.
        """
        self.known = known
        common = load_interface(SERVICE), load_interface(SYSTEM)
        self._interfaces = {interface.name: interface for interface in (*common, *interfaces)}
        self._info = {"vendor": vendor, "product": product, "version": version, "url": url,
                      "interfaces": sorted(self._interfaces)}
        self.calls: Counter[str] = Counter()
        """By method; those of methods that there are not are not counted, for callers make them up, nor those with a
        known reply."""
        self.errors: Counter[str] = Counter()
        """Replies that were errors, by name."""
        self._methods: dict[str, tuple[Method, Any]] = {}
        for name, interface in self._interfaces.items():
            handler = handlers.get(name, self)
            for short_name, method in interface.methods.items():
                self._methods[method.name] = (method, getattr(handler, handler_name(short_name), None))

    def ends_with_caller(self, call: Call) -> bool:
        """Whether to stop where nobody is left to read the reply: what yields, and what is marked so.

        Anything else goes on: who asked for a change and has gone has asked for it all the same.
        """
        _, handle = self._methods[call.method]
        return call.more or getattr(handle, "ends_with_caller", False)

    def start(self, call: Call) -> Any:
        """Check the call and let its handler begin. Gives what the handler gave; whatever it raises passes through."""
        try:
            method, handle = self._methods[call.method]
        except KeyError:
            interface, _, _ = call.method.rpartition(".")
            if interface in self._interfaces:
                raise method_not_found(call.method) from None
            raise interface_not_found(interface or call.method) from None
        self.calls[call.method] += 1
        # No method of ours leaves Varlink for a protocol of its own.
        if handle is None or call.upgrade:
            raise method_not_implemented(call.method)
        return handle(call._replace(parameters=method.check_parameters(call.parameters)))

    def encode_reply(self, call: Call, reply: Reply, continues: bool) -> bytes:
        """The bytes of a reply. Raises where the reply is not what the interface promises: clients rely on that."""
        method, _ = self._methods[call.method]
        parameters = method.check_reply(reply.parameters)
        if continues:
            return encode({"parameters": parameters, "continues": True})
        return encode({"parameters": parameters}) if parameters else _DONE

    def encode_error(self, call: Call, error: Exception) -> bytes:
        """The bytes of the reply to a call that failed; logs the errors that nobody meant to raise."""
        answer = to_varlink_error(error)
        if answer is None:
            _log.error("%s failed", call.method, exc_info=error)
            answer = unexpected(error)
        elif not isinstance(error, type(answer)):
            _log.debug("%s: %s", call.method, error)
        self.errors[answer.name] += 1
        return encode({"error": answer.name, "parameters": answer.parameters})

    def do_get_info(self, _call: Call) -> dict[str, Any]:
        return self._info

    def do_get_interface_description(self, call: Call) -> dict[str, Any]:
        name = call.parameters["interface"]
        interface = self._interfaces.get(name)
        if interface is None:
            raise interface_not_found(name)
        return {"description": interface.text}
