# SPDX-License-Identifier: MIT
"""Machines that come, go and change their addresses and maps, by way of a real daemon: calls over Varlink, addresses by
the kernel's events. Real containers lead them, two by turns for each name, with addresses and maps of their own."""

import contextlib
import random
import subprocess
import threading
import time
from typing import Any

from resolver.table.reader import TableReader, TableUnavailable
from resolver.varlink.client import Client
from resolver.varlink.errors import VarlinkError
from tests.lab import Container, TestHost, wait_for
from tests.soak.state import MACHINE, PATIENCE, Place
from tests.soak.truth import NOBODY, UNKNOWN_HOST, Answer, Life, Question, host_answer, id_answer, name_answer

NAMES = ["ant", "bee", "cat", "dog"]
LEADERS = 2
ADDRESS_SHARE = 10
"""One in so many changes is to an address inside. Nobody acknowledges it: it is over when it is seen."""

State = tuple[int, bool] | None
"""Which of its containers leads the machine, and whether that has its extra address; None: not registered."""


class Turn:
    """One machine: a thread that changes it, and its life."""

    def __init__(self, host: TestHost, place: Place, number: int, addresses: bool) -> None:
        self.name, self.life = NAMES[number], Life()
        self.containers = [host.container(f"{self.name}{leader}") for leader in range(LEADERS)]
        self.changes = 0
        self._addresses = addresses
        self._place = place
        self._random = random.Random(number)
        self._extra = [False] * LEADERS
        self._leader: int | None = None
        self._batches = [container.popen(["ip", "-batch", "-"], stdin=subprocess.PIPE) for container in self.containers]
        self._client: Client | None = None
        self.life.change(None, -1, -1)

    def extra_address(self, leader: int) -> str:
        return self.containers[leader].ipv4.rpartition(".")[0] + ".77"

    def run(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                if self._addresses and self._leader is not None and self._random.randrange(ADDRESS_SHARE) == 0:
                    self._change_addresses()
                else:
                    self._register_or_not()
                self.changes += 1
        finally:
            if self._client is not None:
                self._client.close()

    @property
    def state(self) -> State:
        return None if self._leader is None else (self._leader, self._extra[self._leader])

    def _register_or_not(self) -> None:
        before, after = self._leader, None
        begun = time.monotonic_ns()
        try:
            if before is not None:
                self._call("Unregister", name=self.name)
            else:
                after = self._random.randrange(LEADERS)
                self._call("Register", name=self.name, leader=self.containers[after].leader, **{"class": "container"})
        except OSError:
            # Killed meanwhile. It has happened, or not, when the next daemon is there.
            if self._found_leader() != after:
                return
        self._leader = after
        self.life.change(self.state, begun, time.monotonic_ns())

    def _change_addresses(self) -> None:
        leader = self._leader
        assert leader is not None
        address = self.extra_address(leader)
        pipe = self._batches[leader].stdin
        assert pipe is not None
        self._extra[leader] ^= True
        begun = time.monotonic_ns()
        pipe.write(f"address {'add' if self._extra[leader] else 'del'} {address}/24 dev host0\n".encode())
        pipe.flush()
        wait_for(lambda: self._shown(address) == self._extra[leader], PATIENCE, f"{address} of {self.name}")
        self.life.change(self.state, begun, time.monotonic_ns())

    def _shown(self, address: str) -> bool | None:
        """Whether look-ups give it; asked of whatever table is there now."""
        with contextlib.suppress(TableUnavailable):
            found = TableReader(self._place.table).host_by_name(self.name)
            return found is not None and any(".".join(map(str, each.packed)) == address for each in found[1])
        return None

    def _call(self, method: str, **parameters: Any) -> None:
        if self._client is None:
            self._client = Client(self._place.socket, PATIENCE)
        try:
            self._client.call(f"{MACHINE}.{method}", parameters)
        except OSError:
            self._client.close()
            self._client = None
            raise

    def _found_leader(self) -> int | None:
        def listed() -> dict[str, Any] | None:
            with contextlib.suppress(OSError):
                return self._place.listed()
            return None

        reply = wait_for(lambda: (found := listed()) is not None and (found,), 2 * PATIENCE, "the next daemon")
        machine = reply[0].get(self.name)  # type: ignore[index]
        pids = [container.leader for container in self.containers]
        return None if machine is None else pids.index(machine["leader"]["pid"])


class DaemonChurn:
    """All of them. `problem` is what a thread died of."""

    def __init__(self, host: TestHost, addresses: bool = True) -> None:
        """Without `addresses`, none changes: where there may be no table, that it has is not seen."""
        place = Place(host)
        self.turns = [Turn(host, place, number, addresses) for number in range(len(NAMES))]
        self.problem: BaseException | None = None
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(turn,)) for turn in self.turns]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self.problem is not None:
            raise self.problem

    @property
    def changes(self) -> int:
        return sum(turn.changes for turn in self.turns)

    def lives(self) -> list[Life]:
        return [turn.life for turn in self.turns]

    def questions(self) -> list[Question]:
        found = []
        for number, turn in enumerate(self.turns):
            keys = [("host", turn.name), ("user", f"vu-{turn.name}-7"), ("group", f"vg-{turn.name}-7")]
            for leader, container in enumerate(turn.containers):
                keys += [("address", container.ipv4), ("address", turn.extra_address(leader)),
                         ("uid", str(container.host_uid(7))), ("gid", str(container.host_gid(7)))]
            found += [Question(kind, key, number) for kind, key in keys]
        return found

    def expected(self, question: Question, state: Any) -> Answer:
        """The right answer while the machine is in this state."""
        turn = self.turns[question.machine]
        unknown = UNKNOWN_HOST if question.kind in ("host", "address") else NOBODY
        if state is None:
            return unknown
        leader, extra = state
        container = turn.containers[leader]
        return {"host": self._host, "address": self._address, "uid": self._id, "user": self._id, "gid": self._id,
                "group": self._id}[question.kind](question, turn, container, leader, extra) or unknown

    @staticmethod
    def _host(_question: Question, turn: Turn, container: Container, leader: int, extra: bool) -> Answer:
        return host_answer(turn.name, container.plain_addresses + [turn.extra_address(leader)] * extra)

    @staticmethod
    def _address(question: Question, turn: Turn, container: Container, leader: int, extra: bool) -> Answer | None:
        own = question.key == container.ipv4 or (extra and question.key == turn.extra_address(leader))
        return name_answer(turn.name) if own else None

    @staticmethod
    def _id(question: Question, turn: Turn, container: Container, _leader: int, _extra: bool) -> Answer | None:
        user = question.kind in ("uid", "user")
        number = container.host_uid(7) if user else container.host_gid(7)
        if question.key.isdigit() and int(question.key) != number:
            return None
        name, gecos = (f"vu-{turn.name}-7", f"UID 7 of Container {turn.name}") if user else (f"vg-{turn.name}-7", "")
        return id_answer(name, gecos, number)

    def _run(self, turn: Turn) -> None:
        try:
            turn.run(self._stop)
        except (AssertionError, VarlinkError, OSError, ValueError) as problem:
            self.problem = problem
            self._stop.set()
