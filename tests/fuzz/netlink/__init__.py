# SPDX-License-Identifier: MIT
"""Fuzzing of the reader of netlink messages (nss_module/netlink.c) by libFuzzer: the daemon reads in C what the kernel
tells of links that guests name, and of neighbours that guests make."""
