# SPDX-License-Identifier: MIT
"""io.mymachines.Machines: what no interface of systemd's has a place for. Reading, so for everybody."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from resolver.addressing import Explained
from resolver.core.addresses import GIVEN, REASONS
from resolver.manager import Manager
from resolver.statistics import Family, as_reply
from resolver.varlink.call import Call, Reply
from resolver.varlink.interface import Interface, load_interface
from resolver.varlink.watch import Watches

NAME = "io.mymachines.Machines"

_SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
"""RT_SCOPE_* (rtnetlink(7)), by the names of ip-address(8); others by their number."""


class MymachinesInterface:
    """The methods, by their names in the interface."""

    def __init__(self, manager: Manager, watches: Watches, statistics: Sequence[Family]) -> None:
        self._manager = manager
        self._watches = watches
        self._statistics = statistics

    async def do_explain(self, call: Call) -> dict[str, Any]:
        explanation = await self._manager.explain(call.parameters["name"])
        entry = explanation.entry
        owned = {(address.family, address.packed) for address in entry.addresses if address.reverse}
        reply: dict[str, Any] = {
            "name": entry.machine.name, "network": explanation.network,
            "addresses": [_fields(explained, owned) for explained in explanation.addresses]}
        if entry.alias:
            reply["alias"] = entry.alias
        if explanation.rivals:
            reply["idsAreOf"] = list(explanation.rivals)
        return reply

    def do_watch(self, call: Call) -> AsyncIterator[Reply]:
        return self._watches.watch(call)

    def do_statistics(self, _call: Call) -> dict[str, Any]:
        return {"families": as_reply(self._statistics)}


def mymachines_interface() -> Interface:
    return load_interface(NAME)


def _fields(explained: Explained, owned: set[tuple[int, bytes]]) -> dict[str, Any]:
    verdict = explained.verdict
    address = verdict.address
    given = verdict.reason in GIVEN
    fields: dict[str, Any] = {
        "family": address.family, "address": list(address.packed), "source": address.source.value,
        "ifindex": address.ifindex, "scope": _SCOPES.get(address.scope, str(address.scope)), "given": given,
        "reason": verdict.reason.value, "text": REASONS[verdict.reason],
        "reverse": given and (address.family, address.packed) in owned}
    if explained.interface:
        fields["interface"] = explained.interface
    if verdict.scope_id:
        fields["scopeId"] = verdict.scope_id
    return fields
