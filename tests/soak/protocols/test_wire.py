# SPDX-License-Identifier: MIT
"""Hostile calls to the real servers, for some seconds; and to servers with a bug, which has to be found."""

import os

import pytest

from tests.soak.protocols.wire import CONTROLS, attack, control

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

SECONDS, CONTROL_SECONDS = 4.0, 20.0


@pytest.mark.parametrize("kind", CONTROLS)
def test_hostile_calls(kind: str) -> None:
    figures = attack(kind, SECONDS)
    assert figures["calls"] > 0
    assert len(figures["errors"]) > 3   # answers of many kinds: the calls reach the handlers


@pytest.mark.parametrize("kind", CONTROLS)
def test_a_bug_in_a_handler_is_found(kind: str) -> None:
    assert control(kind, CONTROL_SECONDS)
