"""One connection of a load client: sends ready messages, and reads no more of an answer than it must."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

OnAnswer = Callable[["Line", int, bytes], None]
OnLost = Callable[["Line"], None]
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


class Line(asyncio.Protocol):
    """Calls `on_answer(line, status, body)` for each answer, and `on_lost(line)` when the connection ends.

    `awaits` says whether a request was sent that has no answer yet.
    """

    def __init__(self, on_answer: OnAnswer, on_lost: OnLost) -> None:
        self._on_answer = on_answer
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self.sent = 0.0
        self.awaits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast(asyncio.Transport, transport)

    def send(self, message: bytes) -> None:
        """Send a whole request."""
        assert self._transport is not None
        self.awaits = True
        self._transport.write(message)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """A part of an answer, or all of it."""
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            return
        head = self._buffer[: end + 2].lower()
        start = head.find(_LENGTH)
        length = int(head[start + len(_LENGTH) : head.index(b"\r\n", start)]) if start >= 0 else 0
        total = end + len(_HEAD_END) + length
        if len(self._buffer) >= total:
            self.awaits = False
            body, self._buffer = self._buffer[end + len(_HEAD_END) : total], self._buffer[total:]
            self._on_answer(self, int(head[9:12]), body)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        self._on_lost(self)
