# SPDX-License-Identifier: MIT
"""Make Debian packages of a copy of the project, for the release of Debian that this runs on: `make deb`.

The copy has in debian/bundled what Debian may lack, fetched before; from there on nothing asks a network. So the source
package that is made beside the binary ones can be built again anywhere.
"""

import argparse
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
FOLDER = PROJECT / "build" / "deb"
NOT_SOURCE = shutil.ignore_patterns(".git", ".ci", ".venv", "build", "*.egg-info", "*.so", "*.o", "__pycache__",
                                    ".*_cache", ".hypothesis", ".gitignore")
NOT_PYTHON = ("*.so", "*.pyd", "*.pxd", "*.pyi", "*.c", "py.typed")
"""Of a bundled package: compiled twins of its modules, which would tie it to one Python, and what only typing needs."""

STANDARDS_VERSIONS = {"12": "4.6.2", "13": "4.7.2"}
"""Of Debian's policy, by release: what its lintian knows."""


def copy_source(folder: Path, bundled: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PROJECT, folder, ignore=NOT_SOURCE, symlinks=True)
    shutil.copytree(bundled, folder / "debian/bundled",
                    ignore=shutil.ignore_patterns(*NOT_PYTHON, "bin", "tests", "__pycache__", ".made"))


def set_version(folder: Path, version: str, codename: str) -> None:
    """In debian/changelog; the date stays, so that who builds again gets the same bytes."""
    changelog = folder / "debian/changelog"
    source, _, rest = changelog.read_text().partition(" ")
    _, _, rest = rest.partition(";")
    changelog.write_text(f"{source} ({version}) {codename};{rest}")


def changelog_version() -> str:
    found = re.match(r"\S+ \(([^)]+)\)", (PROJECT / "debian/changelog").read_text())
    assert found is not None
    return found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Make Debian packages, in build/deb.")
    parser.add_argument("--bundled", type=Path, required=True, help="Python packages that Debian may lack")
    options = parser.parse_args()
    release = platform.freedesktop_os_release()
    if release["ID"] != "debian" or release.get("VERSION_ID") not in STANDARDS_VERSIONS:
        raise SystemExit(f"packages are made on Debian {' and '.join(STANDARDS_VERSIONS)}, not on"
                         f" {release['PRETTY_NAME']}")
    for tool in ("dpkg-buildpackage", "lintian"):
        if shutil.which(tool) is None:
            raise SystemExit(f"no packages without {tool}: as root, apt-get install dpkg-dev lintian")
    number = release["VERSION_ID"]
    version = f"{changelog_version()}+deb{number}"
    source = FOLDER / f"mymachines-{version}"
    copy_source(source, options.bundled)
    set_version(source, version, release["VERSION_CODENAME"])
    control = source / "debian/control"
    control.write_text(re.sub(r"(?m)^Standards-Version: .*$", f"Standards-Version: {STANDARDS_VERSIONS[number]}",
                              control.read_text()))
    log = FOLDER / f"mymachines_{version}.log"
    with log.open("w") as file:
        built = subprocess.run(["dpkg-buildpackage", "--unsigned-source", "--unsigned-changes"], cwd=source,
                               stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False)
    if built.returncode:
        raise SystemExit(f"{log.read_text()[-4000:]}\nno packages: dpkg-buildpackage failed, see {log}")
    shutil.rmtree(source)
    made = sorted(FOLDER.glob(f"*_{version}_*.*"))
    sys.stdout.write("".join(f"{path}\n" for path in made))
    sys.stdout.flush()
    changes = next(path for path in made if path.suffix == ".changes")
    if subprocess.run(["lintian", "--allow-root", "--fail-on=error,warning", "--tag-display-limit=0", str(changes)],
                      check=False).returncode:
        raise SystemExit("lintian has found something")


if __name__ == "__main__":
    main()
