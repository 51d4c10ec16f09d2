"""Keeps the memory that calls free in the process, in huge pages, so that the next call need not ask the kernel again.

PyTorch takes memory for every answer of every operator and gives it back. The C library returns large pieces to the
kernel at once, which clears and maps each page anew when it is next touched: for large activations that is a third of
the time of a call, and more in a virtual machine. An allocator belongs to a process, so this is the one setting that is
not entered around each call: it holds from when a program is opened until the last such program is closed.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
import threading
from typing import Any

from vivace.core.errors import ArtifactError

HUGE_PAGE_BYTES = 1 << 21
MOST_BYTES = 1 << 30
"""Of address space that is marked for huge pages; untouched pages of it take no memory."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _MADV_HUGEPAGE = -1, -3, -4, 14
"""Of mallopt (malloc.h) and madvise (sys/mman.h)."""
_OWN_MAPPINGS, _OWN_MAPPING_BYTES = 65536, 32 << 20
"""What glibc allows, and where its own threshold for large pieces ends up after a few of them."""

_lock = threading.Lock()
_holders = 0


def is_available() -> bool:
    """Whether the C library here is glibc, which has the switches."""
    return sys.platform == "linux" and _library() is not None


def hold(size: int) -> None:
    """Keep what is freed in the process from now on, `size` bytes of it in huge pages; undone by as many releases.

    Does nothing where the C library has no such switches: answers are the same without. Raises ArtifactError for a
    size that no technique asks for.
    """
    global _holders
    if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= MOST_BYTES:
        raise ArtifactError(f"the program asks for a heap of {size!r} bytes; allowed are 1 to {MOST_BYTES}")
    library = _library()
    if library is None:
        return
    with _lock:
        _holders += 1
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, -1)
        _mark(library, size)


def release() -> None:
    """Give back what is free, and let the C library do so again, when nobody else holds on."""
    global _holders
    library = _library()
    if library is None:
        return
    with _lock:
        _holders = max(0, _holders - 1)
        if _holders == 0:
            library.mallopt(_MMAP_MAX, _OWN_MAPPINGS)
            library.mallopt(_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
            library.mallopt(_TRIM_THRESHOLD, 2 * _OWN_MAPPING_BYTES)
            library.malloc_trim(0)


def _mark(library: Any, size: int) -> None:
    """Take one piece of the heap, ask for huge pages under it, and leave it to whoever takes memory next."""
    piece = library.malloc(size + HUGE_PAGE_BYTES)
    if not piece:
        return
    first = -(-piece // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    length = (piece + size - first) // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
    if length > 0:
        library.madvise(first, length, _MADV_HUGEPAGE)  # refused where the kernel has none: then pages stay small
    library.free(piece)


@functools.cache
def _library() -> Any:
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - other C libraries have other allocators
        library.malloc.restype = ctypes.c_void_p
        library.malloc.argtypes = [ctypes.c_size_t]
        library.free.argtypes = [ctypes.c_void_p]
        library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        return library
    return None
