# SPDX-License-Identifier: MIT
"""mymachines-metrics: serves until a signal comes."""

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from resolver import __version__, log
from resolver.config import CONFIG_PATH
from resolver.config.read import read_configuration
from resolver.config.values import Places
from resolver.metrics.collector import PROCESSES, MachinesCollector, ServerCollector
from resolver.metrics.serve import open_place
from resolver.notify import notify

PROGRAM = "mymachines-metrics"

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Exit status: 0, 1 where a place cannot be had, 2 for wrong options."""
    parser = argparse.ArgumentParser(PROGRAM, description="Serve what mymachinesd tells of itself, as OpenMetrics.")
    parser.add_argument("--listen", metavar="PLACE", action="append", default=[],
                        help="/PATH, ADDRESS:PORT or [ADDRESS]:PORT; may be given more than once (default: as "
                             "configured)")
    parser.add_argument("--config", metavar="PATH", default=CONFIG_PATH,
                        help="the configuration, with drop-ins in PATH.d (default: %(default)s)")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    options = parser.parse_args(arguments)
    log.setup(PROGRAM)
    try:
        places = Places().read(options.listen) or _configured(options.config)
    except ValueError as error:
        parser.error(f"--listen takes {error}")
    try:
        _serve(places)
    except OSError as error:
        _log.error("cannot serve: %s", error)
        return 1
    return 0


def _configured(path: str) -> tuple[str, ...]:
    configuration = read_configuration(path)
    for problem in configuration.problems:
        _log.error("%s; it is passed over", problem)
    return configuration.settings.metrics.listen


def _serve(places: Sequence[str]) -> None:
    registry = CollectorRegistry()
    registry.register(MachinesCollector())
    for name, socket in PROCESSES.items():
        registry.register(ServerCollector(name, socket))
    # Blocked before there are threads, so that they are all awaited here.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    servers = []
    try:
        for place in places:
            servers.append(open_place(place, registry))  # noqa: PERF401 - those before are closed where one fails
        for server in servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        _log.info("Serving at %s", ", ".join(places) or "no place: [metrics] listen is empty")
        notify("READY=1")
        signal.sigwait((signal.SIGTERM, signal.SIGINT))
    finally:
        for server in servers:
            server.server_close()


if __name__ == "__main__":
    sys.exit(main())
