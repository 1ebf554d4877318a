# SPDX-License-Identifier: MIT
"""What may be said to mymachinesctl. A command is named by its module, which is imported when it is called.

Shell completions are made from this, too (completions.py): what stands for a machine has one of MACHINE_METAVARS, a
path PATH.
"""

import argparse
import os

from resolver import __version__
from resolver.cli.exit_codes import EXIT_CODES

MACHINE_METAVARS = frozenset({"NAME", "NAME|ADDRESS"})
"""Arguments that a machine's name can stand for."""

PATH_METAVAR = "PATH"


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Without asking shutil for the terminal's width, as each added argument would: importing it is a tenth of a start
    that nobody waits for help in."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size(1).columns)
    except (ValueError, OSError):
        columns = 0
    return columns if columns > 0 else 80


def make_parser() -> argparse.ArgumentParser:
    """`command` of what it parses is `module:function`, the function taking the options."""
    parser = argparse.ArgumentParser(
        prog="mymachinesctl", description="The containers and VMs of this host: their names, addresses and users.",
        epilog=EXIT_CODES, formatter_class=_Formatter)
    parser.add_argument("--version", action="version", version=f"mymachinesctl {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".",
                                  formatter_class=_Formatter)
        sub.set_defaults(command=f"resolver.cli.{command}")
        return sub

    def with_json(sub: argparse.ArgumentParser) -> argparse.ArgumentParser:
        sub.add_argument("--json", action="store_true", help="print JSON, for programs")
        return sub

    _add_list(with_json(add("list", "listing:do_list", "list the machines that are registered")))
    with_json(add("show", "machines:do_show", "show all that is known of machines")).add_argument(
        "names", metavar="NAME", nargs="+")
    with_json(add("explain", "addresses:do_explain", "tell why look-ups give a machine's addresses, or leave them out")
              ).add_argument("name", metavar="NAME")
    _add_register(add("register", "machines:do_register", "register a running container or VM"))
    for name, text in (
            ("unregister", "forget machines; their processes go on"),
            ("terminate", "kill all processes of machines"),
            ("forget", "unregister machines, and remove what else was left of them")):
        add(name, f"machines:do_{name}", text).add_argument("names", metavar="NAME", nargs="+")
    kill = add("kill", "machines:do_kill", "send a signal to the processes of machines")
    kill.add_argument("names", metavar="NAME", nargs="+")
    kill.add_argument("--signal", "-s", default="SIGTERM", help="by name or number (default: SIGTERM)")
    kill.add_argument("--kill-whom", choices=["leader", "all"], default="all", help="which processes (default: all)")
    with_json(add("resolve", "lookups:do_resolve", "look up a machine's addresses, or the machine of an address")
              ).add_argument("asked", metavar="NAME|ADDRESS")
    with_json(add("user", "lookups:do_user", "look up a user of a machine")).add_argument("asked", metavar="USER|UID")
    with_json(add("group", "lookups:do_group", "look up a group of a machine")
              ).add_argument("asked", metavar="GROUP|GID")
    with_json(add("watch", "watch:do_watch", "print a line for each machine that comes, changes or goes"))
    _add_top(add("top", "top:do_top", "show machines, their processes and users, live on a terminal"))
    _add_doctor(with_json(add("doctor", "doctor:do_doctor", "find what is wrong between programs and their answers")))
    add("completion", "completions:do_completion", "print what a shell needs to complete this command").add_argument(
        "shell", choices=["bash", "zsh", "fish"])
    return parser


def _add_list(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--all", "-a", action="store_true", help="with .host, the host itself")
    sub.add_argument("--names", action="store_true", help="names alone, a line each, without asking the daemon")


def _add_top(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--batch", "-b", action="store_true", help="as text, as where standard output is no terminal")
    sub.add_argument("--delay", "-d", type=float, default=2.0, metavar="SECONDS",
                     help="between two looks (default: %(default)s)")
    sub.add_argument("--iterations", "-n", type=int, metavar="COUNT",
                     help="end after so many looks (default: none on a terminal, 1 elsewhere)")


def _add_doctor(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("name", metavar="NAME", nargs="?", help="follow the look-ups of this machine, too")
    sub.add_argument("--check", metavar="CHECK", action="append", default=[],
                     help="do this check alone; may be given several times")


def _add_register(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("name", metavar="NEW-NAME")
    sub.add_argument("--leader", type=int, required=True, metavar="PID",
                     help="the machine's first process: while it runs, the machine is there")
    sub.add_argument("--class", dest="machine_class", choices=["container", "vm"], default="container")
    sub.add_argument("--service", metavar="TEXT", help="who manages the machine")
    sub.add_argument("--id", metavar="ID", help="its machine id, 32 hexadecimal digits")
    sub.add_argument("--root", metavar=PATH_METAVAR, help="its root directory on the host")
    sub.add_argument("--interface", metavar="NAME|INDEX", action="append", default=[],
                     help="the host's side of its network link; may be given several times")
    sub.add_argument("--vsock-cid", type=int, metavar="CID")
    sub.add_argument("--ssh-address", metavar="ADDRESS")
    sub.add_argument("--ssh-private-key", metavar=PATH_METAVAR)
