# SPDX-License-Identifier: MIT
"""The whole path of one machine's name, step by step, each with its time."""

import ipaddress
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from resolver.core.idmap import above_host_ids
from resolver.core.machine import ChosenAddress
from resolver.core.users import SERVICE, IdAnswer
from resolver.doctor.children import CHILD_SECONDS, Late, Step, ask_child
from resolver.doctor.finding import Finding, Level, ok
from resolver.doctor.services import USERDB_SOCKET
from resolver.host.process import NoSuchProcess, Process
from resolver.table.reader import TableReader, TableUnavailable
from resolver.varlink import MACHINE_SOCKET
from resolver.varlink.client import Client
from resolver.varlink.errors import VarlinkError

DAEMON_SECONDS = 2.0
"""For each question to the daemon and the userdb process: a millisecond."""

T = TypeVar("T")

_SWITCH = "getent -s files hosts NAME, and so on for each module before mymachines in nsswitch.conf: take it out there"
_SEE_DAEMON = "mymachinesctl doctor --check=daemon"
_SEE_ALL = "mymachinesctl doctor --check=library --check=nsswitch --check=families"


class _Broken(Exception):
    """A finding after which the rest of the path is of no interest."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.finding = finding


def check(name: str) -> Iterator[Finding]:
    try:
        yield from _steps(name)
    except _Broken as broken:
        yield broken.finding


def _steps(name: str) -> Iterator[Finding]:
    machine, seconds = _timed(lambda: _ask("io.systemd.Machine.List", {"name": name}, name))
    yield ok(f"registered: {machine['name']}, {machine['class']}, leader {machine['leader']['pid']}", seconds)
    explained, seconds = _timed(lambda: _ask("io.mymachines.Machines.Explain", {"name": name}, name))
    yield _addresses_finding(explained, seconds)
    reader = TableReader()
    found, seconds = _timed(lambda: _from_table(reader, name))
    yield ok(f"table: {_texts(found) or 'no addresses'}", seconds)
    if found:
        yield from _hosts(name, found)
        yield from _reverse(machine["name"], [address for address in found if address.reverse])
    yield from _users(reader, machine["name"], machine["leader"]["pid"])


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def _ask(method: str, parameters: dict[str, Any], name: str) -> dict[str, Any]:
    try:
        with Client(MACHINE_SOCKET, DAEMON_SECONDS) as client:
            return client.call(method, parameters)
    except VarlinkError as error:
        if error.name == "io.systemd.Machine.NoSuchMachine":
            raise _Broken(Finding(Level.BROKEN, f"registered: {name} is no machine", "nobody can look it up",
                                  f"mymachinesctl list; mymachinesctl register {name} --leader PID")) from None
        raise _Broken(Finding(Level.BROKEN, f"mymachinesd does not tell of {name}: {error}",
                              "nobody can say why it is looked up as it is", _SEE_DAEMON)) from None
    except OSError as error:
        raise _Broken(Finding(Level.BROKEN, f"mymachinesd cannot be asked about {name}: {error}",
                              "what look-ups give may not be so any more", _SEE_DAEMON)) from None


def _addresses_finding(explained: dict[str, Any], seconds: float) -> Finding:
    given = [address for address in explained["addresses"] if address["given"]]
    if given:
        reasons = ", ".join(dict.fromkeys(address["reason"] for address in given))
        return ok(f"addresses: {len(given)} of {len(explained['addresses'])} are given ({reasons})", seconds)
    if explained["network"] == "host":
        return Finding(Level.NOTE, "addresses: it has the host's network, and none of its own", seconds=seconds)
    return Finding(Level.BROKEN, f"addresses: none of {len(explained['addresses'])} can be given",
                   "the name is known, and leads nowhere", f"mymachinesctl explain {explained['name']}", seconds)


def _from_table(reader: TableReader, name: str) -> tuple[ChosenAddress, ...]:
    try:
        found = reader.host_by_name(name)
    except TableUnavailable as error:
        raise _Broken(Finding(Level.BROKEN, f"table: {error}", "look-ups ask the daemon, or end without an answer",
                              "mymachinesctl doctor --check=table")) from None
    if found is None:
        raise _Broken(Finding(Level.BROKEN, f"table: {name} is not in it", "look-ups do not find it",
                              "mymachinesctl doctor"))
    return found[1]


def _text(address: ChosenAddress) -> str:
    text = str(ipaddress.ip_address(address.packed))
    return f"{text}%{address.scope_id}" if address.scoped and address.scope_id else text


def _canonical(text: str) -> str:
    """As _text() writes it: libc and Python differ about some forms."""
    address, percent, scope = text.partition("%")
    return f"{ipaddress.ip_address(address)}{percent}{scope}"


def _texts(addresses: Sequence[ChosenAddress]) -> str:
    return ", ".join(map(_text, addresses))


def _child(kind: str, *arguments: str) -> Iterator[Step]:
    try:
        yield from ask_child(kind, *arguments)
    except Late as late:
        yield from late.steps
        raise _Broken(Finding(
            Level.BROKEN, f"a look-up does not end within {CHILD_SECONDS} s, after {len(late.steps)} that did",
            "programs hang like this one",
            "mymachinesctl doctor --check=sockets --check=nsswitch", CHILD_SECONDS)) from None


def _hosts(name: str, given: Sequence[ChosenAddress]) -> Iterator[Finding]:
    wanted = set(map(_text, given))
    for step in _child("host", name):
        if step.step == "dlopen" and step.error is None:
            yield ok("the shim is loaded", step.seconds)
            continue
        listed = list(map(_canonical, step.result)) if isinstance(step.result, list) else []
        got = set(listed)
        if step.error is not None:
            yield Finding(Level.BROKEN, f"{step.step}: {step.error}", "programs do not find it",
                          _SEE_ALL, step.seconds)
        elif not got <= wanted:
            others = ", ".join(sorted(got - wanted))
            yield Finding(Level.WARNING, f"{step.step}: {others} is not what the table has",
                          "another module answers first, such as /etc/hosts, or a cache", _SWITCH, step.seconds)
        elif got != wanted and step.step != "shim":
            lacking = ", ".join(sorted(wanted - got))
            yield Finding(Level.NOTE, f"{step.step}: without {lacking}", "of a family that this host has not, or with a"
                          " scope that the call has no room for", seconds=step.seconds)
        else:
            yield ok(f"{step.step}: {', '.join(listed)}", step.seconds)


def _reverse(name: str, addresses: Sequence[ChosenAddress]) -> Iterator[Finding]:
    if not addresses:
        return
    for step in _child("reverse", *map(_text, addresses)):
        if step.result == name:
            yield ok(f"reverse: {step.step} is {name}", step.seconds)
        else:
            yield Finding(Level.WARNING, f"reverse: {step.step} is {step.result or 'nobody'}, not {name}",
                          "another module answers first", _SWITCH, step.seconds)


def _maps(reader: TableReader, name: str, leader: int) -> Finding | None:
    """The leader's maps as they are now: they are written once each, and it may be long after the registration."""
    try:
        with Process.open(leader) as process:
            maps = process.id_maps()
    except (NoSuchProcess, OSError):
        return None     # it has ended, or is not ours to look at
    for what, ids, known in (("uid", maps.uid, reader.user_by_id), ("gid", maps.gid, reader.group_by_id)):
        part = next(iter(above_host_ids(ids.extents)), None)
        if part is not None and known(part.host_first) is None:
            return Finding(Level.BROKEN,
                           f"users: {what} {part.host_first} is in the map of pid {leader}, and nobody by the table",
                           "its map was written too long after it was registered: register it again",
                           f"mymachinesctl unregister {name} && mymachinesctl register {name} --leader {leader}")
    return None


def _users(reader: TableReader, name: str, leader: int) -> Iterator[Finding]:
    if (late := _maps(reader, name, leader)) is not None:
        yield late
        return
    try:
        mapped = _ask("io.systemd.Machine.MapFrom", {"name": name, "uid": 0, "gid": 0}, name)
    except _Broken:
        yield Finding(Level.NOTE, "users: it has no root of its own on this host")
        return
    user, group = reader.user_by_id(mapped["uid"]), reader.group_by_id(mapped["gid"])
    if user is None or group is None or name not in (user.machine, group.machine):
        yield Finding(Level.WARNING, f"users: uid {mapped['uid']} is {user.name if user else 'nobody'}",
                      "another machine has these ids: it was there first", f"mymachinesctl user {mapped['uid']}")
        return
    expected = {"getpwuid": user.name, "getpwnam": user.host_id, "getgrgid": group.name, "getgrnam": group.host_id}
    steps = {step.step: step for step in _child("ids", str(user.host_id), str(group.host_id))}
    for call, value in expected.items():
        step = steps.get(call)
        if step is not None and step.result == value:
            yield ok(f"users: {call}: {value}", step.seconds)
        elif step is not None:
            yield Finding(Level.BROKEN, f"users: {call}: {step.result or step.error}, not {value}",
                          "programs show numbers, or another's name",
                          _SEE_ALL, step.seconds)
    yield _userdb(user)


def _userdb(user: IdAnswer) -> Finding:
    started = time.perf_counter()
    try:
        with Client(USERDB_SOCKET, DAEMON_SECONDS) as client:
            reply = client.call("io.systemd.UserDatabase.GetUserRecord", {"uid": user.host_id, "service": SERVICE})
        name = reply["record"].get("userName")
    except (OSError, VarlinkError) as error:
        return Finding(Level.WARNING, f"users: userdb: {error}", "userdbctl does not know them",
                       "mymachinesctl doctor --check=userdb", time.perf_counter() - started)
    if name != user.name:
        return Finding(Level.WARNING, f"users: userdb: {name}, not {user.name}", "userdbctl says so too",
                       "mymachinesctl doctor --check=userdb", time.perf_counter() - started)
    return ok(f"users: userdb: {name}", time.perf_counter() - started)
