"""The process's own OpenMP threads for compiled programs: those that wait, spinning, after an operator of PyTorch."""

from __future__ import annotations

import ctypes

NAMES = ("GOMP_parallel", "omp_get_num_threads", "omp_get_thread_num")
"""How a region of several threads is begun (as GCC's library has it, and others too), and what a thread in it asks: how
many they are, and which it is."""


def enlist(library: ctypes.CDLL) -> bool:
    """Let a program be run by the threads that PyTorch's operators are run by, where there are such; whether there are.

    These spin for some milliseconds after each operator. A thread of the program's own would have to share a core with
    them for as long: at the first barrier of a training's epoch that cost as much as ten steps of a small network.
    """
    process = ctypes.CDLL(None)
    found = [getattr(process, name) for name in NAMES if hasattr(process, name)]
    if len(found) < len(NAMES):
        return False
    library.enlist.argtypes = [ctypes.c_void_p] * len(NAMES)
    library.enlist(*(ctypes.cast(one, ctypes.c_void_p) for one in found))
    return True
