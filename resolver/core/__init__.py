# SPDX-License-Identifier: MIT
"""Values in, values out: no input or output, no clock, no /proc, no logging.

Everything else in this package may import the core; the core imports the standard library's pure parts alone.
"""
