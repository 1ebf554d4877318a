# SPDX-License-Identifier: MIT
"""No wrong answer, no torn one, whatever the writer does: many readers, and a writer that is killed every second.

    python -m tests.soak.consistency [--writer table|daemon] [--seconds 60] [--processes 64] [--threads 64]
        [--rate 1000] [--looks 1000]

`table`: the real registry and TableWriter, driven directly, at the full rate of changes. `daemon`: the real daemon with
real containers, as fast as it goes. Readers are C programs that call the shim's entry points (readers.c) and write
down what they were told, when, and what it cost; truth.py compares that with what was true. A run that finds something
wrong ends with 1.

Processor time: a look-up is measured by its thread's clock, and beside it, at the same moment, as long a piece of
nothing. On a busy or virtual machine both clocks also count interrupts and what the hypervisor takes, so that a slow
look-up means something only if nothings are not slow as often.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import build_nss
from tests.lab import BUILD, TestHost, wait_for
from tests.lab.waiting import Lines
from tests.soak import churn
from tests.soak.churn import Churn
from tests.soak.daemon_churn import DaemonChurn
from tests.soak.state import Place
from tests.soak.truth import Question, Verdict, check

READY_SECONDS = 30.0
KILL_EACH_SECONDS = 1.0
SHIM = BUILD / build_nss.SHIM_NAME


@dataclass(frozen=True)
class Scale:
    """Readers, for how long, and how often each of them looks up in a second."""

    seconds: float = 60
    processes: int = 64
    threads: int = 64
    looks: int = 1000

    @property
    def readers(self) -> int:
        return self.processes + self.threads


def compile_readers(folder: Path) -> Path:
    program = folder / "readers"
    subprocess.run([*build_nss.compiler(), "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror",
                    str(Path(__file__).with_name("readers.c")), "-o", str(program), "-pthread", "-ldl"], check=True)
    return program


@contextlib.contextmanager
def reading(host: TestHost, scale: Scale, questions: Sequence[Question], program: Path,
            shim: Path = SHIM) -> Iterator[Path]:
    """Readers run on the host as long as the context. What they wrote is in the log then."""
    log, asked = program.with_name("log"), program.with_name("questions")
    log.unlink(missing_ok=True)
    asked.write_text("".join(f"{question.kind} {question.key}\n" for question in questions))
    records = int(scale.looks * scale.seconds)
    arguments = [shim, asked, log, scale.processes, scale.threads, records, scale.seconds]
    readers = host.popen([str(program), *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert readers.stdin is not None
    assert readers.stdout is not None
    assert Lines(readers).next(READY_SECONDS) == "ready"
    yield log
    readers.stdin.close()
    assert readers.wait(READY_SECONDS) == 0
    readers.stdout.close()


def kill_each_second(seconds: float, kill: Callable[[], None]) -> None:
    """The pause is the test's own measure, nothing is awaited."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(KILL_EACH_SECONDS)
        kill()


def with_table_writer(host: TestHost, scale: Scale, rate: float, folder: Path, shim: Path = SHIM,
                      unavailable_allowed: bool = False) -> tuple[Verdict, str]:
    """Changes through the TableWriter alone. The verdict, and what was done."""
    table = Path(Place(host).table)
    table.parent.mkdir(parents=True, exist_ok=True)
    program = compile_readers(folder)
    writer = Churn(table, rate, scale.seconds)
    writer.start()

    def kill() -> None:
        writer.kill()
        writer.start()

    wait_for(table.exists, READY_SECONDS, "the table")
    questions = churn.questions()
    with reading(host, scale, questions, program, shim) as log:
        began, first = time.monotonic(), len(writer.changes)
        kill_each_second(scale.seconds, kill)
        took = time.monotonic() - began
        changes = len(writer.changes) - first
    writer.kill()
    verdict = check(log, scale.readers, questions, writer.changes.lives(), churn.expected, unavailable_allowed)
    return verdict, (f"{changes / took:.0f} changes a second through the TableWriter for {took:.0f} s, killed "
                     f"{writer.deaths} times, the table grew to {table.stat().st_size >> 10} KiB")


def with_daemon(host: TestHost, scale: Scale, folder: Path, before: Callable[[], None] = lambda: None,
                in_the_middle: Callable[[], None] | None = None) -> tuple[Verdict, str]:
    """Changes through the real daemon. The verdict, and what was done.

    With something to be done in the middle, the daemon is not killed, and it is no wrong answer that nobody could be
    asked.
    """
    daemon = host.start_daemon()
    before()
    machines = DaemonChurn(host, addresses=in_the_middle is None)
    deaths = 0

    def kill() -> None:
        nonlocal daemon, deaths
        daemon.kill9()
        daemon.close()
        host.forget_daemon(daemon)
        deaths += 1
        daemon = host.start_daemon()

    questions = machines.questions()
    with reading(host, scale, questions, compile_readers(folder)) as log:
        machines.start()
        began = time.monotonic()
        try:
            if in_the_middle is None:
                kill_each_second(scale.seconds, kill)
            else:
                time.sleep(scale.seconds / 2)
                in_the_middle()
                time.sleep(scale.seconds / 2)
        finally:
            machines.stop()
        took = time.monotonic() - began
    verdict = check(log, scale.readers, questions, machines.lives(), machines.expected, in_the_middle is not None)
    return verdict, (f"{machines.changes / took:.0f} changes a second through the daemon for {took:.0f} s, killed "
                     f"{deaths} times")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.consistency")
    parser.add_argument("--writer", choices=["table", "daemon"], action="append")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, default=64)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1000, help="changes a second, of the table's writer")
    parser.add_argument("--looks", type=int, default=1000, help="look-ups a second, of each reader")
    options = parser.parse_args()
    scale = Scale(options.seconds, options.processes, options.threads, options.looks)
    wrong = 0
    for name in options.writer or ["table", "daemon"]:
        with tempfile.TemporaryDirectory(prefix="consistency-") as folder, TestHost() as host:
            if name == "table":
                verdict, done = with_table_writer(host, scale, options.rate, Path(folder))
            else:
                verdict, done = with_daemon(host, scale, Path(folder))
        print(f"{name}: {scale.processes} processes and {scale.threads} threads, {done}:\n  {verdict}", flush=True)
        print(*verdict.wrong, sep="\n")
        print(f"  load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
        wrong += verdict.wrong_count + verdict.idle_readers
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
