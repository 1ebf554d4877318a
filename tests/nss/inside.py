# SPDX-License-Identifier: MIT
"""`inside.py SCENARIO SHIM ...` runs a scenario in the mount namespace it is started in, with an empty /run.

The fixture run_inside makes that namespace. An assertion that fails ends the process.
"""

import subprocess
import sys

from . import with_daemon, with_table
from .entry_points import Shim
from .tables import TABLE


def main() -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run"], check=True)
    TABLE.parent.mkdir()
    scenario, shim, *arguments = sys.argv[1:]
    function = getattr(with_table, scenario, None) or getattr(with_daemon, scenario)
    function(Shim(shim), *arguments)


if __name__ == "__main__":
    main()
