# SPDX-License-Identifier: MIT
"""What shells and logins leave in a machine, or do not: terminals and units."""

from tests.lab import wait_for

from .booted import BootedHost
from .guests import Guest

QUIET_SECONDS = 20.0    # for whose terminal hangs up to end; takes a tenth of one


def pseudo_terminals(host: BootedHost, leader: int = 1) -> int:
    """How many there are in the devpts that a process sees."""
    return len(host.out(["ls", f"/proc/{leader}/root/dev/pts"]).split()) - 1


def units(host: BootedHost, pattern: str, machine: str = ".host") -> dict[str, str]:
    """State of each unit that is loaded."""
    listed = host.out(["systemctl", f"--machine={machine}", "list-units", "--all", "--plain", "--no-legend", pattern])
    return {line.split()[0]: line.split()[2] for line in listed.splitlines()}


def shells(host: BootedHost, machine: str = ".host") -> dict[str, str]:
    """The units in which machinectl's shells run."""
    return units(host, "container-shell@*", machine)


def wait_until_quiet(web: Guest) -> None:
    """All shells and logins have ended. systemd starts a login prompt that lost its terminal anew, some times in vain,
    and would then not start it for another.
    """
    host = web.host
    wait_for(lambda: pseudo_terminals(host, web.leader) == 0 and shells(host, web.name) == {}, QUIET_SECONDS)
    wait_for(lambda: set(units(host, "container-getty@*", web.name).values()) <= {"failed"}, QUIET_SECONDS)
    host.run(["systemctl", f"--machine={web.name}", "reset-failed"])
