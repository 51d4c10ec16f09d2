"""The scheduler slice of a thread: who asks for a short one runs soon after it is woken, beside others that run long.

A core that several threads want goes to one of them until its slice is over. Since Linux 6.12 a thread may say how long
its slice should be: one that is woken takes the core at once from a thread of a longer slice, instead of waiting until
that one sleeps or the next tick of the clock, some milliseconds away. Its share of the core stays the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator

SHORTEST_SECONDS, LONGEST_SECONDS = 0.0001, 0.1
"""Of the slices that Linux gives: it takes a wish beyond them for the nearest."""
_CALLS = {"x86_64": (314, 315), "aarch64": (274, 275)}
"""Numbers of sched_setattr(2) and sched_getattr(2), from the kernel's tables of system calls."""
_ORDINARY = (0, 3)
"""SCHED_OTHER and SCHED_BATCH: the policies whose slice means this."""
_NANOSECONDS = 1_000_000_000


class _Attributes(ctypes.Structure):
    """struct sched_attr, in its first version, which every kernel takes (sched_setattr(2))."""

    _fields_ = [
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime_ns", ctypes.c_uint64),
        ("deadline_ns", ctypes.c_uint64),
        ("period_ns", ctypes.c_uint64),
    ]


def ask_for_slice(seconds: float) -> str:
    """Give the calling thread a slice of so many seconds; 0 gives it the kernel's own again.

    Returns why not, empty where the thread now has it. Threads and processes that this thread starts inherit the slice.
    Its policy and its niceness stay; no privilege is needed. Raises ValueError for a slice that Linux gives to nobody.

    Source: sched_setattr(2); Peter Zijlstra, "sched/eevdf: Use sched_attr::sched_runtime to set request/slice
    suggestion", 2024, in Linux since 6.12.

    >>> why_not = ask_for_slice(0)
    """
    if seconds and not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise ValueError(f"a slice of {seconds:g} s; allowed are 0 and {SHORTEST_SECONDS:g} to {LONGEST_SECONDS:g} s")
    numbers = _CALLS.get(platform.machine()) if platform.system() == "Linux" else None
    if numbers is None:
        return f"slices are asked for on Linux on {' and '.join(_CALLS)} only"
    libc = ctypes.CDLL(None, use_errno=True)
    attributes, size = _Attributes(), ctypes.sizeof(_Attributes)
    if libc.syscall(numbers[1], 0, ctypes.byref(attributes), size, 0):
        return _refused("sched_getattr")
    if attributes.policy not in _ORDINARY:
        return f"the thread is under scheduling policy {attributes.policy}, whose slices Linux sets otherwise"
    asked = round(seconds * _NANOSECONDS)
    attributes.size, attributes.runtime_ns = size, asked
    if libc.syscall(numbers[0], 0, ctypes.byref(attributes), 0):
        return _refused("sched_setattr")
    found = _Attributes()
    libc.syscall(numbers[1], 0, ctypes.byref(found), size, 0)
    if asked and found.runtime_ns != asked:
        return f"Linux {platform.release()} gives every thread the slice that it sets; 6.12 and later take wishes"
    return ""


@contextlib.contextmanager
def shortest_slice() -> Iterator[str]:
    """Give the calling thread the shortest slice within the block, and the kernel's own after it.

    Yields why not, empty where it has it: nobody need stop for that, answers only come later on a busy machine.
    """
    why_not = ask_for_slice(SHORTEST_SECONDS)
    try:
        yield why_not
    finally:
        if not why_not:
            ask_for_slice(0)


def _refused(call: str) -> str:
    return f"Linux refused {call}: {os.strerror(ctypes.get_errno())}"
