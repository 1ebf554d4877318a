# SPDX-License-Identifier: MIT
"""io.systemd.Machine by varlinkctl 257, which checks each message against the description that it reads first."""

import json
import re
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest

from tests.lab import wait_for

from .booted import AGAINST_MACHINED, BootedHost
from .conftest import Introspections, Shell

Parameters = Mapping[str, object]

SOCKET = "/run/systemd/machine/io.systemd.Machine"
NO_SUCH = "io.systemd.Machine.NoSuchMachine"
NO_OS_RELEASE = "io.systemd.Machine.NoOSReleaseInformation"
INVALID = "org.varlink.service.InvalidParameter"


def varlinkctl(host: BootedHost, method: str, more: bool, parameters: Parameters) -> subprocess.CompletedProcess[str]:
    return host.run(["varlinkctl", "--json=short", *(["--more"] if more else []), "call", SOCKET,
                     f"io.systemd.Machine.{method}", json.dumps(parameters)], check=False)


def call(host: BootedHost, method: str, parameters: Parameters, more: bool = False) -> list[dict[str, Any]]:
    """The replies."""
    done = varlinkctl(host, method, more, parameters)
    assert done.returncode == 0, done.stderr
    return [json.loads(line.lstrip("\x1e")) for line in done.stdout.split("\n") if line]    # RFC 7464


def error(host: BootedHost, method: str, parameters: Parameters, more: bool = False) -> str:
    """The error that a call must end in; empty where it does not."""
    done = varlinkctl(host, method, more, parameters)
    # The last name in the message: the first may be the method's. The error's parameters are on standard output.
    names: list[str] = re.findall(r"(?:io\.systemd|org\.varlink)[.\w]+", done.stderr)
    return names[-1] if names else done.stderr


def test_list_of_all(booted: BootedHost, shell: Shell) -> None:
    shell("db")
    shell("redis")
    listed = call(booted, "List", {}, more=True)
    assert {machine["name"] for machine in listed} == {".host", "db", "redis"}
    assert error(booted, "List", {}) == "org.varlink.service.ExpectedMore"


def test_one_machine_is_the_same_whatever_it_is_found_by(booted: BootedHost, shell: Shell) -> None:
    db, redis = shell("db"), shell("redis")

    def raw(**parameters: object) -> str:
        return booted.out(["varlinkctl", "--json=short", "call", SOCKET, "io.systemd.Machine.List",
                           json.dumps(parameters)])

    by_name = raw(name="db")
    assert raw(pid={"pid": db.leader}) == by_name
    assert raw(name="db", pid={"pid": db.leader}) == by_name
    found = json.loads(by_name)
    assert found["leader"]["pid"] == db.leader
    assert found["class"] == "container"
    assert found["service"] == "systemd-nspawn"
    assert found["rootDirectory"] == "/var/lib/machines/db"
    assert found["unit"] == "db.service"
    assert found["timestamp"]["realtime"] > 1e15
    assert "addresses" not in found
    assert "OSRelease" not in found
    assert error(booted, "List", {"name": "db", "pid": {"pid": redis.leader}}) == NO_SUCH
    assert error(booted, "List", {"name": "nosuch"}) == NO_SUCH
    assert error(booted, "List", {"name": ""}) in (NO_SUCH, INVALID)
    assert error(booted, "List", {"name": "ah@??.hmm"}) in (NO_SUCH, INVALID)
    assert call(booted, "List", {"name": "db"}) == [found]


def test_metadata(booted: BootedHost, shell: Shell) -> None:
    """Only where it is asked for; yes is all or an error, and nothing comes after the error."""
    shell("db")
    [full] = call(booted, "List", {"name": "db", "acquireMetadata": "yes"})
    assert "ID=debian" in full["OSRelease"]
    assert full["UIDShift"] > 65535
    [host] = call(booted, "List", {"name": ".host", "acquireMetadata": "yes"})
    assert "ID=debian" in host["OSRelease"]
    [plain] = call(booted, "List", {"name": ".host"})
    assert "OSRelease" not in plain
    bare = shell("bare", os_release=False)
    assert error(booted, "List", {"name": "bare", "acquireMetadata": "yes"}) == NO_OS_RELEASE
    [graceful] = call(booted, "List", {"name": "bare", "acquireMetadata": "graceful"})
    assert "OSRelease" not in graceful
    assert graceful["leader"]["pid"] == bare.leader
    done = booted.run(["varlinkctl", "--json=short", "--more", "call", SOCKET, "io.systemd.Machine.List",
                       '{"acquireMetadata":"yes"}'], check=False)
    assert done.returncode != 0
    assert "NoOSReleaseInformation" in done.stderr


def test_kill_and_terminate(booted: BootedHost, shell: Shell) -> None:
    db = shell("db")
    assert call(booted, "Kill", {"name": "db", "whom": "leader", "signal": 10}) == [{}]
    db.wait_told("USR1")
    assert call(booted, "Kill", {"pid": {"pid": db.leader}, "whom": "leader", "signal": 1}) == [{}]
    db.wait_told("HUP")
    assert error(booted, "Kill", {"name": "db", "whom": "strange", "signal": 1}) == INVALID
    assert error(booted, "Kill", {"name": "nosuch", "signal": 1}) == NO_SUCH
    assert call(booted, "Terminate", {"name": "db"}) == [{}]
    db.wait_told("RTMIN+3")
    wait_for(lambda: error(booted, "List", {"name": "db"}) == NO_SUCH, 20)


def test_registration_with_every_field(booted: BootedHost) -> None:
    booted.run(["systemd-run", "--quiet", "--unit=vm.service", "sleep", "infinity"])
    leader = booted.main_pid("vm.service")
    fields = {"name": "vm", "id": "0123456789abcdef0123456789abcdef", "service": "test", "class": "vm",
              "leader": leader, "rootDirectory": "/var/empty", "ifIndices": [1], "vSockCid": 77,
              "sshAddress": "vsock/77", "sshPrivateKeyPath": "/root/key"}
    try:
        assert call(booted, "Register", fields) == [{}]
        [found] = call(booted, "List", {"name": "vm"})
        for field in ("name", "id", "service", "class", "rootDirectory", "vSockCid", "sshAddress", "sshPrivateKeyPath"):
            assert found[field] == fields[field], field
        assert found["leader"]["pid"] == leader
        assert found["unit"] == "vm.service"
        assert error(booted, "Register", fields) == "io.systemd.Machine.MachineExists"
        assert booted.out(["machinectl", "show", "vm", "-p", "VSockCID", "--value"]) == "77"
        assert call(booted, "Unregister", {"name": "vm"}) == [{}]
        assert error(booted, "List", {"name": "vm"}) == NO_SUCH
        assert booted.main_pid("vm.service") == leader
    finally:
        booted.run(["systemctl", "stop", "vm.service"])


def test_registration_of_the_caller(booted: BootedHost) -> None:
    """With a name and a class alone. The machine goes with its leader, here varlinkctl."""
    script = f"""varlinkctl call {SOCKET} io.systemd.Machine.Register '{{"name":"me","class":"container"}}'"""
    booted.unit_run(["sh", "-c", script])
    wait_for(lambda: error(booted, "List", {"name": "me"}) == NO_SUCH, 10)


def described(text: str) -> dict[str, set[str]]:
    """Of a Varlink description: each type, method and error, with its words in any order, comments left out."""
    text = re.sub(r"(?m)#.*$", "", text)
    parts = re.split(r"(?m)^(?=(?:type|method|error) )", text)[1:]
    words = re.compile(r"\w+: ?[\w?\[\]]+|\w+")
    return {" ".join(part.split()[:2]).partition("(")[0]: set(words.findall(part)) for part in parts}


@pytest.mark.skipif(AGAINST_MACHINED, reason="compares mymachinesd with it")
@pytest.mark.parametrize("interface", ["io.systemd.Machine", "io.systemd.MachineImage"])
def test_both_sockets_describe_what_machined_does(
        introspections: Introspections, booted: BootedHost, interface: str) -> None:
    theirs = described(introspections[interface])
    for socket in ("io.systemd.Machine", "io.systemd.MachineImage"):
        ours = described(booted.out(["varlinkctl", "introspect", f"/run/systemd/machine/{socket}", interface]))
        for name, words in theirs.items():
            assert words <= ours.get(name, set()), name
