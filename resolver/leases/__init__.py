# SPDX-License-Identifier: MIT
"""What DHCP servers on this host have leased, to which MAC address. The formats are read without input or output."""
