# SPDX-License-Identifier: MIT
"""What the documentation has its reader do is done as it stands on the page, on a booted host; and no command is in it
that is neither typed here nor says why it is not."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext

import pytest

from tests.host.booted import AGAINST_MACHINED, NSSWITCH, BootedHost
from tests.host.docs.keyboard import typed
from tests.host.docs.pages import actions, blocks
from tests.host.guests import MACHINES, start_booting
from tests.host.root import SUITE
from tests.lab import PROJECT

pytestmark = pytest.mark.skipif(AGAINST_MACHINED, reason="about mymachinesd")

DOCS = PROJECT / "docs"
ALL_PAGES = [PROJECT / "README.md", *sorted(DOCS.glob("*.md"))]

LXC_CONFIG = """\
lxc.include = /usr/share/lxc/config/common.conf
lxc.include = /usr/share/lxc/config/userns.conf
lxc.rootfs.path = dir:/var/lib/machines/web
lxc.rootfs.options = idmap=container
lxc.mount.auto =
lxc.mount.auto = proc:mixed sys:ro cgroup:mixed
"""
"""What a template of Debian's puts. But files have their ids by a mount that shifts them, and /sys cannot be written:
systemd-networkd then does not wait for udev, which the image has not."""
DHCP = "[Match]\nName=eth0\n[Network]\nDHCP=yes\n"

LXC_SECONDS = 30.0      # to start a container takes a tenth of one

Setting = Callable[[BootedHost], AbstractContextManager[object]]


@contextmanager
def from_nothing(host: BootedHost) -> Iterator[None]:
    """/etc/nsswitch.conf as Debian has it, until a page changes it."""
    file = host.path("/etc/nsswitch.conf")
    file.write_text(NSSWITCH.replace(" mymachines", ""))
    try:
        yield
    finally:
        host.run("machinectl terminate web 2>/dev/null; systemctl stop systemd-nspawn@web.service", check=False)
        file.write_text(NSSWITCH)


@contextmanager
def a_booted_web(host: BootedHost) -> Iterator[None]:
    guest = start_booting(host)
    try:
        yield
    finally:
        guest.stop()


@contextmanager
def lxc(host: BootedHost) -> Iterator[None]:
    """The bridge, and for the container that `lxc-create` would fetch, the image that is here."""
    network = host.path(f"{MACHINES}/web/etc/systemd/network/eth0.network")
    network.write_text(DHCP)
    host.run(["systemctl", "start", "lxc-net.service"])
    try:
        yield
    finally:
        # Not lxc-destroy: the image is everybody's.
        host.run("lxc-stop --name=web --kill; rm -rf /var/lib/lxc/web; systemctl stop lxc-net.service", check=False)
        network.unlink()


def create_lxc_container(host: BootedHost) -> None:
    """As `lxc-create` with a template does, from /etc/lxc/default.conf."""
    host.run(f"lxc-create --name=web --template=none && cat >>/var/lib/lxc/web/config <<'END'\n{LXC_CONFIG}END")


@contextmanager
def metrics(host: BootedHost) -> Iterator[None]:
    try:
        yield
    finally:
        host.run(["systemctl", "disable", "--now", "mymachines-metrics.service"])


@contextmanager
def dns(host: BootedHost) -> Iterator[None]:
    try:
        yield
    finally:
        host.run(["systemctl", "disable", "--now", "mymachines-dns.service"])


@contextmanager
def resolved(host: BootedHost) -> Iterator[None]:
    with a_booted_web(host), dns(host):
        host.run(["systemctl", "start", "systemd-resolved.service"])
        try:
            yield
        finally:
            host.run(["systemctl", "stop", "systemd-resolved.service"])


PAGES: Mapping[str, Setting] = {
    "tutorial.md": from_nothing,
    "howto-no-systemd.md": nullcontext,
    "howto-lxc.md": lxc,
    "howto-resolved.md": resolved,
    "configuration.md": nullcontext,
    "dns.md": dns,
    "metrics.md": metrics,
}
"""What each page takes for granted."""

TYPED_ELSEWHERE = {"README.md"}
"""tests/host/docs/test_readme.py, on a host that has nothing yet."""


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_is_so(booted: BootedHost, page: str) -> None:
    if page == "howto-no-systemd.md" and SUITE == "bookworm":
        pytest.skip("the page says that it is about Debian 13's unshare")
    done = 0
    with PAGES[page](booted):
        for action in typed(booted, DOCS / page):
            done += 1
            if page == "howto-lxc.md" and "lxc.idmap" in getattr(action, "text", ""):
                create_lxc_container(booted)
    assert done == len(list(actions(DOCS / page))) > 0


def test_lxc_containers_without_a_daemon(booted: BootedHost) -> None:
    """With `|| true` a container starts all the same, and not without."""
    page = typed(booted, DOCS / "howto-lxc.md")
    with lxc(booted), closing(page):
        while "lxc.idmap" not in getattr(next(page), "text", ""):
            pass
        create_lxc_container(booted)
        booted.run(["systemctl", "stop", "mymachinesd.service"])
        try:
            start = "PATH=/usr/local/bin:$PATH; lxc-start --name=web"
            assert booted.run(start, check=False, timeout=LXC_SECONDS).returncode != 0
            booted.run(r"sed -i 's/^exec \(.*\)/\1 || true/' /usr/local/sbin/mymachines-lxc")
            booted.run(start, timeout=LXC_SECONDS)
        finally:
            booted.run(["systemctl", "start", "mymachinesd.service"])


def test_no_command_is_left_untyped() -> None:
    untyped = [f"{page.name}:{block.line}: {block.lines[0]}" for page in ALL_PAGES for block in blocks(page)
               if block.is_unclear() or (block.is_typed() and page.name not in {*PAGES, *TYPED_ELSEWHERE})]
    assert untyped == []
