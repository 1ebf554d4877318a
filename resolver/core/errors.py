# SPDX-License-Identifier: MIT
"""What can be wrong with a request, in a handful of meanings.

Each transport translates them in one place, by one table (resolver.varlink.errors); handlers hold no try.
"""


class MachineError(Exception):
    """A request that cannot be done. The text says why, and is meant for the person who asked."""


class NoSuchMachine(MachineError):
    """No machine by that name, leader or unit."""


class MachineExists(MachineError):
    """The name is taken by a machine whose leader is alive."""


class InvalidArgument(MachineError):
    """A value that can never be right; `field` names it as the interface does."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field


class AccessDenied(MachineError):
    """The caller may not do this."""


class AuthenticationRequired(AccessDenied):
    """The caller may do this after its user has been asked, for which it has to say that it can wait."""


class NotSupported(MachineError):
    """Right as a request, but not on this host."""


class NotAvailable(MachineError):
    """What was asked for could not be had from the machine in time, or at all."""


class NoIPC(MachineError):
    """No system bus runs in the machine, over which its service manager could be asked."""


class NoPrivateNetworking(MachineError):
    """The machine has the host's own network: there are no addresses that are its."""


class NoOSRelease(MachineError):
    """The machine has no os-release file."""


class NoUIDShift(MachineError):
    """The machine's ids are not the host's moved by one number."""


class FileExists(MachineError):
    """A file or directory is there already, and was not to be replaced."""


class FileNotFound(MachineError):
    """A file or directory is not there."""
