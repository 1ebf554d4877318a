# SPDX-License-Identifier: MIT
"""What the fuzzers start from: whole tables and right replies. All that is wrong they have to find themselves."""

import struct
from pathlib import Path

from tests.nss.fake_daemon import host_packet, id_packet
from tests.nss.tables import MACHINES, Address, Machine, slot_bytes

SCENE_WORDS, TALK_WORDS = 11 + 10 + 3 + 8, 12
"""Of scene.h, without the question, which is 25 words more."""

QUESTION_WORDS = 25
NO_TURN = 29

GREEDY = Machine(name="all", label="short", uids=[(0, 0, 4294967295)], gids=[(0, 60000, 9000)])
LENGTHY = Machine(name="a" * 40, label="label-2", uids=[(0, 1 << 20, 65536)], addresses=[Address("10.0.0.2")])


def _scene() -> bytes:
    words = [0] * (SCENE_WORDS + QUESTION_WORDS)
    words[2] = 4096
    words[9] = NO_TURN
    return struct.pack(f"={len(words)}I", *words)


def _talk(question: int) -> bytes:
    words = [0] * (TALK_WORDS + QUESTION_WORDS)
    words[0], words[2] = question, 4096
    return struct.pack(f"={len(words)}I", *words)


def _reply(kind: int, result: int = 0) -> bytes:
    return struct.pack("=III", 1, kind, result)


def seeds(target: str) -> list[bytes]:
    if target == "table":
        tables: list[list[Machine]] = [MACHINES, [GREEDY], [LENGTHY], []]
        return [_scene() + slot_bytes(machines) for machines in tables]
    many = [(f"10.0.0.{i}", 0, 2) for i in range(128)]
    return [
        _talk(0) + _reply(1) + host_packet(b"web", ("10.0.0.2", 0, 2), ("fd00::2", 0, 2), ("fe80::2", 7, 1)),
        _talk(0) + _reply(1) + host_packet(b"web", *many),
        _talk(4) + _reply(2) + host_packet(b"web", ("10.0.0.2", 0, 2)),
        _talk(5) + _reply(2) + host_packet(b"web", ("fd00::2", 0, 2)),
        _talk(6) + _reply(3) + id_packet(name=b"vu-web-0", host_id=1 << 20),
        _talk(9) + _reply(4) + id_packet(name=b"vu-web-0", host_id=1 << 20),
        _talk(13) + _reply(6) + id_packet(name=b"vg-web-0", host_id=2 << 20),
        _talk(3) + _reply(1, 1),
    ]


def write(target: str, folder: Path) -> Path:
    """A corpus of the seeds in the folder, which is made."""
    folder.mkdir()
    for number, seed in enumerate(seeds(target)):
        (folder / f"seed-{number}").write_bytes(seed)
    return folder
