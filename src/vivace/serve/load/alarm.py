"""An alarm to the microsecond: the event loops' own timers round to milliseconds, in which several requests are due."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_NANOSECONDS = 1_000_000_000
_LEAST = 1000
"""Nanoseconds: a time of 0 would disarm the alarm."""


class _Interval(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns")]


class Alarm:
    """Calls `ring` in the event loop each time that it was set and the time has come (timerfd_create(2))."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = int(self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC))
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._wake)

    def set(self, seconds: float) -> None:
        """Ring once, in so many seconds."""
        whole, rest = divmod(max(int(seconds * _NANOSECONDS), _LEAST), _NANOSECONDS)
        moment = _Interval(0, 0, whole, rest)
        self._libc.timerfd_settime(self._descriptor, 0, ctypes.byref(moment), None)

    def close(self) -> None:
        """Never ring again."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, 8)
            self._ring()
