# SPDX-License-Identifier: MIT
"""The process that tells systemd-resolved of machines, as io.systemd.Resolve.Hook has it (systemd 259 and later)."""

SOCKET = "/run/systemd/resolve.hook/io.systemd.Machine"
"""systemd-machined's. resolved asks every socket in there before DNS: one that is mute or dead harms the host."""
