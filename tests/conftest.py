# SPDX-License-Identifier: MIT
"""Fixtures that all tests share, and two rules: no test leaves anything behind, and in CI nothing is skipped."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab import Container, Daemon, TestHost, Unavailable, leftovers, processes

MakeContainer = Callable[..., Container]
MakeHost = Callable[..., TestHost]

# In CI, as root on Debian, `make test` installs whatever a test needs. These reasons to skip are the machine's:
SKIPS_IN_CI = [
    # Debian 12 has systemd 252
    r"varlinkctl came with systemd 253",
    # gcc-multilib exists for x86 alone
    r"no 32-bit programs on (?!x86_64)\w+",
    # a tree of a distribution in the making, which changes daily: for whoever has made one
    r"MYMACHINES_TEST_RESOLVED names no tree .*",
    # Debian 13's sssd
    r"this sssd has no files provider",
    # the kernel is not a package: the machine's owner chose its modules
    r"this kernel has no \w+",
    # a container without a writable /sys/fs/cgroup: which control groups there are is CI's choice
    r"cannot make control groups: .*Read-only file system.*",
]

_forbidden_skips: list[str] = []


def in_strict_ci() -> bool:
    return os.environ.get("CI") == "true" and os.geteuid() == 0 and Path("/etc/debian_version").exists()


def pytest_configure() -> None:
    processes.adopt_orphans()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """What the lab cannot do here skips the test, wherever in the test it comes up."""
    try:
        return (yield)
    except Unavailable as unavailable:
        pytest.skip(str(unavailable))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    try:
        return (yield)
    except Unavailable as unavailable:
        pytest.skip(str(unavailable))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    note_skip(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    note_skip(report)


def note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not any(re.fullmatch(allowed, reason) for allowed in SKIPS_IN_CI):
            _forbidden_skips.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if in_strict_ci() and _forbidden_skips and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if in_strict_ci() and _forbidden_skips:
        terminalreporter.section("skipped, though CI has all that a test needs", red=True)
        for line in _forbidden_skips:
            terminalreporter.line(line)


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    machine = leftovers.Machine()
    yield
    machine.assert_as_before()


@pytest.fixture
def make_host() -> Iterator[MakeHost]:
    """Makes test hosts; arguments as TestHost's. They end with the test."""
    hosts: list[TestHost] = []

    def make(**options: object) -> TestHost:
        hosts.append(TestHost(**options).__enter__())  # type: ignore[arg-type]
        return hosts[-1]

    yield make
    for host in reversed(hosts):
        host.close()


@pytest.fixture
def host() -> Iterator[TestHost]:
    """A test host for root; a test that also works without root takes `make_host`."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with TestHost() as host:
        yield host


@pytest.fixture
def daemon(host: TestHost) -> Daemon:
    """mymachinesd, ready, on `host`."""
    return host.start_daemon()


@pytest.fixture
def make_container(host: TestHost) -> MakeContainer:
    """make_container("web", ...) starts a container on `host`; arguments as Container's."""
    return host.container
