"""Requests ready to be sent: whole HTTP messages of one sample each, made before anything is timed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vivace.artifact.manifest import GOLDEN_CALLS
from vivace.core.errors import EnvironmentFault
from vivace.core.signature import Signature
from vivace.data import samples
from vivace.serve.protocol.datatypes import DATATYPES

MOST_DISTINCT = 64


@dataclasses.dataclass(frozen=True)
class Target:
    """A model behind an address. `messages` are sent in turn; `name` is for people."""

    name: str
    host: str
    port: int
    messages: tuple[bytes, ...]


def of_artifact(folder: Path, metadata: Mapping[str, Any]) -> list[list[tuple[tuple[int, ...], bytes]]]:
    """The golden samples of an artifact, one by one: the shape and the bytes of each input.

    A call whose inputs count no samples along a first axis is taken whole.
    """
    note = json.loads((folder / "program" / "program.json").read_text(encoding="utf-8"))
    axes = [spec.batch_axis for spec in Signature.from_json(note["signature"]).inputs]
    calls = samples.read(folder / GOLDEN_CALLS)
    found = []
    for call in calls:
        free = all(axis == 0 and entry["shape"][0] == -1 for axis, entry in zip(axes, metadata["inputs"], strict=True))
        rows = call[0].shape[0] if free else 1
        for row in range(rows):
            leaves = [leaf.narrow(0, row, 1) if free else leaf for leaf in call]
            found.append([(tuple(leaf.shape), _bytes(leaf)) for leaf in leaves])
    return found[:MOST_DISTINCT]


def of_metadata(metadata: Mapping[str, Any], seed: int = 0) -> list[list[tuple[tuple[int, ...], bytes]]]:
    """Random samples where only the model's metadata are known: zeros for integers, normal numbers for others."""
    chance = np.random.default_rng(seed)
    return [[_random(entry, chance) for entry in metadata["inputs"]] for _ in range(8)]


def messages(
    address: tuple[str, int],
    metadata: Mapping[str, Any],
    calls: Sequence[Sequence[tuple[tuple[int, ...], bytes]]],
    token: str | None = None,
) -> tuple[bytes, ...]:
    """Each call as an HTTP/1.1 request with binary tensors, to be answered in binary."""
    return tuple(_message(address, metadata, call, token) for call in calls)


def _message(
    address: tuple[str, int],
    metadata: Mapping[str, Any],
    call: Sequence[tuple[tuple[int, ...], bytes]],
    token: str | None,
) -> bytes:
    inputs = [
        {
            "name": entry["name"], "datatype": entry["datatype"], "shape": list(shape),
            "parameters": {"binary_data_size": len(data)},
        }
        for entry, (shape, data) in zip(metadata["inputs"], call, strict=True)
    ]  # fmt: skip
    text = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    body = b"".join([text, *(data for _, data in call)])
    head = [
        f"POST /v2/models/{metadata['name']}/infer HTTP/1.1", f"Host: {address[0]}:{address[1]}",
        f"Content-Length: {len(body)}", f"Inference-Header-Content-Length: {len(text)}",
        "Content-Type: application/octet-stream", *([f"Authorization: Bearer {token}"] if token else []),
    ]  # fmt: skip
    return "\r\n".join([*head, "", ""]).encode() + body


def _random(entry: Mapping[str, Any], chance: np.random.Generator) -> tuple[tuple[int, ...], bytes]:
    shape = tuple(1 if size == -1 else size for size in entry["shape"])
    datatype = next((known for known in DATATYPES if known.name == entry["datatype"]), None)
    if datatype is None:
        raise EnvironmentFault(f"the server's model takes {entry['datatype']}, of which no sample can be made")
    if datatype.name not in ("FP32", "FP64"):
        return shape, bytes(int(np.prod(shape)) * datatype.bytes)
    return shape, chance.standard_normal(shape).astype(datatype.numpy).tobytes()


def _bytes(leaf: torch.Tensor) -> bytes:
    flat = leaf.contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
