# SPDX-License-Identifier: MIT
"""An alarm by the wall clock (timerfd_create(2)): it keeps to its time when the clock is set, and when the host sleeps.

The loop's own timers count the time that the host was awake.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import Callable
from contextlib import suppress

# sys/timerfd.h, linux/time.h
_TFD_TIMER_ABSTIME, _TFD_TIMER_CANCEL_ON_SET = 1, 2
_TFD_NONBLOCK, _TFD_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


class _ItimerSpec(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("interval_sec", "interval_nsec", "sec", "nsec")]


class Alarm:
    """Calls `on_time` on the running loop at the time that was set last, and at once when somebody sets the clock."""

    def __init__(self, on_time: Callable[[], object]) -> None:
        self._on_time = on_time
        self._fd = _checked(_libc.timerfd_create(time.CLOCK_REALTIME, _TFD_NONBLOCK | _TFD_CLOEXEC))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._on_readable)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def set(self, at: float | None) -> None:
        """`at` in seconds of CLOCK_REALTIME; None for never. OSError."""
        spec = _ItimerSpec()
        if at is not None:
            # nothing at all would mean never; a time that has passed means now
            spec.sec, spec.nsec = max(int(at), 0), int(at % 1 * 1e9) or 1
        flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
        _checked(_libc.timerfd_settime(self._fd, flags, ctypes.byref(spec), None))

    def _on_readable(self) -> None:
        with suppress(OSError):  # ECANCELED: the clock was set
            os.read(self._fd, 8)
        self._on_time()


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
