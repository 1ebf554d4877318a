# SPDX-License-Identifier: MIT
"""docs/who-may.md, cell by cell: real users, the real sockets, dbus-daemon's policy and polkit's rules.

A refused call must not only say so: a picture of what it could have changed is taken before and after. What is allowed
is done to a machine and an image that are made for the purpose, and anew after each call that changed them.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

import pytest

from machine_images.dbus import IMAGE as IMAGE_MEMBERS
from resolver.dbus.interface import STANDARD, Interface
from resolver.dbus.log_control import LOG_CONTROL_INTERFACE
from resolver.dbus.machine import MACHINE as MACHINE_MEMBERS
from resolver.dbus.manager import MANAGER_INTERFACE
from tests.lab import PROJECT, wait_for
from tests.lab.processes import end
from tests.lab.waiting import Lines

from .asking import PYTHON
from .booted import AGAINST_MACHINED, USER, USER_ID, BootedHost
from .guests import MACHINES, Guest, start_shell
from .test_entering_refused import RULES, restart_polkit, set_rules
from .trying import GIFT, TAKEN
from .who_may import (
    CALLERS,
    DNS_ADDRESS,
    GUEST,
    IMAGE,
    IMAGE_INTERFACE,
    LOG_CONTROL,
    MACHINE,
    MANAGER,
    TRIALS,
    VICTIM,
    Row,
    Scene,
    Trial,
    described,
    rows,
)

pytestmark = pytest.mark.skipif(AGAINST_MACHINED, reason="about mymachinesd")

PROGRAM = "/usr/src/mymachines/tests/host/trying.py"
ANSWER_SECONDS = 30.0
HOOK_UNIT, HOOK_DROP_IN = "mymachines-resolve-hook.service", "/run/systemd/system/mymachines-resolve-hook.service.d"
DNS_OPTIONS = "/etc/default/mymachines-dns"

OTHER, FOREIGNER = 3000, 3001
FIRST_LENT = 3002       # users who may one action, or all but one
ACTIONS = sorted({row.action for table in rows().values() for row in table.values()} - {""})
LENT = {name: FIRST_LENT + number for number, name in enumerate(
    ["but-nothing", *(f"{how}-{action}" for action in ACTIONS for how in ("may", "but"))])}

POLKIT = f"""
polkit.addRule(function(action, subject) {{
    var name = action.id.replace("org.freedesktop.machine1.", "");
    if (name == action.id)
        return;
    var registers_victim = name == "register-machine" && action.lookup("name") == "{VICTIM}";
    var may_all_but = subject.user.indexOf("but-") == 0 && subject.user != "but-" + name;
    if (subject.user == "may-" + name || may_all_but || (subject.user == "{USER}" && registers_victim))
        return polkit.Result.YES;
}});
"""


class Tried(NamedTuple):
    error: str
    reply: Any


class Trier:
    """trying.py, running; `run` is how it is started."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self._lines = Lines(process)

    def ask(self, request: Mapping[str, object]) -> Tried:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        line = self._lines.next(ANSWER_SECONDS)
        assert line.startswith("{"), line
        return Tried(**json.loads(line))


class Stage:
    """The machine and the image that calls are about, and who makes them."""

    def __init__(self, host: BootedHost, guest: Guest) -> None:
        self.host = host
        self.guest_uid = int(host.out(["stat", "--format=%u", f"/proc/{guest.leader}"]))
        self.on_host = Trier(host.popen([PYTHON, "-I", PROGRAM]))
        self.inside = Trier(host.popen(guest.entered([PYTHON, "-I", PROGRAM])))
        self.leader = 0
        self._numbers = count(1)
        self.make()

    def close(self) -> None:
        end(self.inside.process)
        end(self.on_host.process)

    def picture(self) -> Sequence[object]:
        reply = self.on_host.ask({"picture": self.leader}).reply
        assert isinstance(reply, list)
        return reply

    def make(self) -> None:
        """Both, as they were at first."""
        if self.leader:
            self.on_host.ask({"end": self.leader})
            self._wait_for_its_end()
        self.leader = self.on_host.ask({"leader": True, "uid": USER_ID}).reply
        machine = {"name": VICTIM, "class": "container", "leader": self.leader, "sshAddress": "vsock/7",
                   "sshPrivateKeyPath": "/secret"}
        answer = self._call("io.systemd.Machine.Register", machine, USER_ID)
        assert not answer.error, answer
        self.host.run(f"chattr -i {MACHINES}/{IMAGE}* 2>/dev/null; rm -rf {MACHINES}/{IMAGE}* {TAKEN}; "
                      f"mkdir -p {MACHINES}/{IMAGE}/etc {MACHINES}/{IMAGE}/usr; cd {MACHINES}/{IMAGE}/etc; "
                      "echo ID=tiny >os-release; echo tiny >hostname; cp /etc/machine-id machine-id; "
                      f"install /etc/hostname {GIFT}")
        self.as_made = self.picture()

    def _wait_for_its_end(self) -> None:
        wait_for(lambda: self._call("io.systemd.Machine.List", {"name": VICTIM}, 0).error, what=f"the end of {VICTIM}")

    def _call(self, method: str, parameters: Mapping[str, object], uid: int) -> Tried:
        return self.on_host.ask({"uid": uid, "varlink": "/run/systemd/machine/io.systemd.Machine", "method": method,
                                 "parameters": parameters})

    def attempt(self, trial: Trial, uid: int | None) -> Tried:
        """The answer to one user, None for root inside the container. Afterwards all is as before."""
        own = foreign = 0
        if trial.registers:
            foreign = self.on_host.ask({"leader": True, "uid": FOREIGNER}).reply
            own = 0 if uid is None else self.on_host.ask({"leader": True, "uid": uid}).reply
        scene = Scene(self.leader, own, foreign, self.guest_uid, f"fresh{next(self._numbers)}")
        request = trial.request(scene)
        answer = self.inside.ask(request) if uid is None else self.on_host.ask({**request, "uid": uid})
        refused = bool(answer.error) and answer.error in trial.refused
        now = self.picture()
        if refused:
            assert now == self.as_made, f"{request} was refused, and changed {self.as_made} to {now}"
        for pid in filter(None, (own, foreign)):
            self.on_host.ask({"end": pid})
        if trial.registers and not refused:
            wait_for(lambda: self.picture() == self.as_made, what=f"the end of {scene.fresh}")
        elif trial.ends and not refused:
            self._wait_for_its_end()
            self.make()
        elif now != self.as_made:
            self._settle()
        return answer

    def _settle(self) -> None:
        """What was opened is closed by now, or changed for good."""
        try:
            wait_for(lambda: self.picture() == self.as_made, 0.2)
        except AssertionError:
            self.make()


@pytest.fixture(scope="module")
def stage(booted: BootedHost) -> Iterator[Stage]:
    users = {"other": OTHER, "foreigner": FOREIGNER, **LENT}
    kept = {name: booted.path(f"/etc/{name}").read_text() for name in ("passwd", "group")}
    booted.path("/etc/passwd").write_text(kept["passwd"] + "".join(
        f"{name}:x:{uid}:{uid}::/:/bin/false\n" for name, uid in users.items()))
    booted.path("/etc/group").write_text(kept["group"] + "".join(f"{name}:x:{uid}:\n" for name, uid in users.items()))
    # Debian 13's resolved asks no hooks: the unit's condition is taken away.
    booted.run(f"mkdir -p {HOOK_DROP_IN}; printf '[Service]\\nExecCondition=\\n' >{HOOK_DROP_IN}/any.conf; "
               f"mkdir -p /etc/default; echo 'OPTIONS=\"--listen {DNS_ADDRESS}\"' >{DNS_OPTIONS}; "
               f"systemctl daemon-reload; systemctl restart {HOOK_UNIT} mymachines-dns.service")
    binds = ("/run/dbus", "/run/mymachines", *(f"/run/systemd/{name}" for name in (
        "machine", "machines", "mymachines", "userdb", "resolve.hook")))
    guest, stage = Guest(booted, GUEST), None
    try:
        set_rules(booted, POLKIT)
        guest = start_shell(booted, GUEST, *(f"--bind={path}" for path in binds))
        booted.run(["ip", "address", "add", f"{DNS_ADDRESS}/24", "dev", f"ve-{GUEST}"])
        booted.run(["ip", "link", "set", f"ve-{GUEST}", "up"])
        booted.run(guest.entered("ip address add 10.99.0.2/24 dev host0; ip link set host0 up"))
        stage = Stage(booted, guest)
        yield stage
    finally:
        if stage is not None:
            stage.close()
        guest.remove()
        for name, text in kept.items():
            booted.path(f"/etc/{name}").write_text(text)
        booted.run(f"systemctl stop {HOOK_UNIT} mymachines-dns.service; rm -r {HOOK_DROP_IN} {DNS_OPTIONS} {RULES}; "
                   f"rm -rf {MACHINES}/{IMAGE}* {GIFT} {TAKEN}; systemctl daemon-reload", check=False)
        restart_polkit(booted)


def wrong(trial: Trial, answer: Tried, allowed: bool) -> bool:
    if allowed:
        return answer.error not in trial.then or (trial.has is not None and not trial.has(answer.reply))
    return answer.error not in trial.refused if trial.has is None else not answer.error and trial.has(answer.reply)


def cells(row: Row) -> Iterator[tuple[str, int | None, bool]]:
    """Who is to try it, and whether it is allowed to him."""
    uids = dict(zip(CALLERS, (0, USER_ID, OTHER, None), strict=True))
    for caller in CALLERS:
        yield caller, uids[caller], row.answers[caller]
    if row.action:
        yield f"who may {row.action}", LENT[f"may-{row.action}"], True
        yield f"who may all but {row.action}", LENT[f"but-{row.action}"], False
    elif row.answers["root"] and not row.answers["other"]:
        yield "who may all that polkit decides", LENT["but-nothing"], False


@pytest.mark.parametrize("interface", sorted(TRIALS))
def test_each_cell(stage: Stage, interface: str) -> None:
    table = rows()[interface]
    found = [(name, caller, "yes" if allowed else "no", answer)
             for name, trial in TRIALS[interface].items()
             for caller, uid, allowed in cells(table[name.partition(" @ ")[0]])
             if wrong(trial, answer := stage.attempt(trial, uid), allowed)]
    assert not found, "\n".join(map(str, found))


def test_each_row_is_tried() -> None:
    for interface, table in rows().items():
        assert set(table) == {name.partition(" @ ")[0] for name in TRIALS[interface]}, interface
    assert set(rows()) == set(TRIALS)


def methods(table: Mapping[str, Row]) -> set[str]:
    return {name.partition(":")[0] for name in table}


@pytest.mark.parametrize("path", sorted(path.relative_to(PROJECT) for folder in ("resolver", "machine_images")
                                        for path in (PROJECT / folder).rglob("*.varlink")), ids=lambda path: path.stem)
def test_the_page_has_each_method_of_varlink(path: str) -> None:
    text = (PROJECT / path).read_text()
    found = described(text)
    name = re.findall(r"(?m)^interface (\S+)", text)[0]
    assert methods(rows().get(name, {})) == found, name


def test_the_page_has_each_method_of_the_bus(booted: BootedHost) -> None:
    """What introspection tells, and what it hides from clients of this version."""
    ours: dict[str, Interface] = {
        MANAGER: MANAGER_INTERFACE, MACHINE: MACHINE_MEMBERS, IMAGE_INTERFACE: IMAGE_MEMBERS,
        LOG_CONTROL: LOG_CONTROL_INTERFACE, **{interface.name: interface for interface in STANDARD}}
    table = rows()
    seen: set[str] = set()
    for path in ("/org/freedesktop/machine1", "/org/freedesktop/machine1/machine/_2ehost",
                 "/org/freedesktop/machine1/image/web", "/org/freedesktop/LogControl1"):
        xml = booted.out(["busctl", "introspect", "--xml-interface", "org.freedesktop.machine1", path])
        for name, text in re.findall(r'(?s)<interface name="([\w.]+)">(.*?)</interface>', xml):
            seen.add(name)
            told = set(re.findall(r'<method name="(\w+)"', text))
            assert told <= set(ours[name].methods), name
            assert methods(table.get(name, {})) == set(ours[name].methods), name
            for writable in re.findall(r'<property name="(\w+)" type="\w+" access="(?:read)?write"', text):
                assert f"Set: {writable}" in table["org.freedesktop.DBus.Properties"], f"{name}.{writable}"
    assert seen == set(ours)
