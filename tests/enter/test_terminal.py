# SPDX-License-Identifier: MIT
"""Terminals of containers, whatever these have laid out at /dev/pts."""

import os
import stat
import termios

import pytest

from resolver.core.errors import NoSuchMachine, NotAvailable
from tests.enter.worlds import OWN_TERMINALS, at_most, enter, guest
from tests.lab import Container, TestHost

OTHER_PATHS = ("mount -t tmpfs tmpfs /dev/pts; touch /dev/pts/ptmx /dev/pts/0; "
               "mount --bind /opt/pts/ptmx /dev/pts/ptmx")
"""Terminals are made, and the path of the first leads to a file."""


def open_terminal(container: Container | None) -> tuple[int, str]:
    result = enter(container, "pty")
    (master,) = result.descriptors
    return master, result.fields["path"]


def host_terminals() -> set[str]:
    return set(os.listdir("/dev/pts"))


@pytest.mark.parametrize("user_namespace", [True, False])
def test_a_terminal_of_the_container_s(host: TestHost, user_namespace: bool) -> None:
    container = guest(host, OWN_TERMINALS, user_namespace=user_namespace)
    before = host_terminals()
    master, path = open_terminal(container)
    assert path == "/dev/pts/0"
    assert host_terminals() == before
    # Who sits at the one end is heard at the other, and it is the container's root's.
    container.exec(["sh", "-c", f"echo hello >{path}"], check=True)
    assert os.read(master, 100) == b"hello\r\n"
    inside = container.exec(["stat", "-c", "%u %t", path], check=True).stdout.split()
    assert inside[0] == "0"
    assert not os.get_inheritable(master)
    termios.tcgetattr(master)
    os.close(master)


def test_one_of_the_host_s(host: TestHost) -> None:
    master, path = open_terminal(None)
    assert stat.S_ISCHR(os.stat(path).st_mode)
    os.close(master)


@pytest.mark.parametrize(("layout", "why"), [
    ("true", "the host's terminals"),
    ("mount -t tmpfs tmpfs /dev/pts; touch /dev/pts/ptmx", "gives no terminals"),
    ("mount -t tmpfs tmpfs /dev/pts; mkfifo /dev/pts/ptmx", "gives no terminals"),
    ("mount -t tmpfs tmpfs /dev/pts; ln -s /dev/null /dev/pts/ptmx", "gives no terminals"),
    ("mount -t tmpfs tmpfs /dev/pts; ln -s /dev/zero /dev/pts/ptmx", "gives no terminals"),
    ("mount -t tmpfs tmpfs /dev/pts; touch /dev/pts/ptmx; mount --bind /dev/ptmx /dev/pts/ptmx",
     "host's terminals|gives no terminals"),
    ("mount -t tmpfs tmpfs /dev/pts; ln -s ptmx /dev/pts/ptmx", "symbolic links"),
    ("mount -t tmpfs tmpfs /dev/pts", "No such file"),
    (f"mount -t tmpfs tmpfs /opt; mkdir /opt/pts; {OWN_TERMINALS.replace('/dev', '/opt')}; {OTHER_PATHS}",
     "No such file|is not that terminal"),
])
def test_what_is_not_what_it_seems(host: TestHost, layout: str, why: str) -> None:
    container = guest(host, layout)
    before = host_terminals()
    with at_most(5), pytest.raises(NotAvailable, match=why):
        open_terminal(container)
    assert host_terminals() == before


def test_a_jump_by_proc_does_not_lead_to_the_host(host: TestHost) -> None:
    """A machine with the host's processes in its /proc: their roots are links out of it."""
    container = guest(host, f"mount -t tmpfs tmpfs /dev/pts; ln -s /proc/{os.getpid()}/root/dev/pts/ptmx /dev/pts/ptmx")
    before = host_terminals()
    with pytest.raises(NotAvailable):
        open_terminal(container)
    assert host_terminals() == before


def test_a_machine_that_has_ended(host: TestHost) -> None:
    container = guest(host)
    pidfd = os.pidfd_open(container.leader)
    container.kill()
    os.close(pidfd)
    with pytest.raises((NoSuchMachine, ProcessLookupError)):
        open_terminal(container)


def test_the_root_directory_can_be_listed(host: TestHost) -> None:
    container = guest(host, "mount -t tmpfs tmpfs /opt; mkdir /opt/of-the-container")
    (descriptor,) = enter(container, "root").descriptors
    try:
        assert "etc" in os.listdir(descriptor)
        below = os.open("opt", os.O_RDONLY, dir_fd=descriptor)
        assert os.listdir(below) == ["of-the-container"]
        os.close(below)
    finally:
        os.close(descriptor)
