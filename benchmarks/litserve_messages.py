"""Requests for LitServe: what `litserve_server.py` reads, made without LitServe."""

from __future__ import annotations

import base64
import json


def message(host: str, port: int, data: bytes) -> bytes:
    """A whole HTTP request with the bytes of one sample."""
    body = json.dumps({"data": base64.b64encode(data).decode()}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
