# SPDX-License-Identifier: MIT
"""Machines that come, go and change, in the real registry and through the real TableWriter, at a rate.

Version v of a machine is a function of v, so that what is true can be told from a list of (machine, version, begun,
ended), which lies in shared memory and outlives the writer: it is killed with SIGKILL, whenever, and its successor
begins where it was. A change that was begun is made by the successor, as the daemon makes it whose state file is there.
"""

import contextlib
import mmap
import os
import random
import signal
import socket
import struct
import time
import traceback
from functools import lru_cache
from pathlib import Path

from resolver.core.addresses import AF_INET, AF_INET6
from resolver.core.idmap import Extent, IdMap
from resolver.core.machine import ChosenAddress, Machine, MachineClass, ProcessId
from resolver.core.registry import Change, Registry
from resolver.core.users import IdAnswer
from resolver.table.writer import TableWriter
from tests.soak.truth import NOBODY, UNKNOWN_HOST, Answer, Life, Question, host_answer, id_answer, name_answer

MACHINES = 24
FILLERS_MAX = 600
"""Machines that only make the table grow, one in FILLER_SHARE changes: files are replaced four times."""
FILLER_SHARE = 10

ABSENT_EACH = 7
"""Each seventh version of a machine is none."""

PRIORITY = -10
"""Of the writer: a hundred readers on two processors would leave it too little for the rate."""

SPARE_SECONDS = 60
"""Of changes that there is room for: before all readers run, and at the end."""

FIRST_ID, IDS_EACH = 1 << 24, 1 << 17
ENTRY = struct.Struct("=IIQQ")  # machine, version, begun, ended
HEAD = struct.Struct("=II")  # entries, fillers


def name_of(machine: int) -> str:
    """Every fourth one has users by a short label."""
    return f"m{machine}.example" if machine % 4 == 3 else f"m{machine}"


def addresses_of(machine: int, version: int) -> list[str]:
    """The first one of four; then up to twelve that no other version has."""
    own = [f"fd00::{machine + 1:x}:{version:x}:{number + 1:x}" for number in range((version * 5 + machine) % 12)]
    return [f"10.77.{machine}.{1 + version % 4}", *own]


def map_of(machine: int, version: int) -> IdMap:
    """It changes with every second version only; inside, the ids of the first extent come again and again."""
    phase, first = version // 2, FIRST_ID + machine * IDS_EACH
    return IdMap((Extent(1000 * (phase % 4), first, 1000), Extent(100000 + phase, first + 40000, 10)))


def machine_of(machine: int, version: int) -> Machine | None:
    if version % ABSENT_EACH == 0:
        return None
    chosen = tuple(ChosenAddress(AF_INET6 if ":" in text else AF_INET, packed(text))
                   for text in addresses_of(machine, version))
    ids = map_of(machine, version)
    return Machine(name_of(machine), MachineClass.CONTAINER, ProcessId(machine + 2), chosen=chosen, uid_map=ids,
                   gid_map=ids)


def packed(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def filler(number: int) -> Machine:
    return Machine(f"filler{number}", MachineClass.CONTAINER, ProcessId(1000 + number))


def questions() -> list[Question]:
    found = []
    for machine in range(MACHINES):
        first = FIRST_ID + machine * IDS_EACH
        registry = _alone(machine, 1)
        prefix = _answer(registry.user_by_id(first)).name.rpartition("-")[0].removeprefix("vu-")
        found += [Question("host", name_of(machine), machine)] * 3
        found += [Question("address", f"10.77.{machine}.{number}", machine) for number in range(1, 5)]
        found += [Question(kind, str(first + offset), machine) for kind in ("uid", "gid") for offset in (7, 40003)]
        found += [Question("user", f"vu-{prefix}-{1000 * number + 7}", machine) for number in range(4)]
        found.append(Question("group", f"vg-{prefix}-1007", machine))
    return found


def _alone(machine: int, version: int) -> Registry:
    """The registry is the oracle of names of users; the table's code has no part in it."""
    return _with_phase(machine, version // 2)


@lru_cache(maxsize=1024)
def _with_phase(machine: int, phase: int) -> Registry:
    registry, ids = Registry(), map_of(machine, 2 * phase)
    registry.add(Machine(name_of(machine), MachineClass.CONTAINER, ProcessId(2), uid_map=ids, gid_map=ids))
    return registry


def _answer(answer: IdAnswer | None) -> IdAnswer:
    assert answer is not None
    return answer


def expected(question: Question, version: object) -> Answer:
    """The right answer while the machine is in this version."""
    assert isinstance(version, int)
    machine, absent = question.machine, version % ABSENT_EACH == 0
    match question.kind:
        case "host":
            return UNKNOWN_HOST if absent else host_answer(name_of(machine), addresses_of(machine, version))
        case "address":
            right = not absent and question.key == addresses_of(machine, version)[0]
            return name_answer(name_of(machine)) if right else UNKNOWN_HOST
    if absent:
        return NOBODY
    registry = _alone(machine, version)
    answer = {"uid": lambda: registry.user_by_id(int(question.key)),
              "gid": lambda: registry.group_by_id(int(question.key)),
              "user": lambda: registry.user_by_name(question.key),
              "group": lambda: registry.group_by_name(question.key)}[question.kind]()
    if answer is None:
        return NOBODY
    user = question.kind in ("uid", "user")
    gecos = f"UID {answer.inside_id} of Container {answer.machine}" if user else ""
    return id_answer(answer.name, gecos, answer.host_id)


class Changes:
    """The shared list of what was changed."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._memory = mmap.mmap(-1, HEAD.size + maximum * ENTRY.size)

    def __len__(self) -> int:
        return int(HEAD.unpack_from(self._memory)[0])

    @property
    def fillers(self) -> int:
        return int(HEAD.unpack_from(self._memory)[1])

    def begin(self, machine: int, version: int) -> None:
        count, fillers = HEAD.unpack_from(self._memory)
        if count == self._maximum:
            raise OverflowError("more changes than there is room for")
        ENTRY.pack_into(self._memory, HEAD.size + count * ENTRY.size, machine, version, time.monotonic_ns(), 0)
        HEAD.pack_into(self._memory, 0, count + 1, fillers)

    def end(self) -> None:
        at = HEAD.size + (len(self) - 1) * ENTRY.size
        machine, version, begun, _ = ENTRY.unpack_from(self._memory, at)
        ENTRY.pack_into(self._memory, at, machine, version, begun, time.monotonic_ns())

    def add_filler(self) -> None:
        HEAD.pack_into(self._memory, 0, len(self), self.fillers + 1)

    def entries(self) -> list[tuple[int, int, int, int]]:
        return [ENTRY.unpack_from(self._memory, HEAD.size + number * ENTRY.size) for number in range(len(self))]

    def versions(self) -> list[int]:
        versions = [0] * MACHINES
        for machine, version, _, _ in self.entries():
            versions[machine] = version
        return versions

    def lives(self) -> list[Life]:
        lives = [Life() for _ in range(MACHINES)]
        for life in lives:
            life.change(0, -1, -1)
        for machine, version, begun, ended in self.entries():
            lives[machine].change(version, begun, ended or float("inf"))
        return lives


class Churn:
    """A writer in a child of this process, which can be killed and started again."""

    def __init__(self, table: Path, rate: float, seconds: float) -> None:
        self._table, self._rate = table, rate
        self.changes = Changes(int(rate * (seconds + SPARE_SECONDS)))
        self.deaths = 0
        self._child = 0

    def start(self) -> None:
        self._child = os.fork()
        if self._child == 0:
            try:
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # the pipes of readers, which wait for their end
                with contextlib.suppress(PermissionError):
                    os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
                self._write()
            except BaseException:  # noqa: BLE001 - the child ends here, whatever happens
                traceback.print_exc()
            os._exit(1)

    def kill(self) -> None:
        os.kill(self._child, signal.SIGKILL)
        status = os.waitpid(self._child, 0)[1]
        assert status == signal.SIGKILL, f"the writer ended with {status:#x}"
        self.deaths += 1

    def _write(self) -> None:
        changes, registry = self.changes, Registry()
        versions = changes.versions()
        for machine, version in enumerate(versions):
            found = machine_of(machine, version)
            if found is not None:
                registry.add(found)
        for number in range(changes.fillers):
            registry.add(filler(number))
        writer = TableWriter(str(self._table), registry)
        writer.reset()
        entries = changes.entries()
        if entries and entries[-1][3] == 0:
            changes.end()
        choose = random.Random(time.monotonic_ns())
        next_at = time.monotonic()
        while True:
            if changes.fillers < FILLERS_MAX and choose.randrange(FILLER_SHARE) == 0:
                changes.add_filler()
                writer.publish(registry.add(filler(changes.fillers - 1)))
            machine = choose.randrange(MACHINES)
            versions[machine] += 1
            changes.begin(machine, versions[machine])
            writer.publish(self._change(registry, machine, versions[machine]))
            changes.end()
            next_at += 1 / self._rate
            time.sleep(max(0.0, next_at - time.monotonic()))

    @staticmethod
    def _change(registry: Registry, machine: int, version: int) -> list[Change]:
        before, after = machine_of(machine, version - 1), machine_of(machine, version)
        if before is None:
            assert after is not None
            return registry.add(after)
        return registry.remove(before.name) if after is None else registry.update(after)
