# SPDX-License-Identifier: MIT
"""The table in /run that holds every answer before it is asked for; nss_module/table.h is its specification."""

TABLE_PATH = "/run/mymachines/table-2"
"""Compiled into the shim too (nss_module); the layout's version is in the name."""
