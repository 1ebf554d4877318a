# SPDX-License-Identifier: MIT
"""Compile the shim for fuzzing: every file with coverage and sanitizers, its system calls turned to world.c."""

import subprocess
from pathlib import Path

from build_nss import C_FOLDER, MACROS, ROOT, SHIM_SOURCES
from tests.fuzz.shim.controls import Control

HERE = Path(__file__).resolve().parent
TARGETS = ("table", "reply")

WITHIN_INSIDE = ("look_up.c", "ask.c")
"""Files that inside.c includes, to see their state."""

SANITIZERS = "address,undefined"
FLAGS = [
    "-std=gnu11", "-g", "-O1", "-Wall", "-Wextra",  # no -Werror: a newer clang knows more warnings
    *(f"-D{name}={value}" for name, value in MACROS),
    f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer",
    f"-I{HERE}",
]  # fmt: skip
INSIDE = ["-DINSIDE", "-include", str(HERE / "world.h"), "-fsanitize=fuzzer-no-link"]
BESIDE = ["world.c", "judge.c", "calls.c", "mutate.c"]


class Builder:
    """Objects of the shim as it is, and programs linked of them. `folder` is the caller's to remove."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources = ROOT / C_FOLDER
        jobs = [self._start(HERE / name, []) for name in BESIDE]
        jobs += [self._start(HERE / f"{kind}{target}.c", []) for target in TARGETS for kind in ("fuzz_", "mutate_")]
        jobs += [self._start(self._source(name), INSIDE) for name in self._inside()]
        for job in jobs:
            self._finish(job)

    @staticmethod
    def _inside() -> list[str]:
        return [*(name for name in SHIM_SOURCES if name not in WITHIN_INSIDE), "inside.c"]

    def _source(self, name: str) -> Path:
        return HERE / name if name == "inside.c" else self.sources / name

    def _start(self, source: Path, flags: list[str], target: Path | None = None, *first: Path) -> subprocess.Popen[str]:
        target = target or self.folder / f"{source.stem}.o"
        include = [f"-I{path}" for path in (*first, self.sources)]
        command = ["clang", *FLAGS, *include, *flags, "-c", str(source), "-o", str(target)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    @staticmethod
    def _finish(job: subprocess.Popen[str]) -> None:
        _, errors = job.communicate(timeout=300)
        if job.returncode != 0:
            raise RuntimeError(f"clang: {errors}")

    def link(self, target: str, control: Control | None = None) -> Path:
        """The fuzzer of a target; with a control, one whose shim lacks a check."""
        name = target if control is None else f"{target}-{control.name}"
        units = [*BESIDE, f"fuzz_{target}.c", f"mutate_{target}.c", *self._inside()]
        objects = {unit: self.folder / f"{Path(unit).stem}.o" for unit in units}
        if control is not None:
            # inside.c includes its files by name: the changed one is found first.
            changed = self.folder / name
            changed.mkdir()
            (changed / control.file).write_text(control.apply((self.sources / control.file).read_text()))
            unit = "inside.c" if control.file in WITHIN_INSIDE else control.file
            source = HERE / unit if unit == "inside.c" else changed / unit
            objects[unit] = changed / "changed.o"
            # Without the check, the compiler may well see what is wrong: -w.
            self._finish(self._start(source, [*INSIDE, "-w"], objects[unit], changed))
        program = self.folder / f"fuzz-{name}"
        subprocess.run(
            ["clang", f"-fsanitize=fuzzer,{SANITIZERS}", *map(str, objects.values()), "-o", program],
            check=True, timeout=300,
        )  # fmt: skip
        return program
