# SPDX-License-Identifier: MIT
"""Processes that do one thing for the daemon, each for one request: run.py starts them, serve.py is their side.

    daemon -> worker: a JSON object, what is asked for; descriptors with it
    worker -> daemon: {"progress": {...}}, any number of times; then one of
                      {"result": {...}}, descriptors with it
                      {"error": NAME, "text": why}, an error of the core by its name; "field" with InvalidArgument

Each message is one packet of a socket pair (SOCK_SEQPACKET), the worker's standard input. A worker ends when it has
answered. Told to stop (SIGTERM), it tidies up; it and its children are killed where that takes too long.
"""

MESSAGE_MAX = 128 * 1024
"""Bytes of one message. The kernel takes some 200 KiB in one packet (net.core.wmem_default)."""

DESCRIPTORS_MAX = 8
"""That go with one message. The kernel takes 253 (SCM_MAX_FD); nothing here needs more than a few."""
