"""ONNX Runtime with quantize_dynamic after its own preprocessing; weights int8, activations measured in each call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from peers.onnxruntime_default import open_peer, preprocessed

__all__ = ["open_peer", "prepare"]


def prepare(model: nn.Module, calls: Sequence[tuple[Tensor, ...]], folder: Path) -> dict[str, str]:
    from onnxruntime.quantization import quantize_dynamic

    file = folder / "quantized.onnx"
    quantize_dynamic(preprocessed(model, calls, folder), file)
    return {"file": str(file)}
