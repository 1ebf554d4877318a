# SPDX-License-Identifier: MIT
"""The program that acts inside a machine for one request (worker/), and ends.

    place.py      the machine: its root and namespaces, held by descriptors
    identity.py   a child that has become the machine's root
    terminal.py   a pseudo terminal of the machine's
    bus.py        a connection to the machine's system bus, and calls over it
    session.py    what its service manager is asked for: a login prompt, a shell
    bind.py       a directory of the host, mounted in the machine

    request  {"do": "pty" | "login" | "shell" | "root" | "bind", "deadline": seconds of CLOCK_MONOTONIC, ...}, with the
             leader's pidfd; without one for the host
    result   {"path": "/dev/pts/3"} with the terminal's descriptor, {} with the root directory's, {}

Nothing that the machine says about itself is believed: not what is at a path, not who listens at a socket, not what
comes over the bus. Paths are resolved below a descriptor of its root, never in it. This process keeps the host's mounts
and rights, and looks only; what needs a namespace is done by a child that has joined that one.
"""
