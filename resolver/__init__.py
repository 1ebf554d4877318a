# SPDX-License-Identifier: MIT
"""The name side of a host that runs containers and VMs."""

__version__ = "0.1.0"
