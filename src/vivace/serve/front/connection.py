"""One connection: uvicorn's own protocol, with a limit on headers and on how long a client may take for anything."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from vivace.serve.protocol.limits import Limits

CONNECTION = "vivace.connection"
"""Where an application finds the connection in its scope's extensions."""
_TOLD = b'{"error":"the headers are longer than allowed; send fewer or shorter ones"}'
_TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: " + str(len(_TOLD)).encode() + b"\r\n\r\n" + _TOLD
)


class Connection(HttpToolsProtocol):
    """What uvicorn speaks HTTP with, made by `connection_kind`. `is_gone` tells whether the client has hung up."""

    limits = Limits()

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._is_lost = False
        self._header_bytes = 0
        self._waits_for_headers = True
        self._since: float | None = None
        self._unsent = 0
        self._unsent_since: float | None = None

    def is_gone(self) -> bool:
        """Whether nobody can be answered any more."""
        return self._is_lost

    def connection_lost(self, exc: Exception | None) -> None:
        """The client, or we, have hung up."""
        self._is_lost = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client; those of headers that do not end are counted."""
        super().data_received(data)
        if self._waits_for_headers:
            self._header_bytes += len(data)
            if self._header_bytes > self.limits.header_bytes and not self.transport.is_closing():
                self.transport.write(_TOO_LONG)
                self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: self}  # type: ignore[dict-item]  # ours, and not of the standard
        self._waits_for_headers, self._header_bytes, self._since = True, 0, None

    def on_headers_complete(self) -> None:
        """The headers are there."""
        self._waits_for_headers = False
        super().on_headers_complete()

    def sweep(self, now: float) -> None:
        """Hang up on who takes too long for headers, or leaves an answer unread; called about once a second."""
        if self._waits_for_headers:
            if self._since is None:
                self._since = now
            elif now - self._since > self.limits.header_seconds:
                self.transport.abort()
                return
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        elif self._unsent_since is not None and now - self._unsent_since > self.limits.write_seconds:
            self.transport.abort()


def connection_kind(limits: Limits) -> type[asyncio.Protocol]:
    """The protocol with these limits, for uvicorn's configuration."""
    return type("LimitedConnection", (Connection,), {"limits": limits})
