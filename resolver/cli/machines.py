# SPDX-License-Identifier: MIT
"""Commands about machines, asked of the daemon over Varlink as any other client asks."""

import argparse
import os
import signal
import socket
import sys
from contextlib import suppress
from datetime import datetime
from typing import Any

from resolver.cli.addresses import address_of, explain, interface_of
from resolver.cli.exit_codes import FAILED, NOT_FOUND
from resolver.cli.failures import Failure
from resolver.cli.listing import looked_up
from resolver.cli.output import print_fields, print_json
from resolver.core.machine import MachineClass, ProcessId
from resolver.core.names import check_machine_name
from resolver.core.registration import Registration
from resolver.host.state_files import StateFiles
from resolver.varlink import MACHINE_SOCKET
from resolver.varlink.client import Client
from resolver.varlink.errors import MACHINE, VarlinkError

TIMEOUT_SECONDS = 10.0
"""Longer than anything the daemon waits for while it answers."""


def do_show(options: argparse.Namespace) -> None:
    machines = [{**_call("List", {"name": name, "acquireMetadata": "graceful"}), **_more(name)}
                for name in options.names]
    if options.json:
        print_json(machines)
        return
    for number, machine in enumerate(machines):
        if number:
            print()
        print_fields(_described(machine))


def do_register(options: argparse.Namespace) -> None:
    check_machine_name(options.name)
    Registration(options.name, MachineClass(options.machine_class), ProcessId(options.leader)).check()
    parameters = {
        "name": options.name, "class": options.machine_class, "leader": options.leader, "service": options.service,
        "id": options.id, "rootDirectory": options.root and os.path.abspath(options.root),
        "ifIndices": [_interface(text) for text in options.interface] or None, "vSockCid": options.vsock_cid,
        "sshAddress": options.ssh_address, "sshPrivateKeyPath": options.ssh_private_key,
    }
    _call("Register", {name: value for name, value in parameters.items() if value is not None})
    with suppress(VarlinkError):    # it may have gone by now
        if rivals := explain(options.name).get("idsAreOf"):
            sys.stderr.write(f"mymachinesctl: {options.name} has ids that belong to {', '.join(rivals)}, which came"
                             " first and keeps their names\n")


def do_unregister(options: argparse.Namespace) -> None:
    _each(options.names, lambda name: _call("Unregister", {"name": name}))


def do_terminate(options: argparse.Namespace) -> None:
    _each(options.names, lambda name: _call("Terminate", {"name": name}))


def do_kill(options: argparse.Namespace) -> None:
    number = _signal(options.signal)
    _each(options.names, lambda name: _call("Kill", {"name": name, "signal": number, "whom": options.kill_whom}))


def do_forget(options: argparse.Namespace) -> None:
    _each(options.names, _forget)


def _forget(name: str) -> None:
    """Unregister, and take away what a stopped daemon or another one left of the name."""
    check_machine_name(name)
    known = True
    try:
        _call("Unregister", {"name": name})
    except VarlinkError as error:
        if error.name != f"{MACHINE}.NoSuchMachine":
            raise
        known = False
    except (FileNotFoundError, ConnectionError):
        known = False
    if not StateFiles().forget(name) and not known:
        raise Failure(NOT_FOUND, f"nothing is known of {name}")


def _each(names: list[str], act: Any) -> None:
    """For every name, also where one fails; the first failure is the command's."""
    failure: Exception | None = None
    for name in dict.fromkeys(names):
        try:
            act(name)
        except (VarlinkError, Failure) as error:
            failure = failure or error
    if failure is not None:
        raise failure


def _described(machine: dict[str, Any]) -> dict[str, Any]:
    stamp = machine.get("timestamp", {}).get("realtime")
    return {
        "Name": machine["name"],
        "Alias": machine.get("alias"),
        "Class": machine["class"],
        "Service": machine.get("service"),
        "Leader": machine["leader"]["pid"],
        "Since": datetime.fromtimestamp(stamp / 1e6).astimezone().isoformat(" ", "seconds") if stamp else None,
        "Unit": machine.get("unit"),
        "Machine ID": machine.get("id"),
        "Root": machine.get("rootDirectory"),
        "Looked up": looked_up(machine["name"]),
        "Addresses": [f"{address_of(a)} ({interface_of(a)}, scope {a['scope']}, from {_SOURCES[a['source']]})"
                      for a in machine["addressDetails"] if a["reason"] != "loopback"],
        "UID shift": machine.get("UIDShift"),
        "Ids are of": machine.get("idsAreOf"),
        "VSOCK CID": machine.get("vSockCid"),
        "SSH address": machine.get("sshAddress"),
        "SSH key": machine.get("sshPrivateKeyPath"),
    }


def _more(name: str) -> dict[str, Any]:
    """What io.systemd.Machine has no place for."""
    explanation = explain(name)
    return {"alias": explanation.get("alias"), "network": explanation["network"],
            "addressDetails": explanation["addresses"], "idsAreOf": explanation.get("idsAreOf")}


_SOURCES = {"guest": "the machine's own list", "neighbour": "the host's neighbours", "lease": "a DHCP lease"}


def _interface(text: str) -> int:
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        return socket.if_nametoindex(text)
    except OSError:
        raise Failure(FAILED, f"this host has no interface {text!r}") from None


def _signal(text: str) -> int:
    if text.isascii() and text.isdecimal():
        return int(text)
    name = text.upper().removeprefix("SIG")
    if name.startswith("RTMIN+") and name[6:].isdecimal():
        return int(signal.SIGRTMIN) + int(name[6:])
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        raise Failure(FAILED, f"{text!r} is no signal; 'kill -l' lists them") from None


def _call(method: str, parameters: dict[str, Any]) -> dict[str, Any]:
    with Client(MACHINE_SOCKET, TIMEOUT_SECONDS) as client:
        return client.call(f"{MACHINE}.{method}", parameters)
