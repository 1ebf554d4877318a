# SPDX-License-Identifier: MIT
"""Registration over D-Bus with a scope to be made, as libvirt and LXC do it."""

import uuid
from collections.abc import Iterator

import pytest

from tests.lab import wait_for

from .booted import BootedHost

MANAGER = ["org.freedesktop.machine1", "/org/freedesktop/machine1", "org.freedesktop.machine1.Manager"]


@pytest.fixture
def leader(booted: BootedHost) -> Iterator[int]:
    """A process that was forked by somebody's service."""
    booted.run(["systemd-run", "--quiet", "--unit=manager.service", "sleep", "infinity"])
    pid = booted.main_pid("manager.service")
    yield pid
    booted.run(f"kill -9 {pid} 2>/dev/null; systemctl stop manager.service; systemctl reset-failed manager.service"
               " 2>/dev/null; true")


def create(host: BootedHost, name: str, service: str, machine_class: str, leader: int, root: str,
           interfaces: list[int], *properties: str) -> str:
    id_bytes = [str(byte) for byte in uuid.uuid4().bytes]
    return host.out(["busctl", "call", *MANAGER, "CreateMachineWithNetwork", "sayssusaia(sv)", name, "16", *id_bytes,
                     service, machine_class, str(leader), root, str(len(interfaces)), *map(str, interfaces),
                     *properties])


def test_as_libvirt_does(booted: BootedHost, leader: int) -> None:
    path = create(booted, "qemu-1-vm", "libvirt-qemu", "vm", leader, "", [1], "4", "Slice", "s", "machine.slice",
                  "DevicePolicy", "s", "closed", "DeviceAllow", "a(ss)", "1", "/dev/null", "rwm",
                  "Before", "as", "1", "basic.target")
    assert path == 'o "/org/freedesktop/machine1/machine/qemu_2d1_2dvm"'
    scope = r"machine-qemu\x2d1\x2dvm.scope"
    assert booted.out(["machinectl", "show", "qemu-1-vm", "-p", "Unit", "--value"]) == scope
    assert booted.out(["cat", f"/proc/{leader}/cgroup"]).endswith(f"/machine.slice/{scope}")
    shown = booted.out(["systemctl", "show", scope, "-p", "DevicePolicy", "-p", "Slice", "-p", "Before"])
    assert "DevicePolicy=closed" in shown
    assert "Slice=machine.slice" in shown
    assert "basic.target" in shown
    by_pid = booted.out(["busctl", "call", *MANAGER, "GetMachineByPID", "u", str(leader)])
    assert by_pid == path
    booted.run(["busctl", "call", *MANAGER, "TerminateMachine", "s", "qemu-1-vm"])
    wait_for(lambda: booted.run(["machinectl", "show", "qemu-1-vm"], check=False).returncode != 0, 20)
    wait_for(lambda: booted.run(["systemctl", "is-active", scope], check=False).returncode != 0, 20)


def test_as_lxc_does(booted: BootedHost, leader: int) -> None:
    create(booted, "lxc-1", "lxc", "container", leader, "/var/lib/lxc/lxc-1/rootfs", [], "2", "Delegate", "b", "true",
           "Slice", "s", "machine.slice")
    assert booted.out(["machinectl", "show", "lxc-1", "-p", "Service", "--value"]) == "lxc"
    scope = booted.out(["machinectl", "show", "lxc-1", "-p", "Unit", "--value"])
    assert booted.out(["systemctl", "show", scope, "-p", "Delegate", "--value"]) == "yes"
    booted.run(["kill", "-9", str(leader)])
    wait_for(lambda: booted.run(["machinectl", "show", "lxc-1"], check=False).returncode != 0, 20)


def test_a_scope_that_systemd_refuses_is_no_machine(booted: BootedHost, leader: int) -> None:
    with pytest.raises(AssertionError):
        create(booted, "bad", "test", "container", leader, "", [], "1", "NoSuchProperty", "s", "x")
    assert booted.run(["machinectl", "show", "bad"], check=False).returncode != 0
    create(booted, "bad", "test", "container", leader, "", [], "0")     # and its name is free
    booted.run(["machinectl", "terminate", "bad"])
