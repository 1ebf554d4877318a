# SPDX-License-Identifier: MIT
"""Errors as D-Bus names them, and the one table from the core's meanings to those names."""

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

DBUS = "org.freedesktop.DBus.Error"
MACHINE1 = "org.freedesktop.machine1"


class ErrorReply(MachineError):
    """A meaning that D-Bus alone has: the error's name and text."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


def unknown_object(path: str) -> ErrorReply:
    return ErrorReply(f"{DBUS}.UnknownObject", f"Unknown object '{path}'.")


def unknown_method(interface: str, member: str) -> ErrorReply:
    return ErrorReply(f"{DBUS}.UnknownMethod", f"Unknown method {member} or interface {interface}.")


def unknown_property(interface: str, name: str) -> ErrorReply:
    return ErrorReply(f"{DBUS}.UnknownProperty", f"Unknown interface {interface} or property {name}.")


def unknown_interface(interface: str) -> ErrorReply:
    return ErrorReply(f"{DBUS}.UnknownInterface", f"Unknown interface '{interface}'.")


def read_only(name: str) -> ErrorReply:
    return ErrorReply(f"{DBUS}.PropertyReadOnly", f"Property '{name}' is not writable.")


def invalid_args(text: str) -> ErrorReply:
    return ErrorReply(f"{DBUS}.InvalidArgs", text)


def limits_exceeded(text: str) -> ErrorReply:
    return ErrorReply(f"{DBUS}.LimitsExceeded", text)


def file_not_found(text: str) -> ErrorReply:
    return ErrorReply(f"{DBUS}.FileNotFound", text)


def no_machine_for_pid(pid: int) -> ErrorReply:
    return ErrorReply(f"{MACHINE1}.NoMachineForPID", f"PID {pid} does not belong to any known machine")


def no_such_mapping(kind: str, text: str) -> ErrorReply:
    """`kind` is User or Group."""
    return ErrorReply(f"{MACHINE1}.NoSuch{kind}Mapping", text)


# Whoever has errors of its own adds them.
ERRORS: dict[type[MachineError], str] = {
    NoSuchMachine: f"{MACHINE1}.NoSuchMachine",
    MachineExists: f"{MACHINE1}.MachineExists",
    InvalidArgument: f"{DBUS}.InvalidArgs",
    AccessDenied: f"{DBUS}.AccessDenied",
    AuthenticationRequired: f"{DBUS}.InteractiveAuthorizationRequired",
    NotSupported: f"{DBUS}.NotSupported",
    NotAvailable: f"{DBUS}.Failed",
    FileExists: f"{DBUS}.FileExists",
    FileNotFound: f"{DBUS}.FileNotFound",
    NoOSRelease: f"{DBUS}.FileNotFound",
    NoPrivateNetworking: f"{MACHINE1}.NoPrivateNetworking",
    NoUIDShift: f"{DBUS}.NotSupported",
    NoIPC: f"{DBUS}.NotSupported",
}

_UNEXPECTED = f"{DBUS}.Failed"


def to_error_reply(error: Exception) -> tuple[str, str] | None:
    """The name and text for what a handler raised, None where it was not meant to be raised."""
    if isinstance(error, ErrorReply):
        return error.name, str(error)
    name = next((ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS), None)
    return None if name is None else (name, str(error))


def unexpected() -> tuple[str, str]:
    """For an exception that nobody meant to raise: the log has more."""
    return _UNEXPECTED, "The daemon failed at this; its log says why."
