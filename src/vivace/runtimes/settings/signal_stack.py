"""Keeps the memory on which this thread answers signals, which engines exchange and free in another order."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator


class _Stack(ctypes.Structure):
    """stack_t of sigaltstack(2)."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def kept_signal_stack() -> Iterator[None]:
    """The thread's alternate signal stack is afterwards what it was before, whatever is loaded inside.

    OpenVINO's CPU engine sets one for each of its cores, frees it with the core, and puts back what was there when the
    core was made. Where an earlier core ended first, that is memory which is gone: the next signal that Python handles,
    such as the end of a child or Ctrl-C, is written there. An engine that no longer finds its own stack in place leaves
    alone what it finds.

    >>> with kept_signal_stack():
    ...     pass
    """
    change = getattr(ctypes.CDLL(None), "sigaltstack", None)
    if change is None:
        yield
        return
    before = _Stack()
    change(None, ctypes.byref(before))
    try:
        yield
    finally:
        change(ctypes.byref(before), None)
