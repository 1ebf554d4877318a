# SPDX-License-Identifier: MIT
"""Messages against an interface description: which pass, and which field is to blame for the others."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.core import errors as core_errors
from resolver.varlink.errors import ERRORS, VarlinkError, to_varlink_error, unexpected
from resolver.varlink.interface import Interface, Mismatch, load_interface
from resolver.varlink.service import handler_name

TEXT = """
# All types there are.
interface org.example.types

type Color (red, green)
type Point (x: int, y: ?int)
type Tree (value: int, children: ?[]Tree)

method All(
  b: ?bool, i: ?int, f: ?float, s: ?string, o: ?object, e: ?Color, p: ?Point, t: ?Tree,
  a: ?[]int, m: ?[]?int, d: ?[string]int, set: ?[string](), inline: ?(z: int)
) -> ()
method Needs(name: string, count: int) -> (point: Point)
method Loose(name: string, point: ?Point) -> ()

error Bad(why: string)
"""

INTERFACE = Interface(TEXT, lenient=["Loose"])

GOOD: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"b": None, "i": None, "p": None}, {}),
    ({"b": True}, {"b": True}),
    ({"i": 2**64 - 1}, {"i": 2**64 - 1}),
    ({"i": -2**63}, {"i": -2**63}),
    ({"i": 5.0}, {"i": 5}),
    ({"f": 1}, {"f": 1.0}),
    ({"f": 1.5}, {"f": 1.5}),
    ({"s": ""}, {"s": ""}),
    ({"o": {"any": [1, {"thing": None}]}}, {"o": {"any": [1, {"thing": None}]}}),
    ({"e": "green"}, {"e": "green"}),
    ({"p": {"x": 1.0, "y": None}}, {"p": {"x": 1}}),
    ({"t": {"value": 1, "children": [{"value": 2}]}}, {"t": {"value": 1, "children": [{"value": 2}]}}),
    ({"a": []}, {"a": []}),
    ({"m": [1, None]}, {"m": [1, None]}),
    ({"d": {"k": 1}}, {"d": {"k": 1}}),
    ({"set": {"k": {}}}, {"set": {"k": {}}}),
    ({"inline": {"z": 1}}, {"inline": {"z": 1}}),
]

BAD: list[tuple[dict[str, Any], str]] = [
    ({"b": 1}, "b"), ({"b": "true"}, "b"), ({"b": 0.0}, "b"),
    ({"i": True}, "i"), ({"i": 5.5}, "i"), ({"i": "5"}, "i"), ({"i": 2**64}, "i"), ({"i": -2**63 - 1}, "i"),
    ({"i": 1e300}, "i"), ({"i": [5]}, "i"),
    ({"f": True}, "f"), ({"f": "1"}, "f"), ({"f": 10**400}, "f"),
    ({"s": 5}, "s"), ({"s": False}, "s"),
    ({"o": []}, "o"), ({"o": "x"}, "o"),
    ({"e": "blue"}, "e"), ({"e": 0}, "e"), ({"e": ["red"]}, "e"),
    ({"p": {}}, "p.x"), ({"p": {"x": None}}, "p.x"), ({"p": {"x": 1, "w": 1}}, "p.w"), ({"p": 5}, "p"),
    ({"t": {"value": 1, "children": [{"value": 2}, {"value": "x"}]}}, "t.children.[1].value"),
    ({"a": [1, "x"]}, "a.[1]"), ({"a": [None]}, "a.[0]"), ({"a": {}}, "a"), ({"a": "12"}, "a"),
    ({"d": {"k": "x"}}, "d.k"), ({"d": []}, "d"),
    ({"set": {"k": 1}}, "set.k"), ({"set": ["k"]}, "set"),
    ({"inline": {"z": None}}, "inline.z"),
    ({"unknown": None}, "unknown"), ({"B": True}, "B"),
]


@pytest.mark.parametrize(("given_", "got"), GOOD)
def test_good_parameters(given_: dict[str, Any], got: dict[str, Any]) -> None:
    checked = INTERFACE.methods["All"].check_parameters(given_)
    assert checked == got
    assert [type(value) for value in checked.values()] == [type(value) for value in got.values()]


@pytest.mark.parametrize(("given_", "field"), BAD)
def test_bad_parameters_name_the_field(given_: dict[str, Any], field: str) -> None:
    with pytest.raises(VarlinkError) as raised:
        INTERFACE.methods["All"].check_parameters(given_)
    assert raised.value.name == "org.varlink.service.InvalidParameter"
    assert raised.value.parameters == {"parameter": field}


@pytest.mark.parametrize(("given_", "field"), [
    ({}, "name"), ({"name": "x"}, "count"), ({"count": 1}, "name"), ({"name": None, "count": 1}, "name")])
def test_required_fields_are_required(given_: dict[str, Any], field: str) -> None:
    with pytest.raises(VarlinkError) as raised:
        INTERFACE.methods["Needs"].check_parameters(given_)
    assert raised.value.parameters == {"parameter": field}


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["x", "y", "value", "children", "z"]), inner))


@given(st.dictionaries(st.sampled_from([*(name for good, _ in GOOD for name in good), "unknown"]), ANY_JSON))
def test_any_parameters_pass_or_are_invalid(parameters: dict[str, Any]) -> None:
    method = INTERFACE.methods["All"]
    try:
        checked = method.check_parameters(parameters)
    except VarlinkError as error:
        assert error.name == "org.varlink.service.InvalidParameter"  # noqa: PT017 - it may also pass
    else:
        assert method.check_parameters(checked) == checked


def test_lenient_methods_drop_what_they_do_not_know() -> None:
    method = INTERFACE.methods["Loose"]
    checked = method.check_parameters({"name": "x", "new": 1, "point": {"x": 1, "w": 2}})
    assert checked == {"name": "x", "point": {"x": 1}}
    with pytest.raises(VarlinkError):
        method.check_parameters({"name": 5})


def test_normalize_sees_parameters_before_the_check() -> None:
    def point_of_number(parameters: dict[str, Any]) -> dict[str, Any]:
        point = parameters.get("point")
        return {**parameters, "point": {"x": point}} if isinstance(point, int) else parameters

    method = Interface(TEXT, normalize={"Loose": point_of_number}).methods["Loose"]
    assert method.check_parameters({"name": "a", "point": 7}) == {"name": "a", "point": {"x": 7}}
    with pytest.raises(VarlinkError):
        method.check_parameters({"name": "a", "point": "7"})


def test_replies_are_checked_and_nulls_left_out() -> None:
    method = INTERFACE.methods["Needs"]
    assert method.check_reply({"point": {"x": 1, "y": None}}) == {"point": {"x": 1}}
    for wrong in ({}, {"point": None}, {"point": {"x": "1"}}, {"point": {"x": 1}, "more": 1}):
        with pytest.raises(Mismatch):
            method.check_reply(wrong)


def test_names_of_no_method_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="Gone"):
        Interface(TEXT, lenient=["Gone"])


@pytest.mark.parametrize("name", ["org.varlink.service", "io.systemd.Machine", "io.systemd.UserDatabase"])
def test_our_interfaces_load(name: str) -> None:
    interface = load_interface(name)
    assert interface.name == name
    assert interface.methods
    assert interface.errors


def test_the_scanner_comes_without_the_rest_of_its_package() -> None:
    code = ("import sys; from resolver.varlink.interface import load_interface; load_interface('io.systemd.Machine');"
            "assert 'subprocess' not in sys.modules; import varlink; print(varlink.Client.__name__)")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("Client\n", "")


def test_each_meaning_of_the_core_has_its_varlink_error() -> None:
    meanings = {error for error in vars(core_errors).values() if isinstance(error, type)} - {core_errors.MachineError}
    assert ERRORS.keys() == meanings
    error = to_varlink_error(core_errors.InvalidArgument("class", "is odd"))
    assert error is not None
    assert (error.name, error.parameters) == ("org.varlink.service.InvalidParameter", {"parameter": "class"})
    interfaces = {name: load_interface(name) for name in ("io.systemd.Machine", "org.varlink.service", "io.systemd")}
    for meaning in meanings - {core_errors.InvalidArgument}:
        translated = to_varlink_error(meaning("why"))
        assert translated is not None
        interface, _, short = translated.name.rpartition(".")
        interfaces[interface].errors[short](translated.parameters)
    assert to_varlink_error(ValueError("a bug")) is None


def test_unexpected_errors_become_an_errno() -> None:
    assert unexpected(ValueError("x")).parameters == {"origin": "linux", "errno": 5, "errnoName": "EIO"}
    assert unexpected(OSError(28, "full")).parameters == {"origin": "linux", "errno": 28, "errnoName": "ENOSPC"}
    assert unexpected(OSError("no number")).parameters["errno"] == 5


@pytest.mark.parametrize(("method", "handler"), [
    ("Register", "do_register"), ("GetUserRecord", "do_get_user_record"), ("GetUIDShift", "do_get_uid_shift"),
    ("GetOSRelease", "do_get_os_release"), ("MapFrom2", "do_map_from2"), ("GetSSHInfo", "do_get_ssh_info")])
def test_handlers_names(method: str, handler: str) -> None:
    assert handler_name(method) == handler
