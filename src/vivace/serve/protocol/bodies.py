"""From the bytes of a body to its JSON part and its binary part, decompressed within the limit."""

from __future__ import annotations

import dataclasses
import zlib

from vivace.serve.protocol.limits import Limits
from vivace.serve.protocol.refusal import Refusal, too_large

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


@dataclasses.dataclass(frozen=True)
class Body:
    """A body in its parts. `json` None: the whole body is one raw tensor (a header length of 0)."""

    json: bytes | None
    binary: memoryview


def decompress(data: bytes, encoding: str, limits: Limits) -> bytes:
    """The body as it was before its Content-Encoding; never more than the limit is unpacked."""
    if encoding in ("", "identity"):
        return data
    if encoding not in _WINDOW_BITS:
        raise Refusal(
            415,
            f"Content-Encoding is {encoding[:40]!r}; allowed are gzip, deflate and identity: send it as one of these",
        )
    unpacker = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        unpacked = unpacker.decompress(data, limits.body_bytes + 1)
    except zlib.error as error:
        raise Refusal(400, f"the body is not {encoding} data ({error}); send what Content-Encoding says") from None
    if len(unpacked) > limits.body_bytes:
        raise too_large("the decompressed body", len(unpacked), limits.body_bytes, "send fewer samples in a request")
    if not unpacker.eof or unpacker.unused_data:
        raise Refusal(
            400, f"the {encoding} data of the body are cut short or followed by others; send one whole stream"
        )
    return unpacked


def split(data: bytes, header_length: bytes | None) -> Body:
    """The parts of a body, by what Inference-Header-Content-Length says."""
    if header_length is None:
        return Body(data, memoryview(b""))
    if not header_length.isdigit() or len(header_length) > 12:
        raise Refusal(400, "Inference-Header-Content-Length is not a number; give the bytes of the JSON part")
    length = int(header_length)
    if length > len(data):
        raise Refusal(
            400, f"Inference-Header-Content-Length is {length} and the body has {len(data)} bytes; give the bytes of "
            "its JSON part"
        )  # fmt: skip
    return Body(data[:length] if length else None, memoryview(data)[length:])
