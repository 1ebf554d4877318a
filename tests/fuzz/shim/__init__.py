# SPDX-License-Identifier: MIT
"""Fuzzing of the shim by libFuzzer: the table's reader and the client of nss.sock, in a world made in C (world.h)."""
