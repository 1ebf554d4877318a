# SPDX-License-Identifier: MIT
"""`make dist`: an sdist that builds the extension where pip takes it, and is the whole project for who unpacks it."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import PROJECT, TestHost

DIST_SECONDS = 300      # takes ten, and more where pip fetches what builds
FOLDERS = ("nss_module", "system", "tests", "docs", "debian", "resolver", "machine_images")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture(scope="module")
def dist() -> Path:
    done = subprocess.run(["make", "--silent", "dist"], cwd=PROJECT, capture_output=True, text=True,
                          timeout=DIST_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return PROJECT / "build" / "dist"


def source_files() -> Iterator[str]:
    """As a checkout has them, whoever made it."""
    for folder in FOLDERS:
        for path in (PROJECT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in {".so", ".pyc"}:
                yield str(path.relative_to(PROJECT))
    yield from ("Makefile", "pyproject.toml", "setup.py", "build_nss.py", "README.md", "CHANGELOG.md", "LICENSE")


def test_the_sdist_is_whole(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert set(source_files()) - packed == set()
    assert {name for name in packed if name.endswith((".so", ".pyc"))} == set()


def test_the_wheel_has_the_extension(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert "resolver/_table.abi3.so" in names
    assert "resolver/varlink/io.systemd.Machine.varlink" in names
    assert {name.partition("/")[0] for name in names if not name.startswith("mymachines-")} == {
        "resolver", "machine_images"}


def test_the_sdist_installs_by_pip_and_reads_a_table(dist: Path, host: TestHost, tmp_path: Path) -> None:
    """Into a venv of its own, as a user does; the table is that of the daemon that the sdist brings."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True, timeout=DIST_SECONDS)
    done = subprocess.run([venv / "bin/pip", "install", "--quiet", next(dist.glob("*.tar.gz"))], capture_output=True,
                          text=True, timeout=DIST_SECONDS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ctl = venv / "bin/mymachinesctl"
    shown = subprocess.run([ctl, "--version"], capture_output=True, text=True, timeout=DIST_SECONDS, cwd=tmp_path)
    assert shown.stdout.startswith("mymachinesctl ")
    host.start_daemon()
    web = host.container("web")
    host.run([ctl, "register", "web", "--leader", str(web.leader)], cwd=tmp_path)
    assert host.run([ctl, "user", "vu-web-1000"], cwd=tmp_path).stdout != ""
    program = ("import resolver; from resolver.table.reader import TableReader;"
               " print(resolver.__file__, TableReader().user_by_name('vu-web-1000'))")
    found = host.run([venv / "bin/python", "-I", "-c", program], cwd=tmp_path).stdout
    assert found.startswith(str(venv))
    assert "None" not in found
