# SPDX-License-Identifier: MIT
"""All settings: their names, kinds, defaults and meaning. The reference page is made of this (reference.py).

A field `per_user` of the section `connections` is `per-user` under `[connections]` in a file.
"""

from dataclasses import dataclass, field, fields
from typing import Any

from resolver.config.values import Kind, Number, Paths, Places, Word, YesOrNo
from resolver.core.registry import MACHINES_MAX


def _setting(default: Any, kind: Kind, text: str) -> Any:
    return field(default=default, metadata={"kind": kind, "text": text})


@dataclass(frozen=True, slots=True)
class Log:
    """What is logged."""

    level: str = _setting("info", Word(("error", "warning", "info", "debug")),
                          "How much to log. The command line's `--log-level` wins.")


@dataclass(frozen=True, slots=True)
class Machines:
    """Who is taken in."""

    maximum: int = _setting(MACHINES_MAX, Number(1, MACHINES_MAX),
                            "Machines that are registered at once. Those that are there stay where it is lowered.")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the addresses of virtual machines come from."""

    neighbours: bool = _setting(True, YesOrNo(), "Use what the host's neighbour table tells.")
    leases: bool = _setting(True, YesOrNo(), "Use what DHCP servers on this host have leased.")
    dnsmasq_lease_files: tuple[str, ...] = _setting(
        (), Paths(), "Lease files of dnsmasq beside those that are found by themselves.")


@dataclass(frozen=True, slots=True)
class Connections:
    """Clients of io.systemd.Machine and io.systemd.MachineImage, for each of their sockets."""

    maximum: int = _setting(4096, Number(64, 16384), "Connections in all.")
    per_user: int = _setting(512, Number(1, 16384), "Connections of one user, root excepted.")
    reserved_for_root: int = _setting(256, Number(1, 16384), "How many of all only root has; less than `maximum`.")


@dataclass(frozen=True, slots=True)
class Metrics:
    """mymachines-metrics, which is off until its unit is enabled. It reads this when it starts."""

    listen: tuple[str, ...] = _setting(("/run/mymachines-metrics/metrics.sock",), Places(),
                                       "Where it answers HTTP with OpenMetrics.")


@dataclass(frozen=True, slots=True)
class Settings:
    log: Log = Log()
    machines: Machines = Machines()
    addresses: Addresses = Addresses()
    connections: Connections = Connections()
    metrics: Metrics = Metrics()

    def contradiction(self) -> tuple[str, str, str] | None:
        """Section, field, and what is wrong between two settings that are right by themselves."""
        if self.connections.reserved_for_root >= self.connections.maximum:
            return "connections", "reserved_for_root", "must be less than maximum"
        return None


def kind_of(section: Any, name: str) -> Kind | None:
    """What a section's setting takes, by the field's name; None where there is none."""
    found = next((each for each in fields(section) if each.name == name), None)
    kind: Kind | None = None if found is None else found.metadata["kind"]
    return kind


def written(name: str) -> str:
    """A field's name as it stands in a file."""
    return name.replace("_", "-")
