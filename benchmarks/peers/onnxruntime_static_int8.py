"""ONNX Runtime with quantize_static: QDQ, activations uint8 and weights int8 by channel, as it advises for x86 CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from peers.onnxruntime_default import halved, open_peer, preprocessed

__all__ = ["open_peer", "prepare"]


def prepare(model: nn.Module, calls: Sequence[tuple[Tensor, ...]], folder: Path) -> dict[str, str]:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self, names: Sequence[str]) -> None:
            self.feeds = iter([dict(zip(names, [value.numpy() for value in call], strict=True)) for call in calls])

        def get_next(self) -> dict[str, object] | None:
            return next(self.feeds, None)

    source, file = preprocessed(model, calls, folder), folder / "quantized.onnx"
    quantize_static(
        source, file, Reader(input_names(source)), QuantFormat.QDQ, per_channel=True, reduce_range=halved(),
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return {"file": str(file)}


def input_names(file: Path) -> list[str]:
    import onnx

    graph = onnx.load(file, load_external_data=False).graph
    weights = {weight.name for weight in graph.initializer}
    return [entry.name for entry in graph.input if entry.name not in weights]
