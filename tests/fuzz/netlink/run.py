# SPDX-License-Identifier: MIT
"""Compile the reader with coverage and sanitizers, whole and without each of its checks, and fuzz it."""

import struct
import subprocess
from pathlib import Path

from build_nss import C_FOLDER, MACROS, ROOT
from resolver.host import netlink
from tests.fuzz.libfuzzer import CONTROL_RUNS, Outcome, fuzz
from tests.fuzz.shim.controls import Control
from tests.hostside.wire import address, attribute, link, message, neighbour, route

HERE = Path(__file__).resolve().parent
SOURCE = "netlink.c"

LENGTH_MAX = 512
"""Bytes of a datagram: room for some messages of each kind. What comes behind them is read as they are."""

FLAGS = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", *(f"-D{name}={value}" for name, value in MACROS),
         "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]


def _control(name: str, old: str, new: str) -> Control:
    return Control(name, "netlink", SOURCE, old, new)


CONTROLS = [
    _control("header-in-datagram", "        if (left < sizeof header)\n            return NETLINK_SHORT_HEADER;\n", ""),
    _control("message-has-header", "header.nlmsg_len < sizeof header || header.nlmsg_len > left",
             "header.nlmsg_len > left"),
    _control("message-in-datagram", "header.nlmsg_len < sizeof header || header.nlmsg_len > left",
             "header.nlmsg_len < sizeof header"),
    _control("room", "count < room && *at < size", "*at < size"),
    _control("padding-in-datagram", "at_most((0 - header.nlmsg_len) % NLMSG_ALIGNTO, size - *at)",
             "(0 - header.nlmsg_len) % NLMSG_ALIGNTO"),
    _control("struct-in-body", "    if (body->end - body->at < size)\n        return NETLINK_SHORT_BODY;\n", ""),
    _control("attribute-begins-in-part", "at <= part.end && part.end - at >=", "part.end - at >="),
    _control("attribute-has-header", "header.nla_len < sizeof header || header.nla_len > part.end - at",
             "header.nla_len > part.end - at"),
    _control("attribute-in-part", "header.nla_len < sizeof header || header.nla_len > part.end - at",
             "header.nla_len < sizeof header"),
    _control("attribute-type", "        if (type < ATTRIBUTE_TYPES)\n", ""),
    _control("number-in-attribute",
             "    if (part.end - part.at < sizeof(uint32_t))\n        return NETLINK_BAD_ATTRIBUTE;\n", ""),
    _control("text-in-attribute", "memchr(datagram + part.at, 0, part.end - part.at)",
             "memchr(datagram + part.at, 0, part.end)"),
    _control("errno-in-body",
             "    if (body.end - body.at < sizeof negative)\n        return NETLINK_SHORT_BODY;\n", ""),
    _control("address-length", "row->address.end - row->address.at != address_length(fixed.ifa_family)", "0"),
    _control("neighbour-length", "row->address.end - row->address.at != address_length(fixed.ndm_family)", "0"),
    _control("route-length", "(row->address.at != 0 && row->address.end - row->address.at != bytes)", "0"),
    _control("prefix-length", "fixed.rtm_dst_len > 8 * bytes || ", ""),
]


def seeds() -> list[bytes]:
    """Of each kind of message, one with all that is read of it."""
    v4, v6, mac, number = bytes([192, 0, 2, 1]), bytes(range(16)), bytes(range(6)), struct.pack("=I", 9)
    return [
        address(2, attribute(1, v4), attribute(2, v4), attribute(8, number)),
        address(10, attribute(1, v6)),
        link(attribute(1, mac), attribute(3, b"host0\0"), attribute(5, number), attribute(10, number),
             attribute(18, attribute(1, b"veth\0") + attribute(4, b"bridge\0")), attribute(37, number)),
        route(2, attribute(1, v4), attribute(4, number), attribute(5, v4)),
        route(10, attribute(1, v6), attribute(9, bytes(8)), length=128),
        neighbour(2, attribute(1, v4), attribute(2, mac)),
        neighbour(7, attribute(2, mac), attribute(9, number)),
        message(netlink.RTM_NEWNSID, bytes(4) + attribute(1, number)),
        message(netlink.NLMSG_ERROR, number + bytes(16)) + message(netlink.NLMSG_DONE, number),
    ]


def build(folder: Path, control: Control | None = None) -> Path:
    """The fuzzer; with a control, of a reader that lacks a check. `folder` is there, and the caller's to remove."""
    source = ROOT / C_FOLDER / SOURCE
    flags = FLAGS
    if control is not None:
        changed = folder / SOURCE
        changed.write_text(control.apply(source.read_text()))
        source, flags = changed, [*FLAGS, "-w"]  # without the check, the compiler may well see what is wrong
    program = folder / "fuzz"
    done = subprocess.run(["clang", *flags, f"-I{ROOT / C_FOLDER}", str(HERE / "fuzz_netlink.c"), str(source), "-o",
                           str(program)], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"clang: {done.stderr}")
    return program


def fuzz_one(folder: Path, *, seed: int, control: Control | None = None, runs: int = 0, seconds: int = 0) -> Outcome:
    """The reader, or one that lacks a check. `folder` is made, and the caller's to remove."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    for number, data in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(data)
    program = build(folder, control)
    return fuzz(program, corpus, length_max=LENGTH_MAX, seed=seed, runs=runs, seconds=seconds)


def fuzz_controls(folder: Path, *, seed: int) -> dict[str, Outcome]:
    """What the fuzzer says of each reader that lacks a check."""
    return {control.name: fuzz_one(folder / control.name, seed=seed, control=control, runs=CONTROL_RUNS)
            for control in CONTROLS}
