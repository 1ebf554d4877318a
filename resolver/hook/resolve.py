# SPDX-License-Identifier: MIT
"""io.systemd.Resolve.Hook: which names are ours, and their records.

Ours are the machines' bare names, each that name alone, and the zone. A filter's domain means all names below it too,
so resolved asks for `www.nic.ai` where a machine is called `ai`; the answer is then empty, "not ours", and it goes on.
"""

import base64
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import dns.exception
import dns.name
from dns.name import Name
from dns.rcode import Rcode
from dns.rdatatype import RdataType

from resolver.dns.answers import Answer, Answers, Directory, Record, Zone
from resolver.dns.wire import CLASS_IN, record_wire
from resolver.hook.changes import Changes
from resolver.varlink.call import Call, Pause, Reply
from resolver.varlink.interface import Interface, load_interface

INTERFACE = "io.systemd.Resolve.Hook"

QUESTIONS_MAX = 64
"""Of one request. resolved asks for the types and spellings of one name, four at the most."""

RDATA_TYPE_MAX = 65535


class Question(NamedTuple):
    name: Name
    rdtype: int


def hook_interface() -> Interface:
    """Unknown parameters are dropped: what a newer resolved adds shall not take the machines' names away."""
    return load_interface(INTERFACE, lenient=("QueryFilter", "ResolveRecord"))


class ResolveHook:
    """The handlers. `unavailable` are the exceptions by which the directory says that it cannot tell: then nothing is
    ours, and resolved asks others, as on a host without this process."""

    def __init__(self, zone: Zone, directory: Directory, unavailable: type[Exception], changes: Changes) -> None:
        self._zone = zone
        self._directory = directory
        self._unavailable = unavailable
        self._changes = changes

    def do_query_filter(self, call: Call) -> dict[str, Any] | Iterator[Reply | Pause]:
        return self._follow() if call.more else self._filter()

    def _follow(self) -> Iterator[Reply | Pause]:
        pause = Pause(self._changes.call_once, self._changes.forget)
        last = None
        while True:
            seen = self._changes.count
            domains = self._filter()
            if domains != last:
                last = domains
                yield Reply(domains, continues=True)
            if self._changes.count == seen:
                yield pause

    def do_resolve_record(self, call: Call) -> dict[str, Any]:
        # A zone's serial is of no use to resolved, which keeps nothing with a TTL of 0.
        answers = Answers(self._zone, self._directory, self._unavailable)
        questions = list(_questions(call.parameters["question"][:QUESTIONS_MAX]))
        given = [answer for question in questions if (answer := self._answer(answers, question)) is not None]
        if not given:
            return {}
        records = [record for answer in given for record in answer.answer]
        if all(answer.rcode == Rcode.NXDOMAIN for answer in given):
            return {"rcode": int(Rcode.NXDOMAIN)}
        return {"rcode": int(Rcode.NOERROR), "answer": [{"raw": _raw(record)} for record in records]}

    def _filter(self) -> dict[str, Any]:
        try:
            names = sorted(self._directory.names())
        except self._unavailable:
            return {"filterDomains": []}
        return {"filterDomains": [*names, self._zone.name.to_text(omit_final_dot=True)]}

    def _answer(self, answers: Answers, question: Question) -> Answer | None:
        """None: not ours. Each question is looked at by itself: one that is ours says nothing about the next."""
        rdtype = RdataType.make(question.rdtype)
        if answers.owns(question.name):
            answer = answers.answer(question.name, rdtype)
        else:
            answer = answers.answer_machine(question.name, rdtype)
        return answer if answer is not None and answer.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN) else None


def _questions(asked: Iterable[dict[str, Any]]) -> Iterable[Question]:
    """Those that could be answered: what is no name, or of another class than IN, is nobody's."""
    for question in asked:
        key = question["key"]
        if key["class"] != CLASS_IN or not 0 < key["type"] <= RDATA_TYPE_MAX:
            continue
        try:
            # As bytes: dnspython would make IDNA of a str, and that is another name, which is asked for beside it.
            name = dns.name.from_text(key["name"].encode())
        except (dns.exception.DNSException, ValueError):
            continue
        yield Question(name, key["type"])


def _raw(record: Record) -> str:
    return base64.b64encode(record_wire(record)).decode()
