# SPDX-License-Identifier: MIT
# ruff: noqa: SLF001 - the varlink package gives its types no public names
"""Interface descriptions (the *.varlink files beside this one), and the check of messages against them.

The `varlink` package reads the description. Its own check of values lets missing fields pass and drops unknown ones,
so the check is ours: each type becomes a function from a JSON value to the value that a handler gets, which raises
Mismatch for any other type. Fields that are null are absent.
"""

import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from resolver.varlink.errors import invalid_parameter

Check = Callable[[Any], Any]
Normalize = Callable[[dict[str, Any]], dict[str, Any]]

INT_MIN = -(2**63)
"""Varlink leaves the width of an int open; systemd reads it as signed or unsigned of 64 bits."""

INT_END = 2**64


class Mismatch(ValueError):
    """A value that is not of its type. `path` leads to it from the outermost object."""

    def __init__(self, *path: str) -> None:
        super().__init__(*path)
        self.path = path

    def below(self, name: str) -> "Mismatch":
        """The same, seen from the object or array that holds it under `name`."""
        return Mismatch(name, *self.path)

    def __str__(self) -> str:
        return ".".join(self.path)


class Method:
    """One method: checks its parameters and its replies."""

    def __init__(self, name: str, parameters: Check, reply: Check, normalize: Normalize | None) -> None:
        self.name = name
        self._parameters = parameters
        self._reply = reply
        self._normalize = normalize

    def check_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters for a handler: null fields gone, 5.0 as 5 where it is an int. Raises InvalidParameter."""
        try:
            if self._normalize is not None:
                parameters = self._normalize(parameters)
            checked: dict[str, Any] = self._parameters(parameters)
        except Mismatch as mismatch:
            raise invalid_parameter(str(mismatch)) from None
        return checked

    def check_reply(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters to send. Mismatch where the handler is wrong."""
        checked: dict[str, Any] = self._reply(parameters)
        return checked


class Interface:
    """One interface: `text` as the file has it, `methods` by their short names, `errors` by theirs."""

    def __init__(self, text: str, lenient: Collection[str] = (),
                 normalize: Mapping[str, Normalize] | None = None) -> None:
        """`lenient` names the methods whose unknown parameters are dropped rather than refused.

        `normalize` has, by method, a function that may rewrite the parameters before they are checked: Varlink has no
        unions, and some clients send what the description does not say. It sees unchecked values and must not fail.
        """
        scanner = _load_scanner()
        parsed = scanner.Interface(text)
        self.name: str = parsed.name
        self.text = text
        self.methods: dict[str, Method] = {}
        self.errors: dict[str, Check] = {}
        strict_types = _Compiler(scanner, parsed.members, lenient=False)
        lenient_types = _Compiler(scanner, parsed.members, lenient=True)
        for name, member in parsed.members.items():
            if isinstance(member, scanner._Method):
                types = lenient_types if name in lenient else strict_types
                self.methods[name] = Method(f"{self.name}.{name}", types.check(member.in_type),
                                            strict_types.check(member.out_type), (normalize or {}).get(name))
            elif isinstance(member, scanner._Error):
                self.errors[name] = strict_types.check(member.type)
        if unknown := {*lenient, *(normalize or {})} - self.methods.keys():
            raise ValueError(f"{self.name} has no method {', '.join(sorted(unknown))}")


def load_interface(name: str, lenient: Collection[str] = (),
                   normalize: Mapping[str, Normalize] | None = None, folder: str = "") -> Interface:
    """The interface of that name, from its file in `folder`; in this directory, where nothing is said."""
    path = os.path.join(folder or os.path.dirname(__file__), f"{name}.varlink")
    with open(path, encoding="utf-8") as file:
        return Interface(file.read(), lenient, normalize)


class _Compiler:
    """Makes checks of the scanner's types. It tells them by classes with an underscore and by sample values."""

    def __init__(self, scanner: Any, members: Mapping[str, Any], lenient: bool) -> None:
        self._scanner = scanner
        self._lenient = lenient
        self._named: dict[str, Check] = {}
        for name, member in members.items():
            if isinstance(member, scanner._Alias):
                self._named[name] = self.check(member.type)

    def check(self, kind: Any) -> Check:
        scanner = self._scanner
        match kind:
            case bool():  # before int(): True is an int to Python
                return _bool
            case int():
                return _int
            case float():
                return _float
            case str():
                return _string
            case set():
                return _dict_of(_struct({}, frozenset(), lenient=False))
            case scanner._Object():
                return _object
            case scanner._Maybe():
                return _maybe(self.check(kind.element_type))
            case scanner._Array():
                return _array_of(self.check(kind.element_type))
            case scanner._Dict():
                return _dict_of(self.check(kind.element_type))
            case scanner._Enum():
                return _one_of(kind.fields)
            case scanner._Struct():
                fields = {name: self.check(field) for name, field in kind.fields.items()}
                optional = {name for name, field in kind.fields.items() if isinstance(field, scanner._Maybe)}
                return _struct(fields, frozenset(fields) - optional, self._lenient)
            case scanner._CustomType():
                name, named = kind.name, self._named
                # Looked up when used: a type may be named before it is described.
                return lambda value: named[name](value)  # noqa: PLW0108
        raise TypeError(f"a Varlink type that is not known here: {kind!r}")


def _bool(value: Any) -> bool:
    if value is True or value is False:
        return value
    raise Mismatch


def _int(value: Any) -> int:
    # JSON has one kind of number, and some write 5.0 for 5.
    if value.__class__ is float and value.is_integer():
        value = int(value)
    if value.__class__ is int and INT_MIN <= value < INT_END:
        return int(value)
    raise Mismatch


def _float(value: Any) -> float:
    if value.__class__ is float or (value.__class__ is int and INT_MIN <= value < INT_END):
        return float(value)
    raise Mismatch


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise Mismatch


def _object(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise Mismatch


def _maybe(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _one_of(names: Iterable[str]) -> Check:
    known = frozenset(names)

    def check(value: Any) -> str:
        if isinstance(value, str) and value in known:
            return value
        raise Mismatch
    return check


def _array_of(check_element: Check) -> Check:
    def check(value: Any) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            raise Mismatch
        checked = []
        for index, element in enumerate(value):
            try:
                checked.append(check_element(element))
            except Mismatch as mismatch:
                raise mismatch.below(f"[{index}]") from None
        return checked
    return check


def _dict_of(check_element: Check) -> Check:
    def check(value: Any) -> dict[str, Any]:
        checked = {}
        for name, element in _object(value).items():
            try:
                checked[name] = check_element(element)
            except Mismatch as mismatch:
                raise mismatch.below(name) from None
        return checked
    return check


def _struct(fields: dict[str, Check], required: frozenset[str], lenient: bool) -> Check:
    def check(value: Any) -> dict[str, Any]:
        checked = {}
        for name, element in _object(value).items():
            check_field = fields.get(name)
            if check_field is None:
                if lenient:
                    continue
                raise Mismatch(name)
            if element is None and name not in required:
                continue
            try:
                checked[name] = check_field(element)
            except Mismatch as mismatch:
                raise mismatch.below(name) from None
        if not required <= checked.keys():
            raise Mismatch(next(name for name in fields if name in required and name not in checked))
        return checked
    return check


def _load_scanner() -> Any:
    """The module varlink.scanner, without the client and server that the package imports with it.

    They bring in subprocess, socketserver and inspect: 30 ms and 4 MB of a process that answers look-ups. So an empty
    module stands for the package while its scanner is imported.
    """
    loaded = sys.modules.get("varlink.scanner")
    if loaded is not None or "varlink" in sys.modules:
        return loaded or import_module("varlink.scanner")
    spec: ModuleSpec | None = PathFinder.find_spec("varlink")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("the varlink package is not installed", name="varlink")
    stand_in = ModuleType("varlink")
    stand_in.__path__ = spec.submodule_search_locations
    sys.modules["varlink"] = stand_in
    try:
        return import_module("varlink.scanner")
    finally:
        del sys.modules["varlink"]
