# SPDX-License-Identifier: MIT
"""mymachines-dns-publish: composes the parts."""

import argparse
import asyncio
import hashlib
import hmac
import ipaddress
import logging
import os
import signal
import sys
from collections.abc import Sequence

import dns.exception
import dns.name
import dns.tsig

from resolver import __version__, log
from resolver.dns.publish.keys import InvalidKey, load_key
from resolver.dns.publish.machines import follow
from resolver.dns.publish.messages import Place
from resolver.dns.publish.publisher import Publisher
from resolver.dns.publish.server import Server, ServerError
from resolver.notify import notify
from resolver.varlink import MACHINE_SOCKET

PROGRAM = "mymachines-dns-publish"

TTL_SECONDS = 60
"""That others keep an answer: so long a machine that has gone is still known, and one that was not there is not."""

TTL_MAX = 2**31 - 1  # RFC 2181 section 8

OWNER_OF = b"mymachines DNS publisher"
"""What is made of the machine id with this is told to the world; the id itself is not (machine-id(5))."""

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Exit status: 0, 1 where it could not be done, 2 for wrong options."""
    parser = _parser()
    options = parser.parse_args(arguments)
    log.setup(PROGRAM, getattr(logging, options.log_level.upper()))
    try:
        place, key, owner = _place(options), load_key(options.key_file) if options.key_file else None, _owner()
    except (dns.exception.DNSException, InvalidKey, OSError, ValueError) as error:
        parser.error(str(error))
    server = Server(str(options.server), options.port, place, key)
    publisher = Publisher(server, place, key, owner, options.network)
    return asyncio.run(_withdraw(publisher, place, whose_ever=True) if options.withdraw
                       else _publish(publisher, place, options))


async def _publish(publisher: Publisher, place: Place, options: argparse.Namespace) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    known = asyncio.Event()
    following = asyncio.create_task(follow(options.socket, publisher, known))
    publishing = asyncio.create_task(_run(publisher, known))
    _log.info("Publishes machines as NAME.%s to %s", place.host, options.server)
    notify("READY=1")
    await asyncio.wait([asyncio.create_task(stop.wait()), following, publishing], return_when=asyncio.FIRST_COMPLETED)
    notify("STOPPING=1")
    failed = [task for task in (following, publishing) if task.done()]
    for task in (following, publishing):
        task.cancel()
    await asyncio.gather(following, publishing, return_exceptions=True)
    for task in failed:
        task.result()
    if options.keep or not known.is_set():
        return 0
    return await _withdraw(publisher, place, whose_ever=False)


async def _run(publisher: Publisher, known: asyncio.Event) -> None:
    await known.wait()  # not sooner: what is there would be taken away, and published again
    await publisher.run()


async def _withdraw(publisher: Publisher, place: Place, *, whose_ever: bool) -> int:
    try:
        await publisher.withdraw(whose_ever=whose_ever)
    except (ServerError, TimeoutError) as error:
        _log.error("What is published under %s stays there: %s", place.host, str(error) or "no answer in time")
        return 1
    _log.info("Nothing is published under %s any more", place.host)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Publishes this host's machines in a DNS server, by DNS UPDATE: web as web.HOST.ZONE.",
        epilog="Runs in the foreground, follows mymachinesd, and takes all back on SIGTERM.")
    parser.add_argument("--server", required=True, type=ipaddress.ip_address, metavar="ADDRESS",
                        help="the zone's primary server; an address, not a name")
    parser.add_argument("--port", type=_port, default=53, help="its port (default: %(default)s)")
    parser.add_argument("--zone", required=True, help="the zone that it serves")
    parser.add_argument("--name", metavar="HOST", help="this host's name in the zone (default: its host name's first "
                                                       "label)")
    parser.add_argument("--key-file", metavar="PATH", help="a TSIG key, as tsig-keygen or keymgr write it")
    parser.add_argument("--ttl", type=_ttl, default=TTL_SECONDS, metavar="SECONDS",
                        help="that others keep an answer (default: %(default)s)")
    parser.add_argument("--network", type=ipaddress.ip_network, action="append", default=[], metavar="NETWORK",
                        help="publish addresses of this network alone; may be given several times (default: all that "
                             "look-ups give on this host but for link-local ones)")
    parser.add_argument("--keep", action="store_true", help="leave what is published when this ends")
    parser.add_argument("--withdraw", action="store_true",
                        help="take away all that is published under this host's name, whoever did it, and end")
    parser.add_argument("--socket", metavar="PATH", default=MACHINE_SOCKET, help="mymachinesd's (default: %(default)s)")
    parser.add_argument("--log-level", default="info", choices=["error", "warning", "info", "debug"],
                        help="how much to log (default: info)")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    return parser


def _place(options: argparse.Namespace) -> Place:
    zone = dns.name.from_text(options.zone)
    label = options.name or os.uname().nodename.partition(".")[0]
    host = dns.name.from_text(label.removesuffix("."), None if label.endswith(".") else zone)
    if not host.is_absolute() or host == zone or not host.is_subdomain(zone):
        raise ValueError(f"{host} is no name below {zone}")
    return Place(zone, host, options.ttl)


def _owner() -> str:
    with open("/etc/machine-id", "rb") as file:
        machine_id = bytes.fromhex(file.read(64).decode().strip())
    return hmac.new(machine_id, OWNER_OF, hashlib.sha256).hexdigest()[:32]


def _port(text: str) -> int:
    number = int(text)
    if not 0 < number < 65536:
        raise ValueError
    return number


def _ttl(text: str) -> int:
    number = int(text)
    if not 0 <= number <= TTL_MAX:
        raise ValueError
    return number


if __name__ == "__main__":
    sys.exit(main())
