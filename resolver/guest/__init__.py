# SPDX-License-Identifier: MIT
"""What a machine says of itself: its os-release, read without trusting it; what is derived from its namespaces."""
