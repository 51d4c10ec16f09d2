"""OpenVINO int8: nncf.quantize with its defaults on calibration calls, then as the default OpenVINO peer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from peers.openvino_default import convert, open_peer

NAME = "OpenVINO int8"

__all__ = ["NAME", "open_peer", "prepare"]


def prepare(model: nn.Module, calls: Sequence[tuple[Tensor, ...]], folder: Path) -> dict[str, str]:
    import nncf
    import openvino

    data = nncf.Dataset(calls, lambda call: [value.numpy() for value in call])
    file = folder / "model.xml"
    openvino.save_model(nncf.quantize(convert(model, calls), data), file, compress_to_fp16=False)
    return {"file": str(file)}
