"""ONNX Runtime: torch.onnx.export into one file, since its quantizer reads no other; an InferenceSession by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vivace.core.facts import Fact
from vivace.devices.machine import detect


def prepare(model: nn.Module, calls: Sequence[tuple[Tensor, ...]], folder: Path) -> dict[str, str]:
    return {"file": str(exported(model, calls, folder))}


def exported(model: nn.Module, calls: Sequence[tuple[Tensor, ...]], folder: Path) -> Path:
    file = folder / "model.onnx"
    torch.onnx.export(model.eval(), calls[0], str(file), dynamo=True, external_data=False)
    return file


def preprocessed(model: nn.Module, calls: Sequence[tuple[Tensor, ...]], folder: Path) -> Path:
    """What the documentation asks for before either quantization: shapes inferred, the graph optimized."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    file = folder / "preprocessed.onnx"
    quant_pre_process(str(exported(model, calls, folder)), str(file), skip_symbolic_shape=True)
    return file


def halved() -> bool:
    """Whether weights keep 7 bits, as its documentation advises for processors without int8 dot products."""
    return Fact.INT8_INSTRUCTIONS not in detect().facts()


def open_peer(arguments: Mapping[str, Any], payload: nn.Module) -> Callable[..., Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(arguments["file"], providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    return run
