# SPDX-License-Identifier: MIT
"""org.freedesktop.LogControl1."""

import asyncio
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from dbus_fast import Variant

from tests.dbus.bus import Bus
from tests.dbus.world import PROPERTIES, Client, Failed, World, client, run

PATH, INTERFACE = "/org/freedesktop/LogControl1", "org.freedesktop.LogControl1"


@pytest.fixture(autouse=True)
def same_level() -> Iterator[None]:
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


async def set_property(caller: Client, name: str, value: Variant) -> None:
    await caller.call("Set", "ssv", INTERFACE, name, value, path=PATH, interface=PROPERTIES)


@pytest.mark.skipif(os.geteuid() != 0, reason="setting is root's")
@pytest.mark.parametrize(("name", "level"), [
    ("debug", logging.DEBUG), ("notice", logging.INFO), ("err", logging.ERROR), ("emerg", logging.CRITICAL),
])
def test_the_level_is_set_and_told(bus: Bus, tmp_path: Path, name: str, level: int) -> None:
    async def test() -> None:
        async with World(bus, tmp_path), client(bus) as caller:
            await set_property(caller, "LogLevel", Variant("s", name))
            assert logging.getLogger().level == level
            assert await caller.get(PATH, "LogLevel", INTERFACE) == name
            logging.getLogger().setLevel(logging.WARNING)
            assert await caller.get(PATH, "LogLevel", INTERFACE) == "warning"

    run(test())


def test_what_is_told(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        async with World(bus, tmp_path), client(bus) as caller:
            assert await caller.get(PATH, "SyslogIdentifier", INTERFACE) == "mymachinesd"
            assert await caller.get(PATH, "LogTarget", INTERFACE) in ("console", "journal")

    run(test())


@pytest.mark.skipif(os.geteuid() != 0, reason="setting is root's")
@pytest.mark.parametrize(("name", "value", "error"), [
    ("LogLevel", Variant("s", "bogus"), "DBus.Error.InvalidArgs"),
    ("LogLevel", Variant("u", 1), "DBus.Error.InvalidArgs"),
    ("LogTarget", Variant("s", "bogus"), "DBus.Error.InvalidArgs"),
    ("LogTarget", Variant("s", "kmsg"), "DBus.Error.NotSupported"),
    ("SyslogIdentifier", Variant("s", "x"), "DBus.Error.PropertyReadOnly"),
])
def test_what_cannot_be_set(bus: Bus, tmp_path: Path, name: str, value: Variant, error: str) -> None:
    async def test() -> None:
        async with World(bus, tmp_path), client(bus) as caller:
            with pytest.raises(Failed) as failed:
                await set_property(caller, name, value)
            assert failed.value.name == error
            await set_property(caller, "LogTarget", Variant("s", "auto"))

    run(test())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_only_root_sets(bus: Bus, tmp_path: Path) -> None:
    async def test() -> None:
        async with World(bus, tmp_path):
            level = logging.getLogger().level
            for name, value in (("LogLevel", "debug"), ("LogTarget", "auto")):
                said = await asyncio.to_thread(bus.busctl, "set-property", "org.freedesktop.machine1", PATH, INTERFACE,
                                               name, "s", value, uid=65534)
                assert said.returncode != 0
                assert "Access denied" in said.stderr
            assert logging.getLogger().level == level

    run(test())
