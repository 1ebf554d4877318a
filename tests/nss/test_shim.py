# SPDX-License-Identifier: MIT
"""The shim as glibc meets it: its file, and its entry points in a private /run (inside.py has the scenarios)."""

import subprocess
from pathlib import Path

import pytest

from .conftest import Compile, RunInside, build


def output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def check_file(shim: Path) -> None:
    dynamic = output("readelf", "--dynamic", "--wide", shim)
    needed = [line for line in dynamic.splitlines() if "(NEEDED)" in line]
    assert len(needed) == 1
    assert "[libc.so.6]" in needed[0]
    assert "[libnss_mymachines.so.2]" in next(line for line in dynamic.splitlines() if "(SONAME)" in line)
    assert "PATH" not in dynamic  # RPATH, RUNPATH
    assert "TEXTREL" not in dynamic
    assert "NOW NODELETE" in dynamic
    segments = output("readelf", "--segments", "--wide", shim)
    assert "GNU_RELRO" in segments
    stack = next(line for line in segments.splitlines() if "GNU_STACK" in line)
    assert "RWE" not in stack
    exported = {line.split()[-1] for line in output("nm", "-D", "--defined-only", shim).splitlines()}
    names = ["gethostbyname", "gethostbyname2", "gethostbyname3", "gethostbyname4", "gethostbyaddr", "gethostbyaddr2"]
    names += ["getpwnam", "getpwuid", "getgrnam", "getgrgid"]
    assert exported == {f"_nss_mymachines_{name}_r" for name in names}


def test_it_needs_libc_alone_and_exports_its_entry_points_alone(shim: Path) -> None:
    check_file(shim)


def test_it_neither_allocates_nor_reads_the_environment(shim: Path) -> None:
    wanted = {line.split()[-1].partition("@")[0] for line in output("nm", "-D", "--undefined-only", shim).splitlines()}
    forbidden = {"malloc", "calloc", "realloc", "free", "strdup", "getenv", "secure_getenv", "signal", "sigaction"}
    assert wanted & (forbidden | {"printf", "syslog", "pthread_mutex_lock"}) == set()


def test_the_32_bit_one_as_well(needs_m32: None, tmp_path: Path) -> None:
    build("--m32", str(tmp_path))
    shim = tmp_path / "libnss_mymachines.so.2"
    assert "ELF32" in output("readelf", "--file-header", shim)
    check_file(shim)


@pytest.mark.parametrize(
    "scenario",
    [
        "statuses",
        "buffers",
        "full_machine",
        "forked",
        "not_roots",
        "asked",
        "wrong_replies",
        "mute",
        "backlog",
        "interrupted",
        "not_roots_daemon",
        "absent",
        "through_glibc",
    ],
)
def test_scenario(run_inside: RunInside, scenario: str) -> None:
    run_inside(scenario)


def test_a_look_up_stays_under_a_microsecond_with_many_machines_too(run_inside: RunInside, compile_c: Compile) -> None:
    program = compile_c("calls.c", sources=[])
    for machines in ("10", "3000"):
        for line in run_inside("timed", program, machines).splitlines():
            kind, nanoseconds = line.split()
            assert int(nanoseconds) < 10 * 1000, f"{kind} with {machines} machines: {line}"
