# SPDX-License-Identifier: MIT
"""mymachines-dns: a DNS server for the machines of this host.

A process of its own, which answers from the table: it does not wait for the daemon, and a flood of queries keeps
nobody but its own clients waiting.
"""

import logging
import signal
import sys

from resolver import log
from resolver.dns.options import PROGRAM, Options, parse
from resolver.dns.server import DnsServer
from resolver.notify import notify
from resolver.table.reader import TableReader, TableUnavailable
from resolver.varlink.loop import EpollLoop

_log = logging.getLogger(__name__)


def main() -> int:
    """Serve until SIGTERM or SIGINT. Exit status: 0, 1 where an address cannot be had, 2 for wrong options."""
    options = parse(sys.argv[1:])
    log.setup(PROGRAM)
    try:
        return serve(options)
    except OSError as error:
        _log.error("cannot serve: %s", error)
        return 1


def serve(options: Options) -> int:
    """Answer until a signal comes."""
    loop = EpollLoop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, loop.stop)
    try:
        server = DnsServer(loop, options, TableReader(options.table), TableUnavailable)
        try:
            places = ", ".join(f"{listen.host} port {port}"
                               for listen, port in zip(options.listen, server.ports, strict=True))
            _log.info("Answering for %s at %s", options.zone, places)
            notify(f"READY=1\nSTATUS=Answering at {places}")
            loop.run()
        finally:
            server.close()
    finally:
        loop.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
