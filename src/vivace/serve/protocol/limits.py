"""How much of everything a client may send. Every limit is checked before memory is taken for what it bounds."""

from __future__ import annotations

import dataclasses
import re

from vivace.serve.protocol.refusal import Refusal, too_large

_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of one request and of one connection. Bytes, counts, and seconds.

    `body_bytes` holds for what was sent and again for what it decompresses to; `json_bytes` for the JSON part, which is
    parsed while nobody else is served. `header_seconds` and `body_seconds` are how long a client may take to send them,
    `write_seconds` how long it may leave an answer unread.
    """

    body_bytes: int = 64 << 20
    header_bytes: int = 16 << 10
    json_bytes: int = 4 << 20
    json_depth: int = 64
    rank: int = 8
    connections: int = 1024
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    write_seconds: float = 60.0


def check_json(text: bytes | memoryview, limits: Limits) -> None:
    """Refuse a JSON text that is too long or nested too deeply, before it is parsed."""
    if len(text) > limits.json_bytes:
        raise too_large(
            "the JSON part of the request",
            len(text),
            limits.json_bytes,
            "send tensors as binary data (binary_data_size)",
        )
    raw = bytes(text)
    if raw.count(b"[") + raw.count(b"{") > limits.json_depth:
        _check_depth(raw, limits.json_depth)


def _check_depth(text: bytes, allowed: int) -> None:
    depth = 0
    for found in _BRACKETS.finditer(text):
        token = found[0]
        if token in (b"[", b"{"):
            depth += 1
            if depth > allowed:
                raise Refusal(400, f"the JSON part is nested more than {allowed} deep; send flat tensor data")
        elif token in (b"]", b"}"):
            depth -= 1
