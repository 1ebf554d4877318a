# SPDX-License-Identifier: MIT
"""kill -9 at a random moment; tests/soak/kill.py says how, and does it a thousand times."""

import random

import pytest

from tests.endtoend.conftest import MakeHost
from tests.soak.kill import WITHOUT_PIDFD_IDS, Killing


@pytest.mark.parametrize(("times", "argv"), [(9, None), (4, WITHOUT_PIDFD_IDS)], ids=["pidfd ids", "before 6.9"])
def test_the_state_after_a_kill_is_that_before_or_after_the_call(make_host: MakeHost, times: int,
                                                                 argv: list[str] | None) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)  # shown where it fails
    killing = Killing(make_host(), seed, argv)
    for _ in range(times):
        killing.one()
