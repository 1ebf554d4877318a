# SPDX-License-Identifier: MIT
"""Put what is built into a package's tree, as debian/rules asks: as install.py does, but that nothing of pip is needed.

PREFIX/lib/mymachines is a venv in shape alone: Python finds its modules there first, the distribution's behind them,
and what an administrator has put into /usr/local or a home never. A dependency that the distribution has in
pyproject.toml's range is left to it; any other is taken from `bundled`, a folder of pure Python.
"""

import argparse
import os
import shutil
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from system.install import PROJECT, Layout, put_all

DEBIAN_PACKAGES = {"cffi": "python3-cffi-backend", "dbus-fast": "python3-dbus-fast",
                   "dnspython": "python3-dnspython", "prometheus-client": "python3-prometheus-client",
                   "varlink": "python3-varlink"}
"""By the name on Python's index. Of cffi, what is built needs the backend alone."""
DEBIAN_RELATIONS = {">=": ">=", "<": "<<"}
DEBIAN_FOLDER = "/usr/lib/python3/dist-packages"

OUR_PACKAGES = ("resolver", "machine_images")
NOT_INSTALLED = shutil.ignore_patterns("__pycache__", "*.c", "*.pyi", "py.typed")


def make_home(layout: Layout, bundled: Path) -> list[str]:
    """The venv-like folder. Returns what the package depends on."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    major, minor = sys.version_info[:2]
    home = layout.on_disk(layout.home)
    modules = home / f"lib/python{major}.{minor}/site-packages"
    modules.mkdir(parents=True)
    for package in OUR_PACKAGES:
        shutil.copytree(PROJECT / package, modules / package, ignore=NOT_INSTALLED)
    (modules / "distribution.pth").write_text(f"{DEBIAN_FOLDER}\n")
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    commands = home / "bin"
    commands.mkdir()
    (commands / "python3").symlink_to(os.path.relpath("/usr/bin/python3", layout.home / "bin"))
    for name, entry in project["scripts"].items():
        module, _, function = entry.partition(":")
        script = commands / name
        # -I: neither the environment nor the working directory of who calls it decides which code runs.
        script.write_text(f"#!{layout.home}/bin/python3 -I\nimport sys\nfrom {module} import {function}\n"
                          f"sys.exit({function}())\n")
        script.chmod(0o755)
    # Modules lie in a folder of one version's name.
    depends = [f"python3 (>= {major}.{minor}~)", f"python3 (<< {major}.{minor + 1}~)"]
    for requirement in map(Requirement, project["dependencies"]):
        if debian_has(requirement):
            depends += in_debian(requirement)
        else:
            copy_bundled(requirement, bundled, modules)
    return depends


def debian_has(requirement: Requirement) -> bool:
    name = canonicalize_name(requirement.name)
    return any(canonicalize_name(found.name) == name and found.version in requirement.specifier
               for found in distributions(path=[DEBIAN_FOLDER]))


def in_debian(requirement: Requirement) -> Iterator[str]:
    """The same range, as a package's dependencies are written."""
    package = DEBIAN_PACKAGES[canonicalize_name(requirement.name)]
    for each in requirement.specifier:
        yield f"{package} ({DEBIAN_RELATIONS[each.operator]} {each.version}{'~' if each.operator == '<' else ''})"


def copy_bundled(requirement: Requirement, bundled: Path, target: Path) -> None:
    """Modules, and METADATA: by that, scanners know what is there and in which version."""
    for found in distributions(path=[str(bundled)]):
        if canonicalize_name(found.name) == canonicalize_name(requirement.name):
            break
    else:
        raise SystemExit(f"{bundled} has no {requirement.name}, and Debian none that serves ({requirement})")
    if found.version not in requirement.specifier:
        raise SystemExit(f"{bundled} has {found.name} {found.version}: not {requirement}")
    for file in found.files or ():
        path = target / file
        if (file.suffix != ".py" and file.name != "METADATA") or not Path(str(found.locate_file(file))).exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        data = Path(str(found.locate_file(file))).read_bytes()
        # A module is no program, whatever its first line says.
        path.write_bytes(data if not data.startswith(b"#!") else data[data.index(b"\n"):])


def main() -> None:
    parser = argparse.ArgumentParser(description="Put what is built into a package's tree.")
    parser.add_argument("--destdir", type=Path, required=True, help="the package's tree")
    parser.add_argument("--libdir", type=Path, required=True, help="for the shim")
    parser.add_argument("--bundled", type=Path, required=True, help="Python packages that the distribution may lack")
    parser.add_argument("--substvars", type=Path, required=True, help="where bundled:Depends is added")
    options = parser.parse_args()
    os.umask(0o022)
    layout = Layout(Path("/usr"), options.libdir, options.destdir.absolute())
    depends = make_home(layout, options.bundled)
    put_all(layout)
    with options.substvars.open("a") as file:
        file.write(f"bundled:Depends={', '.join(depends)}\n")


if __name__ == "__main__":
    main()
