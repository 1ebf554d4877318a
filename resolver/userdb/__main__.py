# SPDX-License-Identifier: MIT
"""mymachines-userdb: serve users and groups of machines to userdb clients, such as libnss_systemd and userdbctl.

A mute socket in /run/systemd/userdb hangs every login of the host. So the socket appears when this process can answer,
goes when it ends, and nothing here waits for anything but clients: answers come from the table, and what a dead process
leaves behind refuses connections at once. Imports are few, for it runs on every host and starts at boot.
"""

import logging
import os
import resource
import signal
import sys
from typing import NamedTuple

import resolver
from resolver import log
from resolver.core.users import SERVICE
from resolver.notify import notify
from resolver.table import TABLE_PATH
from resolver.table.reader import TableReader, TableUnavailable
from resolver.userdb.instance import AlreadyRunning, lock
from resolver.userdb.records import INTERFACE, UserDatabase, user_database_interface
from resolver.varlink.known import KnownReplies
from resolver.varlink.loop import EpollLoop
from resolver.varlink.server import Limits, Server
from resolver.varlink.service import Service

PROGRAM = "mymachines-userdb"

SOCKET = f"/run/systemd/userdb/{SERVICE}"

EXIT_ALREADY_RUNNING = os.EX_TEMPFAIL

DESCRIPTORS_BESIDES_CONNECTIONS = 64
"""Files that the process has open anyway, with room to spare."""

LINGER_SECONDS = 50e-6
"""What a caller, libnss_systemd, takes between one user's record and the question for the next, with room to spare; as
long as it takes us to be woken. Measured: a call takes a quarter less, and no more with 25 or 200."""

_log = logging.getLogger(__name__)


class Options(NamedTuple):
    socket: str = SOCKET
    table: str = TABLE_PATH


def main() -> int:
    """Serve until SIGTERM or SIGINT. Exit status: 0, 1 where the socket cannot be had, 2 for wrong options, 75
    where another instance runs."""
    options = _parse(sys.argv[1:])
    log.setup(PROGRAM)
    try:
        # Kept for as long as the process lives: the lock goes with the descriptor.
        _lock = lock(os.path.join(os.path.dirname(options.table), "userdb.pid"))
        return serve(options)
    except AlreadyRunning as error:
        _log.error("%s", error)
        return EXIT_ALREADY_RUNNING
    except OSError as error:
        _log.error("cannot serve %s: %s", options.socket, error)
        return 1


def serve(options: Options) -> int:
    """Answer at `options.socket` until a signal comes."""
    table = TableReader(options.table)
    service = Service("mymachines", PROGRAM, resolver.__version__, "", [user_database_interface()],
                      {INTERFACE: UserDatabase(table, TableUnavailable)}, KnownReplies(table.changes()))
    loop = EpollLoop(LINGER_SECONDS)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, loop.stop)
    server = Server.at_path(loop, service, options.socket, limits())
    try:
        notify(f"READY=1\nSTATUS=Answering at {options.socket}")
        loop.run()
    finally:
        server.close()
        loop.close()
    return 0


def limits() -> Limits:
    """The server's limits, after room has been made for them among the descriptors of this process (getrlimit(2))."""
    wanted = Limits()
    needed = wanted.connections + DESCRIPTORS_BESIDES_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        connections = max(soft - DESCRIPTORS_BESIDES_CONNECTIONS, 2)
        return wanted._replace(connections=connections,
                               reserved_for_root=min(wanted.reserved_for_root, connections // 2))
    return wanted


def _parse(arguments: list[str]) -> Options:
    if not arguments:
        return Options()  # as the unit starts it: argparse would take a tenth of the time to be ready
    from argparse import ArgumentParser

    parser = ArgumentParser(PROGRAM, description="Answer io.systemd.UserDatabase for machines' users and groups.")
    parser.add_argument("--socket", metavar="PATH", default=SOCKET, help="where to listen (default: %(default)s)")
    parser.add_argument("--table", metavar="PATH", default=TABLE_PATH, help="the table to read (default: %(default)s)")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {resolver.__version__}")
    parsed = parser.parse_args(arguments)
    return Options(parsed.socket, parsed.table)


if __name__ == "__main__":
    sys.exit(main())
