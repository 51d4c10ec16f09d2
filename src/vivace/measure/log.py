"""What a worker printed: the first part in a file, the last part in memory until the end, however much there was."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from pathlib import Path

READ_BYTES = 1 << 16
TAIL_CHARACTERS = 2000


class CappedLog:
    """Drains a pipe into a file of at most `limit_bytes`: its first half as it comes, its last half on closing.

    A disk that is full only costs the log, never the work.
    """

    def __init__(self, path: Path, descriptor: int, limit_bytes: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self._half = max(limit_bytes // 2, READ_BYTES)
        self._written = 0
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._dropped = 0
        self._recent = b""
        os.set_blocking(descriptor, False)
        path.write_bytes(b"")

    def drain(self, limit_bytes: int = 1 << 24) -> bool:
        """Take what is there, at most so much at once; False when the writers are gone."""
        taken = 0
        while taken < limit_bytes:
            try:
                part = os.read(self.descriptor, READ_BYTES)
            except BlockingIOError:
                return True
            if not part:
                return False
            taken += len(part)
            self._keep(part)
        return True

    def tail(self) -> str:
        """The last characters that were printed."""
        return self._recent.decode(errors="replace")[-TAIL_CHARACTERS:]

    def close(self) -> None:
        """Take the rest, write the last half and close the pipe."""
        with contextlib.suppress(OSError):
            self.drain()
        if self._tail:
            note = f"\n[... {self._dropped} bytes left out ...]\n".encode() if self._dropped else b""
            self._append(note + b"".join(self._tail))
            self._tail.clear()
        os.close(self.descriptor)

    def _keep(self, part: bytes) -> None:
        self._recent = (self._recent + part)[-4 * TAIL_CHARACTERS :]
        head = part[: max(0, self._half - self._written)]
        if head:
            self._append(head)
            self._written += len(head)
            part = part[len(head) :]
        if part:
            self._tail.append(part)
            self._tail_bytes += len(part)
        while self._tail_bytes > self._half:
            dropped = len(self._tail.popleft())
            self._tail_bytes -= dropped
            self._dropped += dropped

    def _append(self, data: bytes) -> None:
        with contextlib.suppress(OSError), self.path.open("ab") as file:
            file.write(data)
