# SPDX-License-Identifier: MIT
"""kill -9 at a chosen place: before the n-th line that a child runs of some functions. No hook in what is tested."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


def killed_at_each_line(act: Callable[[], object], *functions: Callable[..., Any]) -> Iterator[int]:
    """Runs `act` again and again in children, killed before the first line that they run of `functions`, before the
    second, ...; yields the number after each of these deaths, and once more (-1) after the child that came to its end.
    """
    codes = {function.__code__ for function in functions}
    number = 1
    while _killed_before(number, act, codes):
        yield number
        number += 1
    yield -1


def _killed_before(number: int, act: Callable[[], object], codes: set[Any]) -> bool:
    child = os.fork()
    if child == 0:
        left = number

        def trace(frame: FrameType, event: str, _argument: object) -> Any:
            nonlocal left
            if frame.f_code not in codes:
                return None
            left -= event == "line"
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            sys.settrace(trace)
            act()
        except BaseException:  # noqa: BLE001 - the child ends here, whatever happens
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), f"the child ended with {status:#x}"
    return status != 0
