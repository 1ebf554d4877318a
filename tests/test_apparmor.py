# SPDX-License-Identifier: MIT
"""What is given to AppArmor, by its own parser: a profile with abstractions/nameservice has our part of it.

Nothing is loaded: most machines that run tests have no AppArmor in their kernel.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from system.install import APPARMOR_NAMESERVICE, Layout

PARSER = shutil.which("apparmor_parser", path="/usr/sbin:/sbin")
PROFILE = """\
abi <abi/3.0>,
include <tunables/global>
profile names /usr/bin/names {
  include <abstractions/nameservice>
}
"""
RULES = ("/usr/local/lib/libnss_mymachines.so.2 mr,", "@{run}/mymachines/table-[0-9]* r,",
         "@{run}/mymachines/nss.sock rw,")

pytestmark = pytest.mark.skipif(PARSER is None, reason="apparmor_parser is not installed")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """/etc/apparmor.d as it is after an installation."""
    theirs = Path(APPARMOR_NAMESERVICE).parents[1]
    for folder in ("abi", "abstractions", "tunables"):
        shutil.copytree(theirs / folder, tmp_path / theirs.relative_to("/") / folder)
    layout = Layout(Path("/usr/local"), Path("/usr/local/lib"), tmp_path)
    [(source, path)] = [(source, path) for source, path in layout.files() if source.name == "apparmor-nameservice"]
    target = layout.on_disk(path)
    target.parent.mkdir(exist_ok=True)
    target.write_text(source.read_text().replace("@LIBDIR@", str(layout.libdir)))
    (tmp_path / "profile").write_text(PROFILE)
    return tmp_path / theirs.relative_to("/")


def parse(base: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(PARSER), "--skip-kernel-load", "--skip-cache", f"--base={base}", *options,
                           str(base.parents[1] / "profile")], capture_output=True, text=True, timeout=60)


def test_a_profile_with_the_abstraction_has_our_rules(base: Path) -> None:
    compiled = parse(base)
    assert compiled.returncode == 0, compiled.stderr
    whole = parse(base, "--preprocess").stdout
    assert all(rule in whole for rule in RULES)


def test_the_parser_would_say_what_is_wrong(base: Path) -> None:
    ours = base / "abstractions/nameservice.d/mymachines"
    ours.write_text(ours.read_text().replace("nss.sock rw,", "nss.sock rw"))
    assert parse(base).returncode != 0
