# SPDX-License-Identifier: MIT
"""Commands that look something up where every process does: in the table."""

import argparse
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from resolver.cli.exit_codes import NOT_FOUND
from resolver.cli.failures import Failure
from resolver.cli.listing import address_text
from resolver.cli.output import print_fields, print_json
from resolver.core.users import IdAnswer, group_record, user_record
from resolver.table.reader import TableReader


def do_resolve(options: argparse.Namespace) -> None:
    """A name's addresses, or the name that an address leads back to; a line for each, address first."""
    asked, reader = options.asked, TableReader()
    try:
        address = ipaddress.ip_address(asked.partition("%")[0])
    except ValueError:
        found = reader.host_by_name(asked)
        if found is None:
            raise Failure(NOT_FOUND, f"{asked} is the name of no machine") from None
    else:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        found = reader.host_by_address(family, address.packed)
        if found is None:
            raise Failure(NOT_FOUND, f"{asked} is the address of no machine")
    name, addresses = found
    texts = [address_text(a) for a in addresses]
    if options.json:
        print_json({"name": name, "addresses": texts})
    elif texts:
        for text in texts:
            print(text, name)
    else:
        raise Failure(NOT_FOUND, f"{name} is a machine, but has no address that this host could use")


def do_user(options: argparse.Namespace) -> None:
    reader = TableReader()
    _show(options, "user", reader.user_by_id, reader.user_by_name, user_record)


def do_group(options: argparse.Namespace) -> None:
    reader = TableReader()
    _show(options, "group", reader.group_by_id, reader.group_by_name, group_record)


def _show(options: argparse.Namespace, what: str, by_id: Callable[[int], IdAnswer | None],
          by_name: Callable[[str], IdAnswer | None], record: Callable[[IdAnswer], dict[str, Any]]) -> None:
    asked = options.asked
    number = int(asked) if asked.isascii() and asked.isdecimal() else None
    if number is None:
        answer = by_name(asked)
    else:
        answer = by_id(number) if number < 2**32 else None
    if answer is None:
        raise Failure(NOT_FOUND, f"{asked} is no {what} of any machine")
    if options.json:
        print_json(record(answer))
        return
    print_fields({"Name": answer.name, "Machine": answer.machine, f"{what[0].upper()}ID on the host": answer.host_id,
                  f"{what[0].upper()}ID inside": answer.inside_id})
