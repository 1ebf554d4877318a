# SPDX-License-Identifier: MIT
"""A guest's DHCP client (RFC 2131), as far as a test needs one: dhcp_client.py INTERFACE take | release ADDRESS

`take` asks for an address, has it and prints it. `release` gives it back to the server.
"""

import fcntl
import socket
import struct
import subprocess
import sys
from pathlib import Path

DHCP_CLIENT = Path(__file__)

SO_BINDTODEVICE = 25
SIOCGIFHWADDR = 0x8927
DISCOVER, REQUEST, RELEASE = 1, 3, 7
MESSAGE_TYPE, REQUESTED_ADDRESS, SERVER, HOST_NAME, END = 53, 50, 54, 12, 255
COOKIE = bytes.fromhex("63825363")


def message(mac: bytes, kind: int, *options: tuple[int, bytes], own: bytes = bytes(4)) -> bytes:
    fixed = struct.pack("!BBBBIHH4s12s16s192x", 1, 1, 6, 0, 7, 0, 0x8000, own, bytes(12), mac)
    return fixed + COOKIE + b"".join(bytes([code, len(value)]) + value for code, value in [
        (MESSAGE_TYPE, bytes([kind])), (HOST_NAME, b"whatever-it-says"), *options]) + bytes([END])


def answer(kernel: socket.socket) -> tuple[bytes, bytes]:
    """The address, and the server's."""
    data = kernel.recv(2000)
    options, found = data[240:], {}
    while options and options[0] != END:
        if options[0] == 0:
            options = options[1:]
            continue
        found[options[0]] = options[2 : 2 + options[1]]
        options = options[2 + options[1] :]
    return data[16:20], found[SERVER]


def main(interface: str, verb: str, address: str = "") -> None:
    kernel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    mac = fcntl.ioctl(kernel, SIOCGIFHWADDR, struct.pack("16s24x", interface.encode()))[18:24]  # /sys is the host's
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    kernel.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, interface.encode() + b"\0")
    kernel.bind(("0.0.0.0", 68))
    kernel.settimeout(10)
    if verb == "release":
        own, server = socket.inet_aton(address), socket.inet_aton("10.1.0.1")
        kernel.sendto(message(mac, RELEASE, (SERVER, server), own=own), ("10.1.0.1", 67))
        return
    kernel.sendto(message(mac, DISCOVER), ("255.255.255.255", 67))
    offered, server = answer(kernel)
    kernel.sendto(message(mac, REQUEST, (REQUESTED_ADDRESS, offered), (SERVER, server)), ("255.255.255.255", 67))
    taken, _ = answer(kernel)
    subprocess.run(["ip", "address", "add", socket.inet_ntoa(taken) + "/24", "dev", interface], check=True)
    print(socket.inet_ntoa(taken))


if __name__ == "__main__":
    main(*sys.argv[1:])
