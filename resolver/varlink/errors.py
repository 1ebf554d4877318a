# SPDX-License-Identifier: MIT
"""Errors as Varlink names them, and the one table from the core's meanings to those names."""

from collections.abc import Callable
from errno import EEXIST, EIO, ENOENT, errorcode
from typing import Any

from resolver.core.errors import (
    AccessDenied,
    AuthenticationRequired,
    FileExists,
    FileNotFound,
    InvalidArgument,
    MachineError,
    MachineExists,
    NoIPC,
    NoOSRelease,
    NoPrivateNetworking,
    NoSuchMachine,
    NotAvailable,
    NotSupported,
    NoUIDShift,
)

MACHINE = "io.systemd.Machine"
SERVICE = "org.varlink.service"
SYSTEM = "io.systemd"


class VarlinkError(Exception):
    """An error reply: a qualified name and its parameters."""

    def __init__(self, name: str, parameters: dict[str, Any] | None = None) -> None:
        super().__init__(f"{name} {parameters}" if parameters else name)
        self.name = name
        self.parameters = parameters or {}


def invalid_parameter(name: str) -> VarlinkError:
    """`name` is the field's; a dotted path where it lies inside another."""
    return VarlinkError(f"{SERVICE}.InvalidParameter", {"parameter": name})


def interface_not_found(interface: str) -> VarlinkError:
    return VarlinkError(f"{SERVICE}.InterfaceNotFound", {"interface": interface})


def method_not_found(method: str) -> VarlinkError:
    """`method` with its interface, as systemd's services give it."""
    return VarlinkError(f"{SERVICE}.MethodNotFound", {"method": method})


def method_not_implemented(method: str) -> VarlinkError:
    return VarlinkError(f"{SERVICE}.MethodNotImplemented", {"method": method})


def expected_more() -> VarlinkError:
    return VarlinkError(f"{SERVICE}.ExpectedMore")


def permission_denied() -> VarlinkError:
    return VarlinkError(f"{SERVICE}.PermissionDenied")


def system_error(number: int) -> VarlinkError:
    """An errno. libsystemd's clients turn this one, and no other of ours, back into the number that is in it."""
    return VarlinkError(f"{SYSTEM}.System", {"origin": "linux", "errno": number,
                                             "errnoName": errorcode.get(number, str(number))})


# Whoever has errors of its own adds them.
ERRORS: dict[type[MachineError], Callable[[Any], VarlinkError]] = {
    NoSuchMachine: lambda _: VarlinkError(f"{MACHINE}.NoSuchMachine"),
    MachineExists: lambda _: VarlinkError(f"{MACHINE}.MachineExists"),
    InvalidArgument: lambda error: invalid_parameter(error.field),
    AccessDenied: lambda _: permission_denied(),
    AuthenticationRequired: lambda _: VarlinkError(f"{SYSTEM}.InteractiveAuthenticationRequired"),
    NoOSRelease: lambda _: VarlinkError(f"{MACHINE}.NoOSReleaseInformation"),
    NoPrivateNetworking: lambda _: VarlinkError(f"{MACHINE}.NoPrivateNetworking"),
    NoUIDShift: lambda _: VarlinkError(f"{MACHINE}.NoUIDShift"),
    NoIPC: lambda _: VarlinkError(f"{MACHINE}.NoIPC"),
    FileExists: lambda _: system_error(EEXIST),
    FileNotFound: lambda _: system_error(ENOENT),
    NotSupported: lambda _: VarlinkError(f"{MACHINE}.NotSupported"),
    NotAvailable: lambda _: VarlinkError(f"{MACHINE}.NotAvailable"),
}


def to_varlink_error(error: Exception) -> VarlinkError | None:
    """The error reply for what a handler raised, None where it was not meant to be raised."""
    if isinstance(error, VarlinkError):
        return error
    translate = ERRORS.get(type(error)) if isinstance(error, MachineError) else None
    return translate(error) if translate else None


def unexpected(error: Exception) -> VarlinkError:
    """The reply for an exception that nobody meant to raise."""
    return system_error(getattr(error, "errno", None) or EIO)
