# SPDX-License-Identifier: MIT
"""README.md, typed as it stands on a Debian that has nothing but what it asks its reader for."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.booted import AGAINST_MACHINED, NOT_COPIED, BootedHost
from tests.host.docs.keyboard import typed
from tests.host.docs.pages import Step
from tests.host.guests import START_SECONDS
from tests.host.root import SOURCES, bare_root, run_in
from tests.lab import PROJECT, wait_for

pytestmark = pytest.mark.skipif(AGAINST_MACHINED, reason="about mymachinesd")


class BareHost(BootedHost):
    """It has no way out once it is booted: what the commands fetch is fetched before, and they find it there."""

    KIND = ".bare"

    def base_tree(self) -> Path:
        return bare_root()

    def install(self) -> None:
        shutil.copytree(PROJECT, self.root / SOURCES, ignore=NOT_COPIED, symlinks=True)
        run_in(self.root, "make", "--silent", "build", "demo-packages", "deb", cwd=f"/{SOURCES}")
        run_in(self.root, "sh", "-c", "apt-get install -qq --download-only ./build/deb/*.deb", cwd=f"/{SOURCES}")
        (self.root / "etc/apt/apt.conf.d/91yes").write_text('APT::Get::Assume-Yes "true";\n')


@pytest.fixture
def bare() -> Iterator[BareHost]:
    with BareHost() as host:
        yield host


def test_readme(bare: BareHost) -> None:
    sleeping = bare.popen(["unshare", "--net", "--pid", "--fork", "--kill-child", "sleep", "600"])
    try:
        leader = wait_for(lambda: bare.out(["pgrep", "-nx", "sleep"], check=False), START_SECONDS)
        done = [action.command for action in typed(bare, PROJECT / "README.md", {"PID": leader})
                if isinstance(action, Step)]
        assert done[0] == "make demo"
        assert done[-1] == "mymachinesctl list"
        assert bare.out(["mymachinesctl", "list"]).splitlines()[1].split()[:4] == ["web", "container", "-", leader]
    finally:
        # From inside: whoever is left unreaped keeps the host from going down. It is the first of its namespace.
        bare.run(["pkill", "-KILL", "-x", "sleep"], check=False)
        sleeping.communicate(timeout=START_SECONDS)
    wait_for(lambda: "web" not in bare.out(["mymachinesctl", "list"]), START_SECONDS, "the machine to go")
