# SPDX-License-Identifier: MIT
"""The process that answers io.systemd.UserDatabase from the table, whatever the rest of this package does."""
