# SPDX-License-Identifier: MIT
"""Machines' names by DNS, for those whom NSS does not reach."""
