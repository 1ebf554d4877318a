# SPDX-License-Identifier: MIT
"""What an administrator may set: the definitions, reading them from files, and the page that tells of them."""

CONFIG_PATH = "/etc/mymachines/mymachinesd.toml"
"""Read first; then the files *.toml of the directory of this name with `.d` behind it, in the order of their names."""
