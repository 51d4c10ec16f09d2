"""OpenVINO with its defaults: convert_model, compile_model; on processors with bfloat16 it chooses that by itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

os.environ["OPENVINO_TELEMETRY_DISABLE"] = "1"


def convert(model: nn.Module, calls: Sequence[tuple[Tensor, ...]]) -> Any:
    import openvino

    shapes = [list(value.shape) for value in calls[0]]
    return openvino.convert_model(model.eval(), example_input=calls[0], input=shapes)


def prepare(model: nn.Module, calls: Sequence[tuple[Tensor, ...]], folder: Path) -> dict[str, str]:
    import openvino

    file = folder / "model.xml"
    openvino.save_model(convert(model, calls), file, compress_to_fp16=False)
    return {"file": str(file)}


def open_peer(arguments: Mapping[str, Any], payload: nn.Module) -> Callable[..., Any]:
    import openvino

    compiled = openvino.Core().compile_model(arguments["file"], "CPU")

    def run(*inputs: Tensor) -> Tensor:
        return torch.from_numpy(compiled([value.numpy() for value in inputs])[0])

    return run
