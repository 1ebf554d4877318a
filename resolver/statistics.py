# SPDX-License-Identifier: MIT
"""What the daemon has done, in numbers, for whoever watches it: io.mymachines.Machines.Statistics, and metrics of it.

Counted as it happens, so that asking costs the same with ten machines and with ten thousand. The definitions are here
and in the daemon alone: mymachines-metrics passes them on as it gets them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from resolver.core.addresses import AF_INET, AF_INET6
from resolver.core.machine import MachineClass
from resolver.core.registry import Change, Entry

_FAMILIES = {AF_INET: "ipv4", AF_INET6: "ipv6"}

Samples = Mapping[str, int]
"""By the label's value; of one without a label, by an empty one."""


class Kind(StrEnum):
    COUNTER = "counter"
    """Since the daemon has started; it only grows."""
    GAUGE = "gauge"
    """As it is now."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `name` is without the prefix and, for a counter, without `_total` (openmetrics.io)."""

    name: str
    kind: Kind
    help: str
    samples: Callable[[], Samples]
    label: str = ""


class Machines:
    """Counts machines and what becomes of them; one of the manager's listeners."""

    def __init__(self) -> None:
        self.by_class: Counter[str] = Counter({MachineClass.CONTAINER: 0, MachineClass.VM: 0})
        self.addresses: Counter[str] = Counter(dict.fromkeys(_FAMILIES.values(), 0))
        self.contested = 0
        self.registered = 0
        self.gone = 0
        self.changed = 0

    def take_over(self, entries: Iterable[Entry]) -> None:
        """Those that were there before."""
        for entry in entries:
            self._count(entry, 1)

    def on_changes(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.before is not None:
                self._count(change.before, -1)
            if change.after is not None:
                self._count(change.after, 1)
            self.registered += change.before is None
            self.gone += change.after is None
            self.changed += change.before is not None and change.after is not None

    def _count(self, entry: Entry, by: int) -> None:
        self.by_class[entry.machine.machine_class] += by
        self.contested += by * entry.contested
        for address in entry.addresses:
            self.addresses[_FAMILIES[address.family]] += by

    def families(self) -> list[Family]:
        return [
            Family("machines", Kind.GAUGE, "Machines that are registered.", lambda: self.by_class, "class"),
            Family("machine_addresses", Kind.GAUGE, "Addresses that look-ups give.", lambda: self.addresses, "family"),
            Family("machines_contested", Kind.GAUGE, "Machines without names for some ids, which another machine maps.",
                   lambda: {"": self.contested}),
            Family("machines_registered", Kind.COUNTER, "Machines that were taken in.", lambda: {"": self.registered}),
            Family("machines_gone", Kind.COUNTER, "Machines that have ended or were let go.", lambda: {"": self.gone}),
            Family("machine_changes", Kind.COUNTER, "Changes of machines' addresses and ids.",
                   lambda: {"": self.changed}),
        ]


def as_reply(families: Iterable[Family]) -> list[dict[str, Any]]:
    """The families as io.mymachines.Machines.Statistics has them."""
    return [{"name": family.name, "kind": family.kind.value, "help": family.help,
             "label": family.label,
             "samples": [{"label": label, "value": value} for label, value in sorted(family.samples().items())]}
            for family in families]
