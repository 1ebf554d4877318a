# SPDX-License-Identifier: MIT
"""`mymachinesctl list`, and what else is read from the table of all machines."""

import argparse
import ipaddress
import socket
from contextlib import suppress

from resolver.cli.output import print_json, print_table
from resolver.core.machine import ChosenAddress
from resolver.core.names import name_key
from resolver.table.reader import TableReader, TableUnavailable

TIMEOUT_SECONDS = 10.0
"""Longer than anything the daemon waits for while it answers."""


def do_list(options: argparse.Namespace) -> None:
    if options.names:
        _list_names()
        return
    # Only here: names are asked for while somebody types.
    from resolver.varlink import MACHINE_SOCKET
    from resolver.varlink.client import Client

    with Client(MACHINE_SOCKET, TIMEOUT_SECONDS) as client:
        machines = sorted((machine for machine in client.call_more("io.systemd.Machine.List")
                           if options.all or not machine["name"].startswith(".")), key=lambda m: name_key(m["name"]))
    if options.json:
        print_json(machines)
        return
    print_table(["MACHINE", "CLASS", "SERVICE", "LEADER", "ADDRESSES"], [
        (m["name"], m["class"], m.get("service"), m["leader"]["pid"], ", ".join(looked_up(m["name"])))
        for m in machines])


def _list_names() -> None:
    """From the table: completions ask while somebody types, whatever the daemon does."""
    reader = TableReader()
    found = filter(None, map(reader.host_by_name, reader.names()))
    for name in sorted({name for name, _ in found}, key=name_key):
        print(name)


def looked_up(name: str) -> list[str]:
    """The addresses that programs get of a machine."""
    with suppress(TableUnavailable):
        found = TableReader().host_by_name(name)
        return [address_text(address) for address in found[1]] if found is not None else []
    return []


def address_text(address: ChosenAddress) -> str:
    """An address as getaddrinfo's users write it: a link-local one with its scope (RFC 4007 section 11)."""
    text = str(ipaddress.ip_address(address.packed))
    if not address.scope_id:
        return text
    try:
        return f"{text}%{socket.if_indextoname(address.scope_id)}"
    except OSError:
        return f"{text}%{address.scope_id}"
