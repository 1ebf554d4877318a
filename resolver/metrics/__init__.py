# SPDX-License-Identifier: MIT
"""mymachines-metrics: what mymachinesd tells of itself, for Prometheus and who else reads OpenMetrics.

A process of its own, without privileges: a scraper that asks without end, or reads slowly, is nobody else's trouble.
"""
