# SPDX-License-Identifier: MIT
"""The rules that tests/conftest.py enforces on all tests, and the demo."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import PROJECT

SKIPPING = """
import pytest
from tests.lab import Unavailable
@pytest.mark.skipif(True, reason={reason!r})
def test_marked() -> None: ...
def test_lab_cannot() -> None:
    raise Unavailable({reason!r})
def test_passes() -> None: ...
"""


def run_pytest(path: Path, test: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A session of its own over one file, under the rules of tests/conftest.py."""
    file = path / "test_sample.py"
    file.write_text(test)
    argv = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", f"--rootdir={path}"]
    clean = {name: value for name, value in os.environ.items() if name != "CI"}
    return subprocess.run([*argv, "-c", os.devnull, str(file)], cwd=PROJECT, env=clean | env, text=True,
                          capture_output=True, timeout=60)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_skip_fails_in_ci_but_not_at_home(tmp_path: Path) -> None:
    test = SKIPPING.format(reason="no such package")
    home = run_pytest(tmp_path, test)
    assert home.returncode == 0, home.stdout
    assert "1 passed, 2 skipped" in home.stdout
    if Path("/etc/debian_version").exists():    # where `make test` installs what is missing
        ci = run_pytest(tmp_path, test, CI="true")
        assert ci.returncode == 1
        assert ci.stdout.count(": no such package\n") == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_reason_on_the_list_is_no_failure_in_ci(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, SKIPPING.format(reason="no 32-bit programs on aarch64"), CI="true")
    assert done.returncode == 0, done.stdout


def test_a_test_that_leaves_a_process_fails(tmp_path: Path) -> None:
    sample = (
        "import subprocess\n"
        "from tests.lab import leftovers\n"
        "leftovers.GRACE = 0.05\n"
        "def test_leaves() -> None:\n"
        "    subprocess.run(['sh', '-c', 'sleep 1003 >/dev/null 2>&1 &'])\n"
        "def test_clean() -> None: ...\n"
    )
    done = run_pytest(tmp_path, sample)
    assert done.returncode == 1
    assert "(sleep 1003)" in done.stdout
    assert "2 passed, 1 error" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_demo_shows_what_it_should() -> None:
    argv = [sys.executable, "-m", "tests.demo"]
    done = subprocess.run(argv, cwd=PROJECT, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("# All as it should be.\n")
