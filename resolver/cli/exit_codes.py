# SPDX-License-Identifier: MIT
"""What the command's exit code says."""

FAILED = 1
USAGE = 2  # argparse's
NOT_FOUND = 3
DENIED = 4
NO_DAEMON = 5
WARNED = 6
BROKEN = 7

EXIT_CODES = f"""exit codes:
  0  done; doctor: all is well
  {FAILED}  the request failed
  {USAGE}  the command line is wrong
  {NOT_FOUND}  no such machine, address, user or group
  {DENIED}  not allowed: changing machines is root's
  {NO_DAEMON}  mymachinesd does not answer, or publishes no table
  {WARNED}  doctor: look-ups work, and something is not as it should be
  {BROKEN}  doctor: something does not work
"""
