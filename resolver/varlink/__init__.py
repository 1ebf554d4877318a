# SPDX-License-Identifier: MIT
"""Varlink (varlink.org): JSON objects, each ended by a zero byte, over a Unix stream socket.

From the bottom up: codec (bytes and messages), interface (what a message may hold), service (which handler answers),
connection and server (sockets and limits), client. A handler sees nothing below service.
"""

MACHINE_SOCKET = "/run/systemd/machine/io.systemd.Machine"
IMAGE_SOCKET = "/run/systemd/machine/io.systemd.MachineImage"
