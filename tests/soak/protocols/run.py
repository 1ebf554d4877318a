# SPDX-License-Identifier: MIT
"""python -m tests.soak.protocols.run INPUT SECONDS [blind|guided]: hostile bytes for one parser.

`guided` has atheris watch which lines the bytes reach and go on with those that reach new ones; `blind` changes the
samples at random. Ends with 0 and "RUNS runs in SECONDS s", or with what the parser should not have done.
"""

import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from tests.soak.mutant import PROJECT

LENGTH_MAX = 4096
"""Bytes of an input: several times the longest sample. What is longer repeats itself."""

INPUT_SECONDS = 2
"""Of the processor, for one input, which takes a millisecond: from there on the parser counts as hanging."""

MEMORY_MAX = 1024
"""MB; Python, the parsers and atheris's tables have some 150."""

PATIENCE = 120
"""Seconds beyond those asked for: starting, instrumenting what is imported, and ending."""


class Outcome(NamedTuple):
    runs: int
    seconds: float
    covered: int
    """Edges that were reached; 0 where nobody looked."""


class Found(Exception):
    """What the parser did that it must not do: the end of the log, with the traceback."""


def guidance() -> str:
    """Why there is none, else ''."""
    if find_spec("atheris") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return (f"atheris is not installed: `make soak` tries; PyPI has no wheel of it for every Python and machine "
                f"(this one is {version} on {sys.platform}). Inputs are tried blindly, without coverage")
    return ""


def run(name: str, seconds: float, guided: bool, folder: Path | None = None) -> Outcome:
    """Try one input in a process of its own; Found where it fails. `folder` has another copy of the project."""
    command = [sys.executable, "-m", "tests.soak.protocols.run", name, str(seconds), "guided" if guided else "blind"]
    # libFuzzer ends its process itself, so that what it leaves is removed here.
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(command, cwd=folder or PROJECT, capture_output=True, text=True, errors="replace",
                              timeout=seconds + PATIENCE, env={
                                  "PYTHONPATH": f"{folder or PROJECT}:{PROJECT}", "PATH": "/usr/bin:/bin", "HOME": "/",
                                  "TMPDIR": scratch})
    log = done.stdout + done.stderr
    told = re.search(r"(\d+) runs in (\d+(?:\.\d+)?) s", log)
    if done.returncode or told is None:
        raise Found(f"{name}: exit {done.returncode}\n{log[-4000:]}")
    covered = re.findall(r"cov: (\d+)", log)
    return Outcome(int(told[1]), float(told[2]), int(covered[-1]) if covered else 0)


def blind(name: str, seconds: float, seed: int = 1) -> None:
    from tests.soak.protocols.inputs import INPUTS

    def hangs(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"no end within {INPUT_SECONDS} s")

    read, samples, change = INPUTS[name]
    dice = random.Random(seed)
    signal.signal(signal.SIGPROF, hangs)
    runs, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        data = samples[runs] if runs < len(samples) else change(dice, dice.choice(samples))
        signal.setitimer(signal.ITIMER_PROF, INPUT_SECONDS)
        try:
            read(data)
        except BaseException:
            print(f"for {data!r}", file=sys.stderr)
            raise
        signal.setitimer(signal.ITIMER_PROF, 0)
        runs += 1
    print(f"{runs} runs in {time.monotonic() - began:.1f} s")


def guided(name: str, seconds: float) -> None:
    import atheris

    with atheris.instrument_imports(include=["resolver", "machine_images"]):
        from tests.soak.protocols.inputs import INPUTS

    read, samples, change = INPUTS[name]

    def mutate(data: bytes, length_max: int, seed: int) -> bytes:
        # Half by libFuzzer itself, half by what knows the format: so JSON stays JSON often enough.
        changed = change(random.Random(seed), data) if seed & 1 and data else data
        return bytes(atheris.Mutate(changed, length_max)) if not seed & 1 or seed & 6 == 0 else changed[:length_max]

    corpus = tempfile.mkdtemp()
    for number, sample in enumerate(samples):
        Path(corpus, str(number)).write_bytes(sample)
    atheris.Setup([name, corpus, f"-max_total_time={max(1, round(seconds))}", f"-max_len={LENGTH_MAX}",
                   "-len_control=0", f"-timeout={INPUT_SECONDS * 10}", f"-rss_limit_mb={MEMORY_MAX}",
                   f"-artifact_prefix={corpus}/"], read, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> None:
    name, seconds, how = sys.argv[1], float(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "blind"
    (guided if how == "guided" else blind)(name, seconds)


if __name__ == "__main__":
    main()
