# SPDX-License-Identifier: MIT
"""No wrong answer while machines change and the writer is killed; tests/soak/consistency.py says how, at length.

And that it would be seen: shims with one check taken out, a forged answer.
"""

import shutil
import struct
from pathlib import Path

import pytest

import build_nss
from tests.endtoend.conftest import MakeHost
from tests.soak import churn
from tests.soak.consistency import SHIM, Scale, with_daemon, with_table_writer
from tests.soak.truth import HEAD_SIZE, RECORD, Life, Question, Verdict, check, host_answer, name_answer

SCALE = Scale(seconds=6, processes=8, threads=8)
CONTROL = Scale(seconds=3, processes=8, threads=8, looks=5000)

ROUNDS = 10

SLOW = ("slot.c", "    if (count > INET_AT_HAND)\n", "    usleep(2000);\n    if (count > INET_AT_HAND)\n")
"""A reader that is put off its processor in the middle of each copy of addresses, and not once in a long while."""

WITHOUT = {
    "the counters": [
        ("answer.c", "if (__atomic_load_n(&header->begun, __ATOMIC_RELAXED) - done < TABLE_SLOTS &&", "if ("), SLOW],
    "a look at the path": [("view.c", "if (check_is_due(view) || is_retired(map))", "if (false)")],
}
"""What is taken out of the shim: file, text, what takes its place."""


def changed_shim(edits: list[tuple[str, str, str]], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(build_nss.ROOT / build_nss.C_FOLDER, folder / build_nss.C_FOLDER)
    for name, text, instead in edits:
        source = folder / build_nss.C_FOLDER / name
        assert source.read_text().count(text) == 1
        source.write_text(source.read_text().replace(text, instead))
    monkeypatch.setattr(build_nss, "ROOT", folder)
    monkeypatch.setenv("CFLAGS", "-w -include unistd.h")
    return build_nss.build_shim(folder / "build")


def assert_right(verdict: Verdict) -> None:
    print(verdict)
    assert verdict.wrong == []
    assert verdict.idle_readers == 0
    assert verdict.found > verdict.look_ups / 20


def test_the_tables_writer_is_killed_each_second(make_host: MakeHost, tmp_path: Path) -> None:
    verdict, done = with_table_writer(make_host(), SCALE, 1000, tmp_path)
    print(done)
    assert_right(verdict)


def test_the_daemon_is_killed_each_second(make_host: MakeHost, tmp_path: Path) -> None:
    verdict, done = with_daemon(make_host(), SCALE, tmp_path)
    print(done)
    assert_right(verdict)


@pytest.mark.parametrize("what", WITHOUT)
def test_a_shim_without_a_check_is_caught(make_host: MakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          what: str) -> None:
    shim = changed_shim(WITHOUT[what], tmp_path, monkeypatch)
    host = make_host()
    for _ in range(ROUNDS):  # on a busy machine the writer may not get enough of it
        verdict, done = with_table_writer(host, CONTROL, 2000, tmp_path, shim)
        print(done, verdict)
        if verdict.wrong_count:
            return
    raise AssertionError("no wrong answer was seen")


def test_a_reader_that_is_put_off_in_each_look_up_tries_again(make_host: MakeHost, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """And with the counters in place is told nothing wrong, though at times nothing."""
    shim = changed_shim([SLOW], tmp_path, monkeypatch)
    verdict, done = with_table_writer(make_host(), CONTROL, 2000, tmp_path, shim, unavailable_allowed=True)
    print(done, verdict)
    assert_right(verdict)


def test_a_forged_answer_is_caught(make_host: MakeHost, tmp_path: Path) -> None:
    scale = Scale(seconds=1, processes=1, threads=1)
    host = make_host()
    verdict, _ = with_table_writer(host, scale, 100, tmp_path, SHIM)
    assert_right(verdict)
    log = tmp_path / "log"
    data = bytearray(log.read_bytes())
    start, took, cpu, question, status, checksum = RECORD.unpack_from(data, HEAD_SIZE)
    RECORD.pack_into(data, HEAD_SIZE, start, took, cpu, question, status, checksum ^ 1)
    log.write_bytes(data)
    lives = [Life() for _ in range(churn.MACHINES)]
    for life in lives:
        life.change(0, -1, -1)
    # Nothing is registered, so that whatever was found is wrong, and the forged one too.
    again = check(log, scale.readers, churn.questions(), lives, churn.expected)
    assert again.wrong_count == verdict.found + (status != 3)


QUESTION = Question("host", "web", 0)


def judged(folder: Path, start: int, took: int, version: int) -> int:
    """How many answers are wrong of one, `version` of a machine that was 1 until 100..110, and is 2 from then on."""
    life = Life()
    life.change(1, 0, 0)
    life.change(2, 100, 110)
    status, checksum = name_answer(str(version))
    log = folder / "log"
    head = struct.pack("=II", 0, 0) + struct.pack("=QIIQ", 0, 1, 0, 0)
    log.write_bytes(head.ljust(HEAD_SIZE, b"\0") + RECORD.pack(start, took, 0, 0, status, checksum))
    return check(log, 1, [QUESTION], [life], lambda _, state: name_answer(str(state))).wrong_count


@pytest.mark.parametrize(("start", "took", "version", "wrong"), [
    (50, 10, 1, 0), (50, 10, 2, 1), (95, 10, 1, 0), (95, 10, 2, 0), (105, 2, 1, 0), (105, 2, 2, 0), (111, 5, 2, 0),
    (111, 5, 1, 1), (90, 200, 1, 0), (90, 200, 2, 0), (90, 200, 3, 1), (90, 9, 2, 1), (90, 10, 2, 0)])
def test_what_was_true_at_some_moment_of_the_call_is_right(tmp_path: Path, start: int, took: int, version: int,
                                                           wrong: int) -> None:
    assert judged(tmp_path, start, took, version) == wrong


def test_an_answer_is_told_from_every_other() -> None:
    """Of two versions that follow each other, some answer differs; and each is right for itself."""
    for version in range(1, 60):
        for machine in range(churn.MACHINES):
            asked = [q for q in churn.questions()[:100] if q.machine == machine]
            if asked:
                before, after = ([churn.expected(q, v) for q in asked] for v in (version - 1, version))
                assert before != after
    assert host_answer("web", ["10.0.0.1"]) != host_answer("web", ["10.0.0.1", "10.0.0.1"])
