"""ONNX Runtime with quantize_dynamic after its own preprocessing; weights int8, activations measured in each call.

Without the shapes that the preprocessing wrote, it converts what it otherwise ends at: nine of the fifteen networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from peers.onnxruntime_default import halved, open_peer, preprocessed

__all__ = ["open_peer", "prepare"]


def prepare(model: nn.Module, calls: Sequence[tuple[Tensor, ...]], folder: Path) -> dict[str, str]:
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    file = folder / "quantized.onnx"
    graph = onnx.load(str(preprocessed(model, calls, folder)))
    del graph.graph.value_info[:]  # it transposes weights of Gemm and would end at their old shapes
    quantize_dynamic(graph, file, reduce_range=halved())
    return {"file": str(file)}
