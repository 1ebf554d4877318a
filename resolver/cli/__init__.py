# SPDX-License-Identifier: MIT
"""mymachinesctl: the command for people and scripts."""
