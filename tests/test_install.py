# SPDX-License-Identifier: MIT
"""make install and make uninstall into a folder, as a packager calls them. tests/host has the real thing."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lab import PROJECT

INSTALL_SECONDS = 300   # takes two, and some more where wheels are fetched first

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "--silent", *words], cwd=PROJECT, capture_output=True, text=True,
                          timeout=INSTALL_SECONDS)


def files(folder: Path) -> set[str]:
    return {f"/{path.relative_to(folder)}" for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def outside_the_venv(folder: Path, home: str) -> set[str]:
    return {path for path in files(folder) if not path.startswith(f"{home}/")}


@pytest.mark.parametrize(("prefix", "units"), [("/usr/local", "/usr/local/lib/systemd/system"),
                                               ("/usr", "/usr/lib/systemd/system"), ("/opt/x", "/etc/systemd/system")])
def test_install_puts_files_and_uninstall_takes_them(tmp_path: Path, prefix: str, units: str) -> None:
    words = [f"DESTDIR={tmp_path}", f"PREFIX={prefix}"]
    for _ in range(2):      # the second time over the first
        done = make("install", *words)
        assert done.returncode == 0, done.stdout + done.stderr
    home = f"{prefix}/lib/mymachines"
    put = outside_the_venv(tmp_path, home)
    assert {path for path in put if "/share/doc/" not in path} == {
        f"{prefix}/lib/libnss_mymachines.so.2", f"{prefix}/bin/mymachinesctl", f"{prefix}/sbin/mymachinesd",
        f"{prefix}/sbin/mymachines-userdb", f"{units}/mymachinesd.service", f"{units}/mymachines-userdb.service",
        f"{prefix}/sbin/mymachines-dns", f"{prefix}/sbin/mymachines-resolve-hook",
        f"{prefix}/sbin/mymachines-dns-publish", f"{prefix}/sbin/mymachines-metrics",
        f"{units}/mymachines-metrics.service", f"{units}/mymachines-dns.service",
        f"{units}/mymachines-dns-publish.service", f"{units}/mymachines-resolve-hook.service",
        f"{prefix}/share/bash-completion/completions/mymachinesctl",
        f"{prefix}/share/fish/vendor_completions.d/mymachinesctl.fish",
        next(path for path in put if re.fullmatch(f"{prefix}/share/zsh/[a-z-]+/_mymachinesctl", path)),
        f"{units}/mymachines-retire.service", f"{units}/mymachines-take-over.service",
        f"{units}/dbus-org.freedesktop.machine1.service.d/mymachines.conf",
        "/usr/share/dbus-1/system.d/mymachines.conf", "/usr/share/polkit-1/actions/mymachines.policy",
        "/etc/apparmor.d/abstractions/nameservice.d/mymachines",
        *(f"{prefix}/share/man/{page}"
          for page in ("man1/mymachinesctl.1", "man8/mymachinesd.8", "man8/nss_mymachines.8")),
        *([] if prefix == "/usr" else ["/usr/local/share/dbus-1/system-services/org.freedesktop.machine1.service"])}
    unit = (tmp_path / units.lstrip("/") / "mymachinesd.service").read_text()
    assert f"ExecStart={home}/bin/mymachinesd --no-userdb" in unit
    assert re.search(r"@[A-Z]+@", unit) is None
    confined = (tmp_path / "etc/apparmor.d/abstractions/nameservice.d/mymachines").read_text()
    assert f"  {prefix}/lib/libnss_mymachines.so.2 mr,\n" in confined
    assert (tmp_path / home.lstrip("/") / "bin/mymachinesd").read_text().startswith(f"#!{home}/bin/python3 -I\n")
    assert os.readlink(tmp_path / prefix.lstrip("/") / "bin/mymachinesctl") == "../lib/mymachines/bin/mymachinesctl"
    for path in files(tmp_path):
        whole = tmp_path / path.lstrip("/")
        if not whole.is_symlink():
            assert str(tmp_path).encode() not in whole.read_bytes(), f"{path} names DESTDIR"
            assert whole.stat().st_mode & 0o022 == 0, f"{path} can be written by others"
    done = make("uninstall", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert files(tmp_path) == set()


def test_what_was_installed_runs(tmp_path: Path) -> None:
    """From where it is not meant to be, by its interpreter: it needs nothing of the checkout."""
    make("install", f"DESTDIR={tmp_path}")
    python = tmp_path / "usr/local/lib/mymachines/bin/python3"
    done = subprocess.run([python, "-I", "-m", "resolver.daemon", "--version"], cwd="/", capture_output=True, text=True,
                          timeout=60)
    assert done.stdout.startswith("mymachinesd "), done.stderr


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "usr/local/lib/libnss_mymachines.so.2"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("another package's")
    done = make("install", f"DESTDIR={tmp_path}")
    assert done.returncode != 0
    assert "/usr/local/lib/libnss_mymachines.so.2 is there already" in done.stderr
    assert files(tmp_path) == {"/usr/local/lib/libnss_mymachines.so.2"}
    assert theirs.read_text() == "another package's"
    assert make("uninstall", f"DESTDIR={tmp_path}").returncode != 0
    assert files(tmp_path) == {"/usr/local/lib/libnss_mymachines.so.2"}
