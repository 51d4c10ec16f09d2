"""The linear layers of an ONNX file with the numbers that they met in one call, as those of a captured graph are
read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vivace.core.errors import UsageError
from vivace.core.layer import Layer
from vivace.runtimes.calls import as_tensor, is_tensor
from vivace.runtimes.graphs.linear import LinearLayer
from vivace.runtimes.onnx_graph import external_files, require

PRODUCTS = ("Conv", "Gemm", "MatMul")
MOST_BYTES = 1 << 30
"""A larger file cannot be given to ONNX Runtime in one piece together with the outputs that are asked of it."""
Call = tuple[tuple[Any, ...], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class _Met:
    """A node with what it met."""

    node: Any
    inputs: Tensor
    weights: Tensor
    bias: Tensor | None
    result: Tensor

    @property
    def label(self) -> str:
        return str(self.node.name or self.node.output[0])


def onnx_linear_layers(path: Path, call: Call) -> tuple[tuple[LinearLayer, ...], tuple[str, ...]]:
    """The convolutions and products with weights of an ONNX file in its order, and a sentence for each product that is
    left out. The file runs once in ONNX Runtime, without its optimizations. Raises UsageError for a file of 1 GiB or
    more, ArtifactError for one that cannot be opened, MissingExtra."""
    for package in ("onnx", "onnxruntime"):
        require(package, "onnx", "reading the layers of an ONNX file")
    beside = external_files(path)
    size = path.stat().st_size + sum(file.stat().st_size for file in beside)
    if size >= MOST_BYTES:
        raise UsageError(f"{path} has {size:,} bytes; the layers of files below {MOST_BYTES:,} can be read")
    import onnx

    model = onnx.load(str(path))
    known = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    known |= {node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t) for node in model.graph.node
              if node.op_type == "Constant" and node.attribute[0].name == "value"}  # fmt: skip
    nodes = [node for node in model.graph.node if node.op_type in PRODUCTS]
    ready = [node for node in nodes if node.input[1] in known and node.input[0] not in known]
    values = _values(model, ready, call)
    found, left_out = [], []
    for node in nodes:
        reason = "it does not multiply an activation with weights" if node not in ready else _why_not(node, known)
        if reason:
            left_out.append(f"{node.name or node.output[0]} is left out: {reason}")
        else:
            found.append(_layer(_met(node, known, values)))
    return tuple(found), tuple(left_out)


def _values(model: Any, nodes: Sequence[Any], call: Call) -> dict[str, np.ndarray[Any, Any]]:
    """What the nodes take and give in this call."""
    import onnx
    import onnxruntime

    wanted = dict.fromkeys(name for node in nodes for name in (node.input[0], node.output[0]))
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    there = {one.name for one in model.graph.output}
    asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in there)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(asked.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    feed = {**dict(zip(names, call[0], strict=False)), **call[1]}
    given = {name: as_tensor(value).numpy() for name, value in feed.items() if is_tensor(value)}
    if set(given) != set(names):
        raise UsageError(f"the model takes {', '.join(names)}; the example call gives {', '.join(given) or 'none'}")
    inputs = {name: given[name] for name in wanted if name in given}
    outputs = [name for name in wanted if name not in inputs]
    return {**inputs, **dict(zip(outputs, session.run(outputs, given), strict=True))}


def _why_not(node: Any, known: Mapping[str, Any]) -> str:
    """Why a product with weights cannot be read; empty where it can."""
    weights, settings = known[node.input[1]], _settings(node)
    if weights.dtype != np.float32:
        return f"its weights are {weights.dtype}, and float32 is read"
    if node.op_type == "MatMul" and weights.ndim != 2:
        return f"its weights have {weights.ndim} dimensions"
    if node.op_type != "Conv":
        return ""
    pads = list(settings.get("pads", ()))
    if weights.ndim not in (3, 4):
        return f"it has {weights.ndim - 2} dimensions of space, and 1 and 2 are read"
    if settings.get("auto_pad", b"NOTSET") != b"NOTSET" or pads[: len(pads) // 2] != pads[len(pads) // 2 :]:
        return "its padding is not the same on both sides"
    return ""


def _met(node: Any, known: Mapping[str, Any], values: Mapping[str, Any]) -> _Met:
    """A node with its numbers; a Gemm's factors and transpositions are taken into them."""
    bias = None
    if len(node.input) > 2 and node.input[2]:
        bias = torch.from_numpy(np.array(known.get(node.input[2], values.get(node.input[2]))))
    inputs, weights = (
        torch.from_numpy(np.array(values[node.input[0]])),
        torch.from_numpy(np.array(known[node.input[1]])),
    )
    result = torch.from_numpy(np.array(values[node.output[0]]))
    if node.op_type == "Gemm":
        settings = _settings(node)
        inputs = inputs.T if settings.get("transA", 0) else inputs
        weights = (weights if settings.get("transB", 0) else weights.T) * settings.get("alpha", 1.0)
        bias = None if bias is None else (bias * settings.get("beta", 1.0)).reshape(-1)
    return _Met(node, inputs.contiguous(), weights.contiguous(), bias, result)


def _layer(met: _Met) -> LinearLayer:
    kind, weights = met.node.op_type, met.weights
    if kind == "Conv":
        space = weights.dim() - 2
        settings = _settings(met.node)
        name = f"conv{space}d"
        outputs, elements = weights.shape[0], math.prod(weights.shape[1:])
        arguments: tuple[Any, ...] = (
            met.inputs, weights, met.bias, list(settings.get("strides", [1] * space)),
            list(settings.get("pads", [0] * space))[:space], list(settings.get("dilations", [1] * space)),
            int(settings.get("group", 1)),
        )  # fmt: skip
    elif kind == "Gemm":
        name, (outputs, elements) = "linear", weights.shape
        arguments = (met.inputs, weights, met.bias)
    else:
        name, (elements, outputs) = "matmul", weights.shape
        arguments = (met.inputs, weights)
    return LinearLayer(
        Layer(met.label, "", name), met.label, f"aten.{name}.default", arguments, met.inputs, weights, met.bias,
        outputs, elements, met.result.numel() // outputs, tuple(met.result.shape),
    )  # fmt: skip


def _settings(node: Any) -> dict[str, Any]:
    """A node's attributes as plain values."""
    import onnx

    return {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
