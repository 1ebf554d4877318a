# SPDX-License-Identifier: MIT
"""A booted host like the other, on which Debian's packages of the project were made, and nothing of it is installed."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.lab import PROJECT

from .booted import NOT_COPIED, BootedHost
from .root import SOURCES, packaging_root, run_in

MADE = f"/{SOURCES}/build/deb"
APT_SECONDS = 120       # takes five
BUILD_SECONDS = 200     # takes fifteen
APT = "apt-get --quiet --yes --no-install-recommends -o Dpkg::Use-Pty=0"

NSSWITCH = """\
# as this administrator likes it
passwd:\tfiles systemd\t# all ours
group:  files [SUCCESS=merge] systemd
shadow: files
hosts:  files mymachines dns [!UNAVAIL=return] myhostname
"""
"""With what Debian's libnss-mymachines, which is installed, has put into it."""
NSSWITCH_WITH_OURS = NSSWITCH.replace("\tfiles systemd", "\tfiles mymachines systemd").replace(
    "merge] systemd", "merge] mymachines [SUCCESS=merge] systemd")
NSSWITCH_WITHOUT = NSSWITCH.replace(" mymachines", "")


class PackagedHost(BootedHost):
    KIND = ".packages"

    def base_tree(self) -> Path:
        return packaging_root()

    def install(self) -> None:
        """Only makes the packages, with this machine's network: they are installed when it has none."""
        shutil.copytree(PROJECT, self.root / SOURCES, ignore=NOT_COPIED, symlinks=True)
        self.made = run_in(self.root, "make", "--silent", "deb", cwd=f"/{SOURCES}")
        (self.root / "etc/nsswitch.conf").write_text(NSSWITCH)

    def packages(self, version: str) -> list[str]:
        """Files of the two packages of a version, which may be a pattern."""
        found = [path for name in ("mymachines", "libnss-mymachines-table")
                 for path in self.path(MADE).glob(f"{name}_{version}_*.deb")]
        assert len(found) == 2, f"{found}: {self.made}"
        return [f"{MADE}/{path.name}" for path in found]

    def apt(self, verb: str, *what: str, options: Sequence[str] = ()) -> str:
        """As an administrator does. systemd is asked whether to start what is installed, as on any host."""
        words = [*APT.split(), *options, verb, *what]
        return self.out(["env", "DEBIAN_FRONTEND=noninteractive", *words], timeout=APT_SECONDS)

    def build_again(self, version: str) -> None:
        """From the source package that was made, of a higher version, without a network: this host has none."""
        source = next(self.path(MADE).glob("*.dsc")).name
        self.run(f"""set -e; cd {MADE}; rm -rf again; dpkg-source -x {source} again >/dev/null; cd again
            sed -i '1s/(.*)/({version})/' debian/changelog
            dpkg-buildpackage --build=binary --no-sign""", timeout=BUILD_SECONDS)
