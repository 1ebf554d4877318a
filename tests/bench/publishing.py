# SPDX-License-Identifier: MIT
"""A site in one machine: many hosts publish to a real BIND 9, and a second BIND 9 is its secondary.

    python -m tests.bench.publishing [--hosts 1000] [--machines 100] [--minutes 1]

The hosts are the project's publishers, one object each in one process; servers, updates, signatures and transfers are
real. First all hosts come up within a minute, then machines come and go at a rate, and some changes are followed until
primary and secondary answer with them. Everything shares this machine's processors, so that a site does no worse.
"""

import argparse
import asyncio
import json
import random
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.message
import dns.name

from resolver.dns.publish.keys import load_key
from resolver.dns.publish.messages import Place
from resolver.dns.publish.publisher import Publisher
from resolver.dns.publish.server import Server
from tests.dns.site import ADDRESS, KEY_NAME, SECRET, ZONE, Bind

LIFE_SECONDS = 3600.0
"""Of a machine: short for a container that serves, long for one that builds."""

FOLLOWED = 200
"""Changes that are followed until they are seen."""

UP_SECONDS = 900.0
SEEN_SECONDS = 60.0


class Secondary(Bind):
    """Learns of changes by NOTIFY, and fetches them by IXFR."""

    def __init__(self, folder: Path, primary: Bind) -> None:
        self.primary = primary
        super().__init__(folder)

    def configure(self) -> None:
        super().configure()
        conf = self.folder / "named.conf"
        text = conf.read_text()
        start = text.index("zone ")
        self.zone_file.unlink()
        conf.write_text(text[:start] + f'zone "{ZONE}" {{ type secondary; file "secondary.zone"; '
                        f'primaries {{ {ADDRESS} port {self.primary.port} key "{KEY_NAME}"; }}; '
                        f'allow-notify {{ {ADDRESS}; }}; min-refresh-time 1; }};\n')


def tell_primary(primary: Bind, secondary: Secondary) -> None:
    conf = primary.folder / "named.conf"
    text = conf.read_text().replace("notify no;", "notify-delay 1; serial-query-rate 100; startup-notify-rate 100;")
    conf.write_text(text.replace('type primary;', f'type primary; notify explicit; '
                                 f'also-notify {{ {ADDRESS} port {secondary.port}; }};'))


async def simulate(options: argparse.Namespace, primary: Bind, secondary: Secondary) -> dict[str, float]:
    key = load_key(str(primary.key_file))
    zone = dns.name.from_text(ZONE)
    publishers = []
    for host in range(options.hosts):
        place = Place(zone, dns.name.from_text(f"host{host}", zone), 60)
        publisher = Publisher(Server(ADDRESS, primary.port, place, key), place, key, f"{host:032x}")
        for machine in range(options.machines):
            publisher.machine(f"m{machine}", [address(host, machine)])
        publishers.append(publisher)
    figures: dict[str, float] = {"hosts": options.hosts, "machines": options.hosts * options.machines}

    began = time.monotonic()
    tasks = [asyncio.create_task(after(random.uniform(0, options.spread), each)) for each in publishers]
    async with asyncio.timeout(UP_SECONDS):
        while not all(each.in_step for each in publishers):  # noqa: ASYNC110 - a thousand of them
            await asyncio.sleep(0.1)
    figures["all hosts published after, seconds"] = time.monotonic() - began
    figures["updates for that"] = options.hosts
    names = await asyncio.to_thread(primary.addresses)
    assert len(names) == options.hosts * options.machines, len(names)
    figures["primary, MB"] = resident(primary)
    figures["zone by transfer, MB"] = await transfer_bytes(primary) / 1e6
    figures["secondary has it after, seconds"] = await until_seen(secondary, f"m0.host{options.hosts - 1}",
                                                                  address(options.hosts - 1, 0))

    serial, began, used = soa(primary), time.monotonic(), processor(primary)
    rate = options.hosts * options.machines / LIFE_SECONDS * 2
    seen: list[tuple[float, float]] = []
    followed: list[asyncio.Task[tuple[float, float]]] = []
    events, end = 0, began + 60 * options.minutes
    fresh = options.machines
    while time.monotonic() < end:
        await asyncio.sleep(random.expovariate(rate))
        host = random.randrange(options.hosts)
        if events % 2:
            publishers[host].gone(f"m{random.randrange(options.machines)}")
        else:
            fresh += 1
            name, found = f"m{fresh}", address(host, fresh)
            publishers[host].machine(name, [found])
            if len(followed) < FOLLOWED and random.random() < 0.2:
                followed.append(asyncio.create_task(both(primary, secondary, f"{name}.host{host}", found)))
        events += 1
    took = time.monotonic() - began
    seen = [await each for each in followed]
    figures["changes a second, asked"] = rate
    figures["changes a second, made"] = events / took
    figures["updates a second, applied"] = (soa(primary) - serial) / took
    figures["primary, share of a processor"] = (processor(primary) - used) / took
    for index, who in enumerate(("primary", "secondary")):
        each = sorted(pair[index] for pair in seen)
        figures[f"seen at the {who}, median seconds"] = statistics.median(each)
        figures[f"seen at the {who}, 99th percentile"] = each[int(len(each) * 0.99)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return figures


async def after(seconds: float, publisher: Publisher) -> None:
    await asyncio.sleep(seconds)
    await publisher.run()


def address(host: int, machine: int) -> str:
    return f"10.{host // 250}.{host % 250}.{machine % 250}"


async def both(primary: Bind, secondary: Secondary, name: str, found: str) -> tuple[float, float]:
    return await asyncio.gather(until_seen(primary, name, found), until_seen(secondary, name, found))


async def until_seen(server: Bind, name: str, found: str) -> float:
    began = time.monotonic()
    query = dns.message.make_query(f"{name}.{ZONE}", "A")
    async with asyncio.timeout(SEEN_SECONDS):
        while True:
            try:
                reply = await dns.asyncquery.udp(query, ADDRESS, port=server.port, timeout=2)
                if any(found in rrset.to_text() for rrset in reply.answer):
                    return time.monotonic() - began
            except dns.exception.Timeout:
                pass
            await asyncio.sleep(0.02)


def soa(server: Bind) -> int:
    return int(server.dig(ZONE, "SOA", "+short").split()[2])


async def transfer_bytes(server: Bind) -> int:
    out = await asyncio.to_thread(server.dig, ZONE, "AXFR", f"-yhmac-sha256:{KEY_NAME}:{SECRET}", "+stats")
    size = next(line for line in out.splitlines() if "XFR size" in line)
    return int(size.rpartition("bytes ")[2].rstrip(")"))


def resident(server: Bind) -> float:
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def processor(server: Bind) -> float:
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main(print_: Callable[..., None] = print) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.publishing", description=__doc__)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--machines", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--spread", type=float, default=60.0, help="seconds within which the hosts come up")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder:
        one, two = Path(folder, "primary"), Path(folder, "secondary")
        one.mkdir()
        two.mkdir()
        primary = Bind(one)
        secondary = Secondary(two, primary)
        tell_primary(primary, secondary)
        with primary, secondary:
            figures = asyncio.run(simulate(options, primary, secondary))
    version = subprocess.run(["named", "-v"], capture_output=True, text=True).stdout.strip()
    if options.json:
        print_(json.dumps({"server": version, **figures}))
    else:
        print_(version)
        for what, figure in figures.items():
            print_(f"{what:42} {figure:12.3f}")


if __name__ == "__main__":
    main()
