# SPDX-License-Identifier: MIT
"""org.freedesktop.LogControl1: what `systemctl service-log-level` talks to."""

import logging

from resolver.core.errors import AccessDenied, NotSupported
from resolver.dbus.call import Call
from resolver.dbus.errors import invalid_args
from resolver.dbus.interface import Interface, Property
from resolver.log import stderr_is_journal

LOG_CONTROL = "/org/freedesktop/LogControl1"

LOG_CONTROL_INTERFACE = Interface("org.freedesktop.LogControl1", properties=[
    Property("LogLevel", "s", writable=True), Property("LogTarget", "s", writable=True),
    Property("SyslogIdentifier", "s")])

LEVELS = {"emerg": logging.CRITICAL, "alert": logging.CRITICAL, "crit": logging.CRITICAL, "err": logging.ERROR,
          "warning": logging.WARNING, "notice": logging.INFO, "info": logging.INFO, "debug": logging.DEBUG}
"""syslog(3)'s names. Python has fewer."""

NAMES = {logging.CRITICAL: "crit", logging.ERROR: "err", logging.WARNING: "warning", logging.INFO: "info",
         logging.DEBUG: "debug"}

TARGETS = ("console", "journal", "journal-or-kmsg", "kmsg", "syslog", "syslog-or-kmsg", "console-prefixed", "auto",
           "null")
"""What systemd's programs know (systemd.systemd.log_target, systemd(1))."""


class LogControlHandlers:
    """The properties, of the root logger."""

    def __init__(self, identifier: str) -> None:
        self._identifier = identifier
        self._said = ""

    def get_log_level(self, _call: Call) -> str:
        level = logging.getLogger().level
        return self._said if LEVELS.get(self._said) == level else NAMES.get(level, "info")

    async def set_log_level(self, call: Call, name: str) -> None:
        await _check_root(call)
        if name not in LEVELS:
            raise invalid_args(f"Invalid log level '{name}'")
        logging.getLogger().setLevel(LEVELS[name])
        self._said = name

    def get_log_target(self, _call: Call) -> str:
        return "journal" if stderr_is_journal() else "console"

    async def set_log_target(self, call: Call, name: str) -> None:
        await _check_root(call)
        if name not in TARGETS:
            raise invalid_args(f"Invalid log target '{name}'")
        # It logs to standard error, and its service manager says where that leads.
        if name not in ("auto", self.get_log_target(call)):
            raise NotSupported("the log goes where standard error leads; StandardError= of its unit chooses that")

    def get_syslog_identifier(self, _call: Call) -> str:
        return self._identifier


async def _check_root(call: Call) -> None:
    # The bus's own policy may let nobody else through; that is not relied on.
    if not (await call.subject()).privileged:
        raise AccessDenied("only root may change how this daemon logs")
