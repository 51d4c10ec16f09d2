"""What an ONNX graph is made of: its operators, facts, and an estimate of the work of one call from its shapes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.program import Model
from vivace.runtimes.onnx_graph import require

_UNKNOWN_SIZE = 1
_CONVOLUTIONS = ("Conv", "ConvInteger", "QLinearConv")
_RECURRENT = ("LSTM", "GRU", "RNN")
_FREE_OPERATORS = frozenset(
    {
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Identity",
        "Constant",
        "Flatten",
        "Cast",
        "Shape",
        "Gather",
        "Concat",
        "Slice",
        "Split",
        "Expand",
        "ConstantOfShape",
    }
)


def facts_of(model: Model) -> frozenset[Fact]:
    """What is true of an ONNX file as a model."""
    graph = _graph(model)
    names = {node.op_type for node in _nodes(graph)}
    found = {Fact.RUNNABLE, Fact.ONNX_READY, Fact.OPENVINO_READY, Fact.UNCOMPILED, Fact.ON_CPU}
    weights = {value.name: tuple(value.dims) for value in graph.initializer}
    if any(node.op_type == "Conv" and len(weights.get(node.input[1], ())) == 4 for node in _nodes(graph)):
        found.add(Fact.HAS_CONV2D)
    if "Gemm" in names or any(node.op_type == "MatMul" and node.input[1] in weights for node in _nodes(graph)):
        found.add(Fact.HAS_LINEAR)
    if "Attention" in names or {"Softmax", "MatMul"} <= names:
        found.add(Fact.HAS_ATTENTION)
    if not any("QuantizeLinear" in name or name.endswith("Integer") or name.startswith("QLinear") for name in names):
        found.add(Fact.UNQUANTIZED)
    if not any(value.data_type in (10, 16) for value in graph.initializer):
        found.add(Fact.FLOAT32)
    return frozenset(found)


def operators_of(model: Model) -> tuple[str, ...]:
    """The names of the graph's operators, each once, sorted."""
    return tuple(sorted({node.op_type for node in _nodes(_graph(model))}))


def cost_of(model: Model, leaves: Sequence[Tensor]) -> Cost:
    """An estimate: products from inferred shapes at the inputs' sizes, 2 flops a multiply-add.

    A dimension that inference cannot tell counts as 1, so that flops are a lower bound; loops and branches count once.
    """
    graph = _inferred(model, leaves)
    shapes = _shapes(graph)
    constants = {value.name: math.prod(value.dims) for value in graph.initializer}
    nodes = _nodes(graph)
    written = sum(
        math.prod(shapes.get(name, ())) for node in nodes if node.op_type not in _FREE_OPERATORS for name in node.output
    )
    taken = sum(leaf.numel() * leaf.element_size() for leaf in leaves)
    flops: Counter[str] = Counter()
    for node in nodes:
        flops[node.op_type] += _flops(node, shapes)
    return Cost(
        flops=float(flops.total()),
        weight_bytes=float(4 * sum(constants.values())),
        activation_bytes=float(4 * written + taken),
        operators=sum(1 for node in nodes if node.op_type not in _FREE_OPERATORS),
        convolution_share=sum(flops[name] for name in _CONVOLUTIONS) / max(flops.total(), 1),
        recurrent_share=sum(flops[name] for name in _RECURRENT) / max(flops.total(), 1),
    )


def _graph(model: Model) -> Any:
    require("onnx", "onnx", "reading an ONNX file")
    import onnx

    return onnx.load(str(model.program), load_external_data=False).graph


def _inferred(model: Model, leaves: Sequence[Tensor]) -> Any:
    import onnx

    loaded = onnx.load(str(model.program), load_external_data=False)
    names = {value.name for value in loaded.graph.initializer}
    for port, leaf in zip([p for p in loaded.graph.input if p.name not in names], leaves, strict=False):
        for dimension, size in zip(port.type.tensor_type.shape.dim, leaf.shape, strict=False):
            dimension.Clear()
            dimension.dim_value = size
    for port in loaded.graph.output:
        port.type.tensor_type.ClearField("shape")
    del loaded.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(loaded, data_prop=True).graph


def _nodes(graph: Any) -> list[Any]:
    return [inner for node in graph.node for inner in (node, *_inside(node))]


def _inside(node: Any) -> Iterable[Any]:
    return [inner for attribute in node.attribute if attribute.HasField("g") for inner in _nodes(attribute.g)]


def _shapes(graph: Any) -> dict[str, tuple[int, ...]]:
    found = {value.name: tuple(value.dims) for value in graph.initializer}
    for port in (*graph.input, *graph.value_info, *graph.output):
        dims = port.type.tensor_type.shape.dim
        found[port.name] = tuple(d.dim_value if d.HasField("dim_value") else _UNKNOWN_SIZE for d in dims)
    return found


def _flops(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    out = math.prod(shapes.get(node.output[0], ())) if node.output else 0
    second = shapes.get(node.input[1], ()) if len(node.input) > 1 else ()
    if node.op_type in _CONVOLUTIONS and second:
        return 2 * out * math.prod(second[1:])
    if node.op_type in ("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul") and shapes.get(node.input[0]):
        return 2 * out * shapes[node.input[0]][-1]
    if node.op_type in _RECURRENT and len(node.input) > 2:
        steps = shapes.get(node.input[0], (0, 0))
        return 2 * math.prod(steps[:2]) * (math.prod(second) + math.prod(shapes.get(node.input[2], ())))
    return 0
