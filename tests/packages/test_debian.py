# SPDX-License-Identifier: MIT
"""`make deb` on this machine, where that is Debian 12 or 13. tests/host installs what it makes, on Debian 13."""

import os
import platform
import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from system.deb import STANDARDS_VERSIONS, changelog_version
from tests.lab import PROJECT

BUILD_SECONDS = 400     # takes thirty, and more where Debian's tools or Python's packages are fetched first
READ_SECONDS = 30
INSTALL_SECONDS = 120   # takes five

THEIR_PACKAGES = ("systemd-container", "libnss-systemd", "polkitd", "dbus-system-bus-common")
SHIM = re.compile(r"(?:/usr)?/lib/[^/]+-linux-gnu[^/]*/libnss_mymachines\.so\.2")
"""The one file that is Debian's libnss-mymachines' too."""

Packages = Mapping[str, Path]


def test_versions_are_one() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert changelog_version() == project["version"]


@pytest.fixture(scope="module")
def packages() -> Packages:
    """What `make deb` made, by package. It fails where lintian finds an error or a warning."""
    if not Path("/etc/debian_version").exists() or \
            platform.freedesktop_os_release().get("VERSION_ID") not in STANDARDS_VERSIONS:
        pytest.skip("packages are made on Debian 12 and 13")
    if os.geteuid() != 0 and shutil.which("lintian") is None:
        pytest.skip("lintian is not installed, and only root may install it")
    done = subprocess.run(["make", "--silent", "deb"], cwd=PROJECT, capture_output=True, text=True,
                          timeout=BUILD_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    made = [Path(line) for line in done.stdout.splitlines() if line.endswith(".deb") and "-dbgsym_" not in line]
    assert re.findall(r"(?m)^[EWO]: .*", done.stdout + done.stderr) == []
    return {path.name.partition("_")[0]: path for path in made}


def dpkg_deb(*words: str | Path) -> str:
    return subprocess.run(["dpkg-deb", *words], capture_output=True, text=True, check=True, timeout=READ_SECONDS).stdout


def files(package: Path) -> set[str]:
    return {line.split(maxsplit=5)[5].split(" -> ")[0].removeprefix(".")
            for line in dpkg_deb("--contents", package).splitlines() if not line.startswith("d")}


def test_two_packages_share_no_file(packages: Packages) -> None:
    assert set(packages) == {"mymachines", "libnss-mymachines-table"}
    daemon, shim = files(packages["mymachines"]), files(packages["libnss-mymachines-table"])
    assert daemon & shim == set()
    assert [path for path in shim if SHIM.fullmatch(path)] != []
    assert [path for path in daemon if path.endswith("libnss_mymachines.so.2")] == []


def test_they_hold_what_make_install_puts(packages: Packages, tmp_path: Path) -> None:
    subprocess.run(["make", "--silent", "install", f"DESTDIR={tmp_path}", "PREFIX=/usr"], cwd=PROJECT, check=True,
                   capture_output=True, timeout=BUILD_SECONDS)
    put = {f"/{path.relative_to(tmp_path)}" for path in tmp_path.rglob("*") if path.is_symlink() or path.is_file()}
    packed = files(packages["mymachines"])
    missing = {path for path in put - packed if not path.startswith("/usr/lib/mymachines/")}
    assert {path for path in missing if f"{path}.gz" not in packed} == {"/usr/lib/libnss_mymachines.so.2"}
    ours = re.compile(r"/usr/lib/mymachines/(lib/[^/]+/site-packages/(?:resolver|machine_images)/.*\.(?:py|varlink)|"
                      r"bin/mymachines.*)")
    for each in (put, packed):
        assert any(ours.fullmatch(path) for path in each)
    assert {path for path in put if ours.fullmatch(path)} == {path for path in packed if ours.fullmatch(path)}


def test_no_file_is_anothers(packages: Packages) -> None:
    theirs: set[str] = set()
    for name in THEIR_PACKAGES:
        listed = subprocess.run(["dpkg", "-L", name], capture_output=True, text=True, timeout=READ_SECONDS)
        theirs.update(path for path in listed.stdout.splitlines() if not Path(path).is_dir())
    assert theirs, "none of them is installed: this test sees nothing"
    for package in packages.values():
        assert files(package) & theirs == set()


def test_they_conflict_with_debians_module_alone(packages: Packages) -> None:
    for package in packages.values():
        names = ("Conflicts", "Replaces", "Provides", "Breaks")
        fields = [dpkg_deb("--field", package, name).strip() for name in names]
        ours = package.name.startswith("libnss-")
        assert fields == [*(["libnss-mymachines"] * 3 if ours else [""] * 3), ""]


def test_what_is_bundled_has_its_licence_told(packages: Packages, tmp_path: Path) -> None:
    """And nothing else is compiled or compiles but our extension: no Python but its own minds what is bundled."""
    dpkg_deb("--extract", packages["mymachines"], tmp_path)
    modules = next(tmp_path.glob("usr/lib/mymachines/lib/python3*/site-packages"))
    assert [path.name for path in modules.rglob("*.so")] == ["_table.abi3.so"]
    assert list(modules.rglob("*.pyc")) == []
    bundled = {path.name for path in modules.iterdir()} - {"resolver", "machine_images", "distribution.pth"}
    told = re.findall(r"(?m)^Files: (debian/bundled/.*)$",
                      (tmp_path / "usr/share/doc/mymachines/copyright").read_text())
    patterns = [pattern.removeprefix("debian/bundled/").rstrip("/*") for line in told for pattern in line.split()]
    assert "dbus_fast" in bundled
    for name in bundled:
        assert any(name == pattern or name.startswith(f"{pattern}-") for pattern in patterns), f"{name}: whose is it?"


WORLD = """set -e
    world=$1; shift
    mount -t tmpfs tmpfs $world; cd $world; mkdir upper work root
    mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
    mkdir -p root/packages; cp "$@" root/packages
    mount -t proc proc root/proc; mount --rbind /dev root/dev
    printf '%s' "$NSSWITCH" >root/etc/nsswitch.conf
    chroot root sh -e
    echo ====; find upper ! -type d -printf '/%P\\n'"""
"""This machine's files, to do with as one likes: what is changed is in memory, and gone with the last process. systemd
does not run there, so nothing is started."""

INSTALL = """apt() { apt-get -qq --yes --no-install-recommends -o Dpkg::Use-Pty=0 "$@" >/var/log/apt-told 2>&1 ||
        { cat /var/log/apt-told; exit 1; } }
    if dpkg --status libnss-mymachines >/dev/null 2>&1; then apt purge libnss-mymachines; fi
    apt install /packages/*.deb
    cat /etc/nsswitch.conf; echo; echo ====
    for name in $(cd /usr/lib/mymachines/bin && ls | grep mymachines); do $name --version; done; echo ====
    cd /tmp; PYTHONPATH=/nowhere /usr/lib/mymachines/bin/python3 -I -c 'import sys; print(*sys.path, sep=chr(10))'
    echo ====
    readlink /etc/systemd/system/systemd-machined.service /etc/systemd/system/dbus-org.freedesktop.machine1.service
    ls /etc/systemd/system/*.wants | grep mymachines; echo ====
    LD_DEBUG=files getent passwd vu-no-1 2>&1 | grep -o '/.*libnss_mymachines.so.2' | sort -u; echo ====
    apt purge mymachines libnss-mymachines-table
    cat /etc/nsswitch.conf; echo"""
CHANGED_BY_APT = ("/packages/", "/tmp/", "/var/cache/", "/var/lib/apt/", "/var/lib/dpkg/", "/var/log/",
                  "/etc/ld.so.cache")
NSSWITCH = "passwd: files systemd # ours\nhosts: files resolve [!UNAVAIL=return] dns\n# end"


def test_installed_and_purged_on_this_debian(packages: Packages, tmp_path: Path) -> None:
    """By apt, in a copy of this machine's files. tests/host has the same on a booted host."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    done = subprocess.run(["unshare", "--mount", "sh", "-c", WORLD, "sh", tmp_path, *packages.values()],
                          input=INSTALL, capture_output=True, text=True, cwd="/", timeout=INSTALL_SECONDS,
                          env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NSSWITCH": NSSWITCH, "LC_ALL": "C.UTF-8",
                               "DEBIAN_FRONTEND": "noninteractive"})
    assert done.returncode == 0, done.stdout + done.stderr
    nsswitch, versions, path, links, loaded, nsswitch_then, changed = done.stdout.split("====\n")
    assert nsswitch.rstrip("\n") == NSSWITCH.replace(" files", " files mymachines")
    assert {line.split()[0] for line in versions.splitlines() if line.endswith(f" {changelog_version()}")} == {
        "mymachinesd", "mymachinesctl", "mymachines-userdb", "mymachines-dns", "mymachines-resolve-hook",
        "mymachines-dns-publish", "mymachines-metrics"}
    *first, last = path.split()
    assert last == "/usr/lib/python3/dist-packages"
    assert [each for each in first if "/local/" in each or each == "/nowhere"] == []
    assert [each.rpartition("/")[2] for each in links.split()] == ["mymachinesd.service"] * 3
    assert len([each for each in loaded.split() if SHIM.fullmatch(each)]) == 1
    assert nsswitch_then.rstrip("\n") == NSSWITCH
    replaced = subprocess.run(["dpkg", "-L", "libnss-mymachines"], capture_output=True, text=True).stdout.splitlines()
    assert [path for path in changed.splitlines() if not path.startswith(CHANGED_BY_APT) and path not in replaced] == [
        "/etc/nsswitch.conf"]
