# SPDX-License-Identifier: MIT
"""mymachinesctl doctor on a host that runs systemd, as installed."""

import json
from typing import Any

import pytest

from .booted import AGAINST_MACHINED, BootedHost
from .guests import Guest

pytestmark = pytest.mark.skipif(AGAINST_MACHINED, reason="about mymachinesd")


def doctor(host: BootedHost, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and findings by their text."""
    done = host.run(["mymachinesctl", "doctor", "--json", *arguments], check=False, timeout=60)
    return done.returncode, {finding["text"]: finding for finding in json.loads(done.stdout)}


def test_an_installed_host_is_well(booted: BootedHost, web: Guest) -> None:
    code, found = doctor(booted, "web")
    assert [finding for finding in found.values() if finding["level"] in ("warning", "broken")] == []
    assert code == 0
    assert "programs load /usr/local/lib/libnss_mymachines.so.2" in found
    assert f"org.freedesktop.machine1 is pid {booted.main_pid()}'s (mymachinesd)" in found
    assert "users: getpwuid: vu-web-0" in found
    assert any(text.startswith("/run/systemd/userdb/io.systemd.DynamicUser: pid 1 (systemd) answers") for text in found)


def test_what_is_stopped_is_started_as_it_says(booted: BootedHost) -> None:
    booted.run(["systemctl", "stop", "mymachinesd.service"])
    code, found = doctor(booted, "--check=daemon", "--check=userdb", "--check=table")
    assert code == 7
    [finding] = [finding for text, finding in found.items() if text.startswith("mymachinesd does not run")]
    assert finding["mend"] == "systemctl start mymachinesd"
    booted.run(finding["mend"])
    code, found = doctor(booted, "--check=daemon", "--check=userdb", "--check=table")
    assert (code, {finding["level"] for finding in found.values()}) == (0, {"ok"})


def test_a_mute_service_is_restarted_as_it_says(booted: BootedHost) -> None:
    booted.run(["systemctl", "kill", "--signal=STOP", "mymachines-userdb.service"])
    code, found = doctor(booted, "--check=userdb", "--check=sockets")
    assert code == 7
    [finding] = [finding for text, finding in found.items() if text.startswith("mymachines-userdb, pid ")]
    assert finding["mend"] == "systemctl restart mymachines-userdb.service"
    booted.run(finding["mend"])
    assert doctor(booted, "--check=userdb", "--check=sockets")[0] == 0
