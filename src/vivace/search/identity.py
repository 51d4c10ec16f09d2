"""A job's digest, by which an earlier session's trials are known to be of use, and the folders of plans."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from vivace.core.plan import Plan
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


def key_of(plan: Plan) -> str:
    """A short name for a plan's folders."""
    return hashlib.sha256(str(plan).encode()).hexdigest()[:12]


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
