"""Messages between a parent and its worker: a length, a JSON text, and for the parent's an optional stream of bytes.

A frame is 8 bytes of length (little endian) and that many bytes of JSON. A payload follows as chunks of the same
form, ended by an empty one, so that a large model is never held twice in memory. Payloads only go from parent to child.
"""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Callable
from typing import Any

LENGTH = struct.Struct("<Q")
LARGEST_FRAME = 1 << 30
CHUNK_BYTES = 1 << 20

Write = Callable[[memoryview], None]


class PipeClosedError(EOFError):
    """The other side closed the pipe."""


def encode(message: dict[str, Any]) -> bytes:
    """One frame."""
    text = json.dumps(message).encode()
    return LENGTH.pack(len(text)) + text


def length_of(header: bytes) -> int:
    """The length that a frame's first 8 bytes announce."""
    (length,) = LENGTH.unpack(header)
    if length > LARGEST_FRAME:
        raise ValueError(f"a frame of {length} bytes was announced; the largest allowed is {LARGEST_FRAME}")
    return int(length)


def read_frame(descriptor: int) -> dict[str, Any]:
    """Wait for one frame and decode it. Raises PipeClosedError at the end of the pipe."""
    message = json.loads(_read_exactly(descriptor, length_of(_read_exactly(descriptor, LENGTH.size))))
    if not isinstance(message, dict):
        raise ValueError("a frame must hold a JSON object")
    return message


def write_frame(descriptor: int, message: dict[str, Any]) -> None:
    """Write one frame, waiting for the reader."""
    left = memoryview(encode(message))
    while left:
        left = left[os.write(descriptor, left) :]


def _read_exactly(descriptor: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(descriptor, min(size - len(parts), CHUNK_BYTES))
        if not part:
            raise PipeClosedError("the other side closed the pipe")
        parts += part
    return bytes(parts)


class ChunkWriter(io.RawIOBase):
    """A file that a pickler writes to; every part of it becomes chunks of a payload."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._held = bytearray()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Send the bytes, small ones gathered first."""
        view = memoryview(data).cast("B")
        if len(view) < CHUNK_BYTES:
            self._held += view
            if len(self._held) >= CHUNK_BYTES:
                self._send_held()
        else:
            self._send_held()
            self._send(view)
        return len(view)

    def finish(self) -> None:
        """Send what is left and the empty chunk."""
        self._send_held()
        self._write(memoryview(LENGTH.pack(0)))

    def _send_held(self) -> None:
        if self._held:
            self._send(memoryview(bytes(self._held)))
            self._held.clear()

    def _send(self, view: memoryview) -> None:
        self._write(memoryview(LENGTH.pack(len(view))))
        self._write(view)


class ChunkReader(io.RawIOBase):
    """A file that an unpickler reads a payload from."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._left = 0
        self._ended = False

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a part of the buffer; 0 at the payload's end."""
        if not self._left and not self._ended:
            (self._left,) = LENGTH.unpack(_read_exactly(self._descriptor, LENGTH.size))
            self._ended = self._left == 0
        if self._ended:
            return 0
        view = memoryview(buffer).cast("B")
        count = os.readv(self._descriptor, [view[: min(len(view), self._left)]])
        if not count:
            raise PipeClosedError("the other side closed the pipe")
        self._left -= count
        return count

    def drain(self) -> None:
        """Read to the payload's end, so that the next frame can follow."""
        scrap = bytearray(CHUNK_BYTES)
        while self.readinto(scrap):
            pass
