# SPDX-License-Identifier: MIT
"""The system bus: org.freedesktop.machine1 and LogControl1 as it is served, systemd and polkit as they are asked.

    decode       one message from its octets
    reader       messages from a socket, file descriptors with them
    transport    that socket: found, greeted, written to
    connection   the one connection: its name, calls with a deadline, back again after the bus restarts
    interface    what an interface has, and its XML; paths, errors: their names
    objects      from a call to the handler that answers it
    call         who calls
    manager, machine, log_control   the handlers; server puts them together
    systemd, polkit                 resolver.units and resolver.authority, by asking these two
"""
