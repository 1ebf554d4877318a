# SPDX-License-Identifier: MIT
"""What the tests of nss_module/ run: the shim, C programs that drive its parts, and a private /run."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
READER_SOURCES = ["table.c", "slot.c", "view.c", "answer.c"]
C_FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", "-D_TIME_BITS=64", "-g", "-Wall", "-Wextra"]

Compile = Callable[..., Path]
RunInside = Callable[..., str]


def build(*arguments: str) -> None:
    subprocess.run([sys.executable, ROOT / "build_nss.py", *arguments], check=True, timeout=300)


def is_current(product: Path) -> bool:
    sources = (ROOT / "nss_module").iterdir()
    return product.exists() and all(source.stat().st_mtime <= product.stat().st_mtime for source in sources)


if not list((ROOT / "resolver").glob("_table*.so")):
    build()  # the test modules import it


@pytest.fixture(scope="session")
def shim() -> Path:
    """The shim, of the sources as they are now."""
    path = ROOT / "build" / "libnss_mymachines.so.2"
    if not is_current(path):
        build("--shim")
    return path


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """compile_c("reader.c", "-m32") compiles a program of this folder with the reader's sources."""

    def compile_one(source: str, *flags: str, sources: list[str] = READER_SOURCES) -> Path:
        target = tmp_path_factory.mktemp("c") / Path(source).stem
        files = [str(HERE / source), *(str(ROOT / "nss_module" / name) for name in sources)]
        include = f"-I{ROOT / 'nss_module'}"
        command = [*os.environ.get("CC", "cc").split(), *C_FLAGS, "-Werror", "-O2", include, *flags, *files]
        subprocess.run([*command, "-o", target, "-pthread", "-ldl"], check=True, timeout=300)
        return target

    return compile_one


@pytest.fixture(scope="session")
def needs_m32() -> None:
    if platform.machine() != "x86_64":
        pytest.skip(f"no 32-bit programs on {platform.machine()}")


@pytest.fixture
def run_inside(shim: Path) -> RunInside:
    """run_inside("scenario", ...) runs a scenario of inside.py in a mount namespace of its own; its output."""
    if os.geteuid() != 0:
        pytest.skip("a private /run needs root")

    def run(scenario: str, *arguments: str | Path, seconds: float = 60) -> str:
        command = ["unshare", "--mount", sys.executable, "-m", "tests.nss.inside", scenario, str(shim)]
        done = subprocess.run(
            [*command, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def needs_strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")


@pytest.fixture
def table_path(tmp_path: Path) -> Path:
    return tmp_path / "table-2"
