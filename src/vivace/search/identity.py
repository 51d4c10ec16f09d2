"""A job's digest: equal for the same model, shapes and data, so that an earlier session's trials are of use."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from vivace.core.signature import Signature
from vivace.data.reading import Batches

DIGESTED_BATCHES = 64


def digest_of(folder: Path, signature: Signature, data: Batches | None) -> str:
    """A digest of the captured model, the examples and some of the data; not of how many of them time let be judged."""
    total = hashlib.sha256(repr(signature).encode())
    for name in ("original", "examples"):
        for path in sorted((folder / name).rglob("*")):
            if path.is_file():
                total.update(hashlib.sha256(path.read_bytes()).digest())
    items = data.items if data is not None else ()
    total.update(str(len(items)).encode())
    for item in items[:: max(1, len(items) // DIGESTED_BATCHES)]:
        for leaf in item.leaves:
            total.update(leaf.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:32]
