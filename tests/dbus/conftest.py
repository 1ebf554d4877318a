# SPDX-License-Identifier: MIT
"""Each test has a bus of its own."""

from collections.abc import Iterator

import pytest

from tests.dbus.bus import Bus
from tests.servers.conftest import nothing_stays_open  # noqa: F401 - for these tests too


@pytest.fixture
def bus() -> Iterator[Bus]:
    with Bus() as bus:
        yield bus


@pytest.fixture
def no_bus() -> Iterator[Bus]:
    """One that has yet to be started."""
    bus = Bus()
    yield bus
    bus.close()
