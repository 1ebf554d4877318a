# SPDX-License-Identifier: MIT
"""Which addresses a machine has, and why look-ups give these and not those: asked of the daemon."""

import argparse
import ipaddress
from typing import Any

from resolver.cli.output import print_json, print_table, printable
from resolver.varlink import MACHINE_SOCKET
from resolver.varlink.client import Client

TIMEOUT_SECONDS = 10.0
"""Longer than anything the daemon waits for while it answers."""

_NO_ADDRESSES = {
    "own": "it has none yet",
    "host": "it has the host's network, and so none of its own",
    "unknown": "its network cannot be followed, and the host has not seen any of them",
}


def do_explain(options: argparse.Namespace) -> None:
    """Every address of a machine, with the reason why look-ups give it or leave it out."""
    found = explain(options.name)
    if options.json:
        print_json(found)
        return
    alias = f" (also {found['alias']})" if found.get("alias") else ""
    if not found["addresses"]:
        print(f"{printable(found['name'])}{alias} has no addresses: {_NO_ADDRESSES[found['network']]}")
        return
    print(f"Addresses of {printable(found['name'])}{alias}:")
    print_table(["ADDRESS", "INTERFACE", "SCOPE", "SOURCE", "GIVEN", "BECAUSE"], [
        (address_of(a), interface_of(a), a["scope"], a["source"], "yes" if a["given"] else "no", _because(a))
        for a in found["addresses"]])


def explain(name: str) -> dict[str, Any]:
    with Client(MACHINE_SOCKET, TIMEOUT_SECONDS) as client:
        return client.call("io.mymachines.Machines.Explain", {"name": name})


def address_of(explained: dict[str, Any]) -> str:
    return str(ipaddress.ip_address(bytes(explained["address"])))


def interface_of(explained: dict[str, Any]) -> str:
    """The interface by its name, or else its number; and on whose side it is."""
    side = "inside" if explained["source"] == "guest" else "of the host"
    return f"{explained.get('interface') or explained['ifindex']} {side}"


def _because(explained: dict[str, Any]) -> str:
    text: str = explained["text"]
    if explained["given"] and not explained["reverse"] and explained["reason"] == "routed":
        return f"{text}; it leads back to another machine"
    return text
