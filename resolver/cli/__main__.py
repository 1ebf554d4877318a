# SPDX-License-Identifier: MIT
"""The command line of mymachinesctl."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from resolver import __version__
from resolver.cli import addresses, lookups, machines
from resolver.cli.failures import EXIT_CODES, to_failure

Command = Callable[[argparse.Namespace], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit code."""
    options = _parser().parse_args(arguments)
    command: Command = options.command
    try:
        command(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read us has enough (`| head`). The interpreter flushes once more at exit: into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        failure = to_failure(error)
        if failure is None:
            raise
        print(f"mymachinesctl: {failure}", file=sys.stderr)
        return failure.code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mymachinesctl", description="The containers and VMs of this host: their names, addresses and users.",
        epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"mymachinesctl {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(command=command)
        return sub

    def with_json(sub: argparse.ArgumentParser) -> argparse.ArgumentParser:
        sub.add_argument("--json", action="store_true", help="print JSON, for programs")
        return sub

    with_json(add("list", machines.do_list, "list the machines that are registered")).add_argument(
        "--all", "-a", action="store_true", help="with .host, the host itself")
    with_json(add("show", machines.do_show, "show all that is known of machines")).add_argument(
        "names", metavar="NAME", nargs="+")
    with_json(add("explain", addresses.do_explain, "tell why look-ups give a machine's addresses, or leave them out")
              ).add_argument("name", metavar="NAME")
    _add_register(add("register", machines.do_register, "register a running container or VM"))
    for name, command, text in (
            ("unregister", machines.do_unregister, "forget machines; their processes go on"),
            ("terminate", machines.do_terminate, "kill all processes of machines"),
            ("forget", machines.do_forget, "unregister machines, and remove what else was left of them")):
        add(name, command, text).add_argument("names", metavar="NAME", nargs="+")
    kill = add("kill", machines.do_kill, "send a signal to the processes of machines")
    kill.add_argument("names", metavar="NAME", nargs="+")
    kill.add_argument("--signal", "-s", default="SIGTERM", help="by name or number (default: SIGTERM)")
    kill.add_argument("--kill-whom", choices=["leader", "all"], default="all", help="which processes (default: all)")
    with_json(add("resolve", lookups.do_resolve, "look up a machine's addresses, or the machine of an address")
              ).add_argument("asked", metavar="NAME|ADDRESS")
    with_json(add("user", lookups.do_user, "look up a user of a machine")).add_argument("asked", metavar="NAME|UID")
    with_json(add("group", lookups.do_group, "look up a group of a machine")).add_argument("asked", metavar="NAME|GID")
    return parser


def _add_register(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("name", metavar="NAME")
    sub.add_argument("--leader", type=int, required=True, metavar="PID",
                     help="the machine's first process: while it runs, the machine is there")
    sub.add_argument("--class", dest="machine_class", choices=["container", "vm"], default="container")
    sub.add_argument("--service", metavar="TEXT", help="who manages the machine")
    sub.add_argument("--id", metavar="ID", help="its machine id, 32 hexadecimal digits")
    sub.add_argument("--root", metavar="PATH", help="its root directory on the host")
    sub.add_argument("--interface", metavar="NAME|INDEX", action="append", default=[],
                     help="the host's side of its network link; may be given several times")
    sub.add_argument("--vsock-cid", type=int, metavar="CID")
    sub.add_argument("--ssh-address", metavar="ADDRESS")
    sub.add_argument("--ssh-private-key", metavar="PATH")


if __name__ == "__main__":
    sys.exit(main())
