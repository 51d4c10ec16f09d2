"""The process's own OpenMP threads for compiled programs: those that wait, spinning, after an operator of PyTorch."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import sys
from pathlib import Path

NAMES = ("GOMP_parallel", "omp_get_num_threads", "omp_get_thread_num")
"""How a region of several threads is begun (as GCC's library has it, and others too), and what a thread in it asks: how
many they are, and which it is."""

_seen = {"threads": 1, "lost": 1}
"""How many threads the process had when it last forked, and how many its parent had, of which it has one."""
SPAWNED = "--multiprocessing-fork"
"""What Python's own package tells a child on its command line that is an interpreter of its own."""


def enlist(library: ctypes.CDLL) -> bool:
    """Let a program be run by the threads that PyTorch's operators are run by, where there are such; whether there are.

    These spin for some milliseconds after each operator. A thread of the program's own would have to share a core with
    them for as long: at the first barrier of a training's epoch that cost as much as ten steps of a small network. A
    process that was forked from one with threads may not ask for any: it would wait for those of its parent.
    """
    if _seen["lost"] > 1 or _is_forked():
        return False
    process = ctypes.CDLL(None)
    found = [getattr(process, name) for name in NAMES if hasattr(process, name)]
    if len(found) < len(NAMES):
        return False
    library.enlist.argtypes = [ctypes.c_void_p] * len(NAMES)
    library.enlist(*(ctypes.cast(one, ctypes.c_void_p) for one in found))
    return True


def _is_forked() -> bool:
    """Whether Python's multiprocessing may have forked this process before this module was there to see it."""
    return multiprocessing.parent_process() is not None and SPAWNED not in sys.orig_argv


def _before_fork() -> None:
    try:
        _seen["threads"] = len(list(Path("/proc/self/task").iterdir()))
    except OSError:  # not known: taken to have others
        _seen["threads"] = 2


def _in_child() -> None:
    _seen["lost"] = max(_seen["lost"], _seen["threads"])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_in_child)
