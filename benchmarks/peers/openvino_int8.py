"""OpenVINO int8: nncf.quantize on calibration calls, told of transformers as it asks; then as the default peer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from peers.openvino_default import convert, open_peer

__all__ = ["open_peer", "prepare"]


def prepare(model: nn.Module, calls: Sequence[tuple[Tensor, ...]], folder: Path) -> dict[str, str]:
    import nncf
    import openvino

    converted = convert(model, calls)
    attends = any(node.get_type_name() == "ScaledDotProductAttention" for node in converted.get_ops())
    data = nncf.Dataset(calls, lambda call: [value.numpy() for value in call])
    quantized = nncf.quantize(converted, data, model_type=nncf.ModelType.TRANSFORMER if attends else None)
    file = folder / "model.xml"
    openvino.save_model(quantized, file, compress_to_fp16=False)
    return {"file": str(file)}
