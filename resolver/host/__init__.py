# SPDX-License-Identifier: MIT
"""What the kernel tells of machines, and the files that outlive the daemon. Imports the core alone."""
