# SPDX-License-Identifier: MIT
"""The system bus: org.freedesktop.machine1 and LogControl1 as it is served, systemd and polkit as they are asked.

    transport    a socket to the bus: messages in and out, within limits
    connection   the one connection: its name, calls with a deadline, back again after the bus restarts
    interface    what an interface has, and its XML
    objects      from a call to the handler that answers it
    manager, machine, log_control   the handlers
    systemd, polkit                 resolver.units and resolver.authority, by asking these two
"""
