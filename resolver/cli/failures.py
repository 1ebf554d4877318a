# SPDX-License-Identifier: MIT
"""What can go wrong for a command: one exit code each, and a text that says what to do."""

from resolver.cli.exit_codes import DENIED, FAILED, NO_DAEMON, NOT_FOUND
from resolver.core.errors import InvalidArgument
from resolver.table.reader import TableUnavailable
from resolver.varlink.errors import VarlinkError


class Failure(Exception):
    """Ends the command with an exit code and a text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


# By the error's name in Varlink; what is not here is told by its name and parameters.
_VARLINK = {
    "io.systemd.Machine.NoSuchMachine": (NOT_FOUND, "no such machine; 'mymachinesctl list' shows those there are"),
    "io.systemd.Machine.MachineExists": (
        FAILED, "this name or leader is a machine's already; 'mymachinesctl unregister NAME' frees the name"),
    "io.systemd.Machine.NotSupported": (FAILED, "this cannot be done for this machine on this host"),
    "io.systemd.Machine.NotAvailable": (FAILED, "this could not be done now; the log of mymachinesd says why"),
    "org.varlink.service.PermissionDenied": (DENIED, "not allowed; try it as root"),
}


def to_failure(error: Exception) -> Failure | None:
    """The failure that an exception means to the user; None where it means a bug."""
    match error:
        case Failure():
            return error
        case VarlinkError():
            if error.name == "org.varlink.service.InvalidParameter":
                parameter = error.parameters.get("parameter")
                return Failure(FAILED, _HINTS.get(str(parameter), f"mymachinesd does not take this {parameter}"))
            code, text = _VARLINK.get(error.name, (FAILED, str(error)))
            return Failure(code, text)
        case InvalidArgument():
            return Failure(FAILED, str(error))
        case TableUnavailable():
            return Failure(NO_DAEMON, f"{error}; is mymachinesd running?")
        case TimeoutError():
            return Failure(NO_DAEMON, "mymachinesd does not answer in time; look at its log")
        case PermissionError():
            return Failure(DENIED, f"{error}; try it as root")
        case FileNotFoundError() | ConnectionError():
            return Failure(NO_DAEMON, "mymachinesd is not there; start it, as root")
        case OSError():
            return Failure(FAILED, str(error))
    return None


_HINTS = {
    "leader": "there is no such process, or it can be no machine's leader: give the pid of a running process",
    "name": "this name cannot be a machine's: it is reserved, or this host's own",
}
