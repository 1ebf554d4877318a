# SPDX-License-Identifier: MIT
"""What the process around the shim does, and what is done to it: around.c, in a private /run with a table."""

import signal
from pathlib import Path

import pytest

from build_nss import SHIM_SOURCES

from .conftest import Compile, RunInside


@pytest.fixture(scope="module")
def around(compile_c: Compile, shim: Path) -> Path:
    return compile_c("around.c", "-Wl,--no-as-needed", str(shim), f"-Wl,-rpath,{shim.parent}", sources=[])


def end(run_inside: RunInside, around: Path, case: str) -> int:
    """How the case ended: 0, a status of around.c's, or minus a signal."""
    return int(run_inside("around", around, case))


@pytest.mark.parametrize(
    "case",
    [
        "malloc",
        "address_space",
        "small_stack",
        "closed",
        "no_descriptors",
        "fork",
        "signals",
        "signals_while_asking",
        "seccomp",
        "seccomp_allows_lstat",
        "seccomp_errors",
        "chroot",
        "chroot_later",
        "cut_while_idle",
        "cut_by_others",
    ],
)
def test_look_ups_go_on(run_inside: RunInside, around: Path, case: str) -> None:
    assert end(run_inside, around, case) == 0


def test_a_filter_that_kills_must_allow_one_lstat_a_second(run_inside: RunInside, around: Path) -> None:
    assert end(run_inside, around, "seccomp_kills_lstat") == -signal.SIGSYS


def test_a_file_that_root_cuts_short_kills_who_reads_on(run_inside: RunInside, around: Path) -> None:
    """Not a promise: what docs/reliability.md says that nobody can prevent."""
    assert end(run_inside, around, "cut") == -signal.SIGBUS


@pytest.mark.parametrize("case", ["threads", "fork"])
def test_no_thread_sees_what_another_has_half_done(run_inside: RunInside, compile_c: Compile, case: str) -> None:
    # The sanitizer does not know fences. Ours are against writes of another process, which it does not see either.
    flags = ["-fsanitize=thread", "-Wno-tsan", "-Dmmap=unseen_mmap", "-U_FILE_OFFSET_BITS", "-U_TIME_BITS"]
    program = compile_c("around.c", *flags, sources=SHIM_SOURCES)
    assert end(run_inside, program, case) == 0
