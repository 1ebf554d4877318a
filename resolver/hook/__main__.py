# SPDX-License-Identifier: MIT
"""mymachines-resolve-hook: tell systemd-resolved of machines.

resolved waits for its hooks, and a socket in their directory that nobody serves stops the host's DNS. So this is a
process of its own that waits for nothing: it answers from the table. Its socket appears when it can answer, goes when
it ends, and is replaced at the next start, or removed by its unit, where it could not.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence

import resolver
from resolver import log
from resolver.dns import DEFAULT_ZONE
from resolver.dns.answers import Zone
from resolver.dns.options import ttl, zone_name
from resolver.hook import SOCKET
from resolver.hook.changes import Changes
from resolver.hook.resolve import INTERFACE, ResolveHook, hook_interface
from resolver.notify import notify
from resolver.table import TABLE_PATH
from resolver.table.reader import TableReader, TableUnavailable
from resolver.varlink.loop import EpollLoop
from resolver.varlink.server import Server
from resolver.varlink.service import Service

PROGRAM = "mymachines-resolve-hook"

_log = logging.getLogger(__name__)


def main() -> int:
    """Serve until SIGTERM or SIGINT. Exit status: 0, 1 where the socket cannot be had, 2 for wrong options."""
    options = _parse(sys.argv[1:])
    log.setup(PROGRAM)
    try:
        serve(options.socket, options.table, Zone(zone_name(options.zone), options.ttl))
    except OSError as error:
        _log.error("cannot serve %s: %s", options.socket, error)
        return 1
    return 0


def serve(socket: str, table: str, zone: Zone) -> None:
    """Answer at `socket` until a signal comes."""
    loop = EpollLoop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, loop.stop)
    changes = Changes(loop, TableReader(table))
    try:
        service = Service("mymachines", PROGRAM, resolver.__version__, "", [hook_interface()],
                          {INTERFACE: ResolveHook(zone, TableReader(table), TableUnavailable, changes)})
        server = Server.at_path(loop, service, socket)
        try:
            notify(f"READY=1\nSTATUS=Answering at {socket}")
            loop.run()
        finally:
            server.close()
    finally:
        changes.close()
        loop.close()


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(PROGRAM, description="Answer systemd-resolved for the names of machines.")
    parser.add_argument("--socket", metavar="PATH", default=SOCKET, help="where to listen (default: %(default)s)")
    parser.add_argument("--zone", default=DEFAULT_ZONE, help="the machines' domain (default: %(default)s)")
    parser.add_argument("--ttl", metavar="SECONDS", type=ttl, default=0,
                        help="how long an answer may be kept (default: not at all)")
    parser.add_argument("--table", metavar="PATH", default=TABLE_PATH, help="the table to read (default: %(default)s)")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {resolver.__version__}")
    options = parser.parse_args(arguments)
    try:
        zone_name(options.zone)
    except ValueError as error:
        parser.error(str(error))
    return options


if __name__ == "__main__":
    sys.exit(main())
