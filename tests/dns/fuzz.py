# SPDX-License-Identifier: MIT
"""python -m tests.dns.fuzz [PACKETS [SEED]]: hostile packets over the wire, a million unless told otherwise.

Whole queries of every kind, changed: bits flipped, bytes put in, taken out and doubled, names that point in circles,
counts that lie. Each thousand, the server has to answer an honest query rightly; at the end it must have died of
nothing and its memory must be what it was. As root, since the table must be root's.
"""

import argparse
import functools
import random
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dns.edns
import dns.message
import dns.rdataclass
import dns.rdatatype
import dns.update

from tests.dns.serving import PATIENCE, Server, Table

PACKETS = 1_000_000
BURST = 500
"""Packets between two honest queries."""

MEMORY_GROWTH_MAX = 32 * 2**20
"""Bytes: what the server allows itself to keep, twice."""


@functools.cache
def seeds() -> list[bytes]:
    """Packets as clients send them, and some that only servers do."""
    names = ["web.machines.internal.", "nobody.machines.internal.", "machines.internal.", "example.com.", ".",
             "3.2.1.10.in-addr.arpa.", f"{'1.' * 32}ip6.arpa.", f"{'x' * 63}.{'y' * 63}.{'z' * 63}.machines.internal."]
    types = ["A", "AAAA", "ANY", "PTR", "SOA", "HTTPS", "AXFR", "OPT", "TSIG", "TYPE65280"]
    made = [dns.message.make_query(name, rdtype) for name in names for rdtype in types]
    made += [dns.message.make_query(names[0], "A", use_edns=0, payload=payload, want_dnssec=True,
                                    options=[dns.edns.GenericOption("COOKIE", b"cookie!!")])
             for payload in (0, 512, 1232, 65535)]
    made += [dns.message.make_query(names[0], "A", rdclass=rdclass) for rdclass in ("CH", "ANY", "NONE")]
    update = dns.update.UpdateMessage("machines.internal.")
    update.add("new", 60, "A", "10.9.9.9")
    return [message.to_wire() for message in (*made, update, dns.message.make_response(made[0]))]


def _flip(random_bytes: random.Random, packet: bytearray) -> None:
    packet[random_bytes.randrange(len(packet))] ^= 1 << random_bytes.randrange(8)


def _replace(random_bytes: random.Random, packet: bytearray) -> None:
    packet[random_bytes.randrange(len(packet))] = random_bytes.choice((0, 1, 0x3f, 0x40, 0x7f, 0xc0, 0xff))


def _cut(random_bytes: random.Random, packet: bytearray) -> None:
    del packet[random_bytes.randrange(len(packet)):]


def _insert(random_bytes: random.Random, packet: bytearray) -> None:
    at = random_bytes.randrange(len(packet))
    packet[at:at] = random_bytes.randbytes(random_bytes.randrange(1, 20))


def _double(random_bytes: random.Random, packet: bytearray) -> None:
    packet += packet[random_bytes.randrange(len(packet)):]


def _point(random_bytes: random.Random, packet: bytearray) -> None:
    at = random_bytes.randrange(len(packet))
    packet[at:at + 2] = (0xC000 | random_bytes.randrange(min(len(packet) + 4, 0x4000))).to_bytes(2)


def _count(random_bytes: random.Random, packet: bytearray) -> None:
    at = random_bytes.randrange(4, 12, 2)
    packet[at:at + 2] = random_bytes.choice((0, 1, 2, 255, 65535)).to_bytes(2)


CHANGES: list[Callable[[random.Random, bytearray], None]] = [_flip, _replace, _cut, _insert, _double, _point, _count]


def mutate(random_bytes: random.Random, packet: bytes) -> bytes:
    """The packet after a few changes; at most what one datagram holds."""
    changed = bytearray(packet)
    for _ in range(random_bytes.randrange(1, 5)):
        if changed:
            random_bytes.choice(CHANGES)(random_bytes, changed)
    return bytes(changed[:4000])


def honest(address: tuple[str, int], kind: socket.SocketKind) -> None:
    """AssertionError where the server does not answer as it should."""
    query = dns.message.make_query("web.machines.internal.", "A")
    with socket.socket(socket.AF_INET, kind) as client:
        client.settimeout(PATIENCE)
        client.connect(address)
        if kind == socket.SOCK_STREAM:
            client.sendall(len(query.to_wire()).to_bytes(2) + query.to_wire())
            file = client.makefile("rb")
            wire = file.read(int.from_bytes(file.read(2)))
            file.close()
        else:
            client.send(query.to_wire())
            # The port may be one that a burst has had: an answer to that is not this one's.
            while (wire := client.recv(4096))[:2] != query.to_wire()[:2]:
                pass
    answer = dns.message.from_wire(wire)
    assert query.is_response(answer)
    assert answer.answer[0][0].to_text() == "10.1.2.3", answer


def attack(server: Server, packets: int, seed: int) -> None:
    """AssertionError where the server suffers."""
    random_bytes = random.Random(seed)
    before = None
    for burst in range(0, packets, BURST):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(server.address)
            for _ in range(min(BURST, packets - burst)):
                client.send(mutate(random_bytes, random_bytes.choice(seeds())))
        if burst % (20 * BURST) == 0:
            stream = b"".join(len(packet).to_bytes(2) + packet for packet in (
                mutate(random_bytes, random_bytes.choice(seeds())) for _ in range(20)))
            with socket.create_connection(server.address, PATIENCE) as client:
                try:
                    client.sendall(stream)
                except ConnectionError:
                    pass    # it is the server's right to hang up
            honest(server.address, socket.SOCK_STREAM)
        honest(server.address, socket.SOCK_DGRAM)
        if before is None:
            before = server.memory()
    assert before is not None
    assert dropped(server.port) == 0, "the kernel has thrown packets away: the server did not see them all"
    assert server.memory() - before < MEMORY_GROWTH_MAX, (before, server.memory())


def dropped(port: int) -> int:
    """Datagrams for that port that found no room in the socket (proc_net(5))."""
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    return sum(int(line.split()[-1]) for line in lines if line.split()[1].endswith(f":{port:04X}"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.dns.fuzz", description=__doc__)
    parser.add_argument("packets", type=int, nargs="?", default=PACKETS)
    parser.add_argument("seed", type=int, nargs="?", default=1)
    options = parser.parse_args()
    packets, seed = options.packets, options.seed
    with tempfile.TemporaryDirectory() as folder:
        table = Table(Path(folder, "table-2"))
        table.add("web", "10.1.2.3")
        try:
            with Server(table) as server:
                began = time.monotonic()
                attack(server, packets, seed)
                seconds, memory = time.monotonic() - began, server.memory()
                server.stop()
        finally:
            table.close()
    print(f"{packets} packets in {seconds:.0f} s (seed {seed}); the server lives, with {memory / 2**20:.1f} MB")


if __name__ == "__main__":
    main()
