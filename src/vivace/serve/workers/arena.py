"""Memory that two processes share, so that tensors cross without being sent: it has no name and goes with them."""

from __future__ import annotations

import mmap
import os
from typing import Self

ALIGNMENT = 64
FIRST_BYTES = 1 << 16


class Arena:
    """A piece of shared memory that grows. One side at a time writes; offsets are multiples of ALIGNMENT.

    A grown arena is mapped anew, and the old mapping lives as long as tensors that lie in it.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, os.fstat(descriptor).st_size)

    @classmethod
    def create(cls) -> Self:
        """A new one, of FIRST_BYTES."""
        descriptor = os.memfd_create("vivace-serve", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, FIRST_BYTES)
        return cls(descriptor)

    @property
    def map(self) -> mmap.mmap:
        """The memory as it is mapped now."""
        return self._map

    def reserve(self, byte_count: int) -> None:
        """Make it at least this large. Raises OSError where there is no memory left."""
        if byte_count > len(self._map):
            os.ftruncate(self.descriptor, 1 << (byte_count - 1).bit_length())
            self.follow()

    def follow(self) -> None:
        """Map what the other side has added."""
        size = os.fstat(self.descriptor).st_size
        if size != len(self._map):
            self._map = mmap.mmap(self.descriptor, size)

    def write(self, offset: int, data: bytes | memoryview) -> int:
        """Copy bytes to an offset; returns where they end."""
        end = offset + len(data)
        self._map[offset:end] = data
        return end

    def read(self, offset: int, byte_count: int) -> bytes:
        """A copy of some bytes."""
        return self._map[offset : offset + byte_count]

    def close(self) -> None:
        """Give the memory back, once nothing lies in it."""
        os.close(self.descriptor)


def aligned(offset: int) -> int:
    """The next multiple of ALIGNMENT.

    >>> aligned(0), aligned(1), aligned(64)
    (0, 64, 64)
    """
    return -(-offset // ALIGNMENT) * ALIGNMENT
