# SPDX-License-Identifier: MIT
"""mymachinesd: composes everything. The only file that knows everything."""

import argparse
import asyncio
import fcntl
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import machine_images.dbus
import machine_images.varlink
import resolver.varlink.tasks  # noqa: F401 - else imported with the first call, when no descriptor may be left
from machine_images.dbus import ImageManagerHandlers, ImageObjects
from machine_images.images import Images
from machine_images.varlink import MachineImageInterface, machine_image_interface
from resolver import __version__, log
from resolver.config import CONFIG_PATH
from resolver.config.read import read_configuration
from resolver.config.settings import Settings
from resolver.core.machine import AddressSource
from resolver.core.registry import Registry
from resolver.dbus import errors as dbus_errors
from resolver.dbus.connection import Connection
from resolver.dbus.manager import MachineSignals
from resolver.dbus.objects import Collection
from resolver.dbus.polkit import Polkit
from resolver.dbus.server import NAME
from resolver.dbus.server import Server as BusServer
from resolver.dbus.systemd import Systemd
from resolver.entering import Entering
from resolver.guest.metadata import GuestFiles
from resolver.host.host_watcher import HostWatcher
from resolver.host.links import HostLinks
from resolver.host.netns import NetlinkOpener
from resolver.host.state_files import StateFiles
from resolver.host.this_host import host_machine
from resolver.leases.places import PLACES, dnsmasq_places
from resolver.manager import Manager
from resolver.notify import notify
from resolver.nss_server import NssServer
from resolver.outside import OutsideAddresses
from resolver.publisher import Publisher
from resolver.reload import Reload
from resolver.statistics import Family, Kind, Machines
from resolver.table import TABLE_PATH
from resolver.table.packets import answer_packet
from resolver.table.reader import TableReader
from resolver.table.writer import TableWriter
from resolver.userdb_keeper import UserdbKeeper
from resolver.varlink import IMAGE_SOCKET, MACHINE_SOCKET
from resolver.varlink import errors as varlink_errors
from resolver.varlink.machine import MachineInterface, machine_interface
from resolver.varlink.mymachines import MymachinesInterface, mymachines_interface
from resolver.varlink.server import Limits, Server
from resolver.varlink.service import Service
from resolver.varlink.watch import Watches
from resolver.worker.run import Workers

RUN_DIRECTORY = "/run/mymachines"

OUTSIDE_SECONDS = 1.0
"""For the first reading of neighbour tables and leases, before machines of before are published without; some ms."""

EXIT_ALREADY_RUNNING = 3
"""Another mymachinesd serves this host."""

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="mymachinesd",
        description="Tracks the containers and VMs of this host, and publishes their names, addresses and users.",
        epilog="Runs in the foreground, logs to standard error, reads its configuration anew on SIGHUP, stops in good "
               "order on SIGTERM.")
    parser.add_argument("--no-userdb", action="store_true",
                        help="do not run the userdb process: mymachines-userdb.service does")
    parser.add_argument("--no-dbus", action="store_true", help="do not look for a system bus")
    parser.add_argument("--log-level", choices=["error", "warning", "info", "debug"],
                        help="how much to log (default: as configured, and else info)")
    parser.add_argument("--config", metavar="PATH", default=CONFIG_PATH,
                        help="the configuration, with drop-ins in PATH.d (default: %(default)s)")
    parser.add_argument("--check", action="store_true",
                        help="say what is wrong with the configuration, and exit; 1 where something is")
    parser.add_argument("--version", action="version", version=f"mymachinesd {__version__}")
    options = parser.parse_args(arguments)
    configuration = read_configuration(options.config)
    if options.check:
        print(*configuration.problems, sep="\n", end="\n" if configuration.problems else "", file=sys.stderr)  # noqa: T201 - a person asks
        return 1 if configuration.problems else 0
    log.setup("mymachinesd", log_level(options.log_level or configuration.settings.log.level))
    for problem in configuration.problems:
        _log.error("%s; it is passed over", problem)
    os.umask(0o022)
    try:
        os.makedirs(RUN_DIRECTORY, mode=0o755, exist_ok=True)
        lock = _lock()
    except OSError as error:
        _log.error("%s; it runs as root", error)
        return 1
    if lock is None:
        _log.error("Another mymachinesd is running already")
        return EXIT_ALREADY_RUNNING
    _raise_descriptor_limit()
    try:
        asyncio.run(_serve(options, configuration.settings))
    except OSError as error:
        _log.error("Cannot serve: %s", error)
        return 1
    finally:
        os.close(lock)
    return 0


async def _serve(options: argparse.Namespace, settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    registry = Registry()
    publisher = Publisher(TableWriter(TABLE_PATH, registry))
    links = HostLinks()
    guest = GuestFiles()
    bus = Connection(NAME)
    # Polkit and systemd are asked over the bus; without it, root alone changes machines, and units are not supported.
    polkit, workers = Polkit(bus), Workers()
    watches, machines = Watches(registry), Machines()
    outside = OutsideAddresses(lambda key: manager.seen(key))  # noqa: PLW0108 - the manager comes after it
    manager = Manager(registry, StateFiles(), NetlinkOpener(), links, polkit, Systemd(bus), host_machine(), guest,
                      [publisher.publish, MachineSignals(bus).on_changes, watches.on_changes,
                       machines.on_changes], outside)
    entering = Entering(manager, polkit, workers)
    images = Images(polkit)
    objects = ImageObjects(images)
    dbus_errors.ERRORS.update(machine_images.dbus.ERRORS)
    varlink_errors.ERRORS.update(machine_images.varlink.ERRORS)
    bus_server = BusServer(bus, manager, entering, guest.os_release_of, ImageManagerHandlers(images),
                           Collection(objects.find, objects.labels))
    nss = NssServer(lambda packet: answer_packet(registry, packet))
    statistics = machines.families()
    served = [(machine_interface(), MachineInterface(manager, entering)),
              (machine_image_interface(), MachineImageInterface(images)),
              (mymachines_interface(), MymachinesInterface(manager, watches, statistics))]
    service = Service("mymachines", "mymachinesd", __version__, "", [interface for interface, _ in served],
                      {interface.name: handler for interface, handler in served})
    userdb = None if options.no_userdb else UserdbKeeper(RUN_DIRECTORY)
    varlink: list[Server] = []
    statistics += families(service, varlink, nss, publisher)

    async def apply(settings: Settings) -> None:
        """Nothing that is there is lost. OSError where something cannot be had."""
        manager.machines_max = settings.machines.maximum
        for server in varlink:
            server.limits = varlink_limits(settings)
        await outside.use(address_sources(settings),
                          (*PLACES, *dnsmasq_places(settings.addresses.dnsmasq_lease_files)))
        if options.log_level is None and settings.log != reload.applied.log:
            logging.getLogger().setLevel(log_level(settings.log.level))

    reload = Reload(options.config, settings, apply)
    loop.add_signal_handler(signal.SIGHUP, reload.request)

    # Before addresses are chosen: no change of the host's routes comes between.
    host_watcher = HostWatcher(manager.host_changed)
    await apply(settings)
    gc.disable()
    # As long as nobody has looked at a machine again, it has the addresses that everybody reads already.
    await manager.restore(TableReader(TABLE_PATH, os.geteuid()).published)
    machines.take_over(registry)
    try:
        # A VM that was known before has its addresses again before anybody reads of it.
        await asyncio.wait_for(outside.known(), OUTSIDE_SECONDS)
    except TimeoutError:
        _log.warning("Neighbours and leases are not known yet; virtual machines get their addresses later")
    # The table first: from here on look-ups have what the restored machines say. Then those who change it.
    publisher.start()
    # What was found stays for long, and is in no circle: the collector need not look through it, neither now nor later.
    gc.freeze()
    gc.enable()
    try:
        nss.start()
        if userdb is not None:
            await userdb.start()
        varlink.extend(Server.at_path(loop, service, path, varlink_limits(reload.applied))
                       for path in (MACHINE_SOCKET, IMAGE_SOCKET))
        if not options.no_dbus:
            await bus.start()
        images.start()
        _log.info("Ready with %d machines", len(registry))
        notify("READY=1")
        manager.catch_up()
        with watchdog():
            await stop.wait()
        notify("STOPPING=1")
    finally:
        await reload.close()
        host_watcher.close()
        outside.close()
        for server in varlink:
            server.close()
        await bus_server.close()
        await bus.close()
        await workers.close()
        await images.close()
        if userdb is not None:
            await userdb.stop()
        nss.close()
        # Where the service manager made the run directory, it knows whether this is a stop or a restart, and removes
        # the table with the directory (RuntimeDirectoryPreserve=restart, systemd.exec(5)).
        publisher.close(unlink="RUNTIME_DIRECTORY" not in os.environ)
        guest.close()
        manager.close()
        links.close()


def log_level(name: str) -> int:
    return int(getattr(logging, name.upper()))


def varlink_limits(settings: Settings) -> Limits:
    connections = settings.connections
    return Limits(connections=connections.maximum, connections_by_uid=connections.per_user,
                  reserved_for_root=connections.reserved_for_root)


def address_sources(settings: Settings) -> frozenset[AddressSource]:
    off = {AddressSource.NEIGHBOUR} if not settings.addresses.neighbours else set()
    return frozenset(AddressSource) - off - ({AddressSource.LEASE} if not settings.addresses.leases else set())


def families(service: Service, servers: Sequence[Server], nss: NssServer, publisher: Publisher) -> list[Family]:
    """What these count."""
    return [
        Family("calls", Kind.COUNTER, "Varlink calls.", lambda: service.calls, "method"),
        Family("errors", Kind.COUNTER, "Varlink calls that were answered with an error.", lambda: service.errors,
               "error"),
        Family("connections", Kind.GAUGE, "Varlink connections.",
               lambda: {"": sum(server.connection_count for server in servers)}),
        Family("connections_refused", Kind.COUNTER, "Varlink connections for which there was no place.",
               lambda: {"": sum(server.refused for server in servers)}),
        Family("nss_questions", Kind.COUNTER, "Look-ups of processes that could not use the table.",
               lambda: {"": nss.questions}),
        Family("table_withdrawn", Kind.GAUGE, "1 while there is no room for the table.",
               lambda: {"": int(publisher.withdrawn)}),
        Family("table_withdrawals", Kind.COUNTER, "How often there was no room for the table.",
               lambda: {"": publisher.withdrawals}),
    ]


@contextmanager
def watchdog() -> Iterator[None]:
    """Tell the service manager that the loop turns, as often as it asks for (sd_watchdog_enabled(3))."""
    interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 / 2
    wanted = interval > 0 and os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    task = asyncio.create_task(_keep_telling(interval)) if wanted else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()


async def _keep_telling(interval: float) -> None:
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval)


def _lock() -> int | None:
    """Held for as long as the daemon lives; None where another holds it. The kernel lets go of it, whatever happens."""
    descriptor = os.open(f"{RUN_DIRECTORY}/mymachinesd.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
                         0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _raise_descriptor_limit() -> None:
    """As far as allowed: a machine takes a pidfd, and its network namespace a netlink socket (getrlimit(2))."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
