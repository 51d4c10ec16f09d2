"""Reads an exported program as a network of the few kinds of layers that hardware here is made of; names the others."""

from __future__ import annotations

import contextlib
import math
import operator as operators
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from vivace.core.errors import UnsupportedModel
from vivace.hardware.graph.integer import Window
from vivace.hardware.graph.layers import (
    Add,
    Affine,
    Clamp,
    Flat,
    Kind,
    Layer,
    Network,
    Normalization,
    Pool,
    Real,
    simplified,
)
from vivace.hardware.graph.refusal import ADVICE, name_of, refusal

_PASSED = frozenset(
    {"dropout", "dropout_", "feature_dropout", "clone", "contiguous", "detach", "alias", "identity", "to"}
)
_RELUS = frozenset({"relu", "relu_"})
_CLAMPS = frozenset({"clamp", "clamp_", "hardtanh", "hardtanh_", "relu6", "relu6_", "clamp_min", "clamp_max"})


def read(program: ExportedProgram, name: str = "network") -> Network:
    """The network of an exported program whose one input and one output are float tensors with samples first.

    Batch normalization is folded into products in float64, and activations into the layers before them. Raises
    UnsupportedModel for an operation that has no place in hardware here: with the layer, and what to do.
    """
    return simplified(_Reader(program).read(name))


class _Reader:
    """One pass over the nodes of a graph."""

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        names = {spec.arg.name: str(spec.target) for spec in program.graph_signature.input_specs if spec.target}
        self._weights = {node: _value(program, target) for node, target in names.items()}
        self._values: dict[str, int] = {}
        self._shapes: list[tuple[int, int, int]] = []
        self._layers: list[Layer] = []

    def read(self, name: str) -> Network:
        """The network, not simplified."""
        given = [node for node in self._program.graph.find_nodes(op="placeholder") if node.name not in self._weights]
        if len(given) != 1:
            raise UnsupportedModel(
                f"the model takes {len(given)} tensors; hardware here takes one stream, so give a model with one input"
            )
        self._values[given[0].name] = 0
        try:
            self._shapes.append(_shape(given[0], "the input"))
        except UnsupportedModel as reason:
            raise _first_refusal(self._program) or reason from None
        needed = _needed(self._program.graph)
        for node in self._program.graph.nodes:
            if node.op == "call_function" and node in needed:
                self._call(node)
        self._check_output()
        return Network(name, self._shapes[0], tuple(self._layers))

    def _check_output(self) -> None:
        results: Any = self._program.graph.output_node().args[0]
        tensors = [result for result in results if isinstance(result, fx.Node)]
        if len(tensors) != 1 or self._values.get(tensors[0].name) != len(self._layers) or not self._layers:
            raise UnsupportedModel(
                f"the model answers with {len(tensors)} tensors; hardware here gives one stream, the last layer's: "
                "wrap the model so that it returns that alone"
            )

    def _call(self, node: fx.Node) -> None:
        sources = [arg for arg in node.all_input_nodes if arg.name in self._values]
        if node.target is operators.getitem and sources and node.args[1] == 0:
            self._values[node.name] = self._values[sources[0].name]  # of an operator that gives more than is read
            return
        if not isinstance(node.target, torch._ops.OpOverload):
            return
        if not sources:
            self._computed(node)
            return
        operator = str(node.target._opname)
        if operator.startswith("sym_") or operator == "_assert_tensor_metadata":
            return
        if operator in _PASSED:
            _shape(node, f"layer {name_of(node)}: what {operator} gives")  # a cast would change the numbers
            self._values[node.name] = self._values[sources[0].name]
            return
        reader = _READERS.get(operator)
        kind = reader(self, node) if reader is not None else None
        if kind is None:
            raise refusal(node, operator, operator in _READERS)
        self._add(node, kind, [self._values[source.name] for source in sources])

    def _computed(self, node: fx.Node) -> None:
        """A constant of constants, such as a weight that is turned; sizes and checks are not needed."""
        used = node.all_input_nodes
        if used and all(one.name in self._weights for one in used):
            args: Any = fx.node.map_arg(node.args, lambda one: self._weights[one.name])
            options: Any = fx.node.map_arg(node.kwargs, lambda one: self._weights[one.name])
            with torch.no_grad(), contextlib.suppress(Exception):  # whatever it is, it is missed where it is used
                found = node.target(*args, **options)  # type: ignore[operator]
                if isinstance(found, Tensor):
                    self._weights[node.name] = found

    def _add(self, node: fx.Node, kind: Kind, sources: Sequence[int]) -> None:
        if isinstance(kind, Add):  # in the order of its operands
            one, other = (self._values[str(arg.name)] for arg in node.args[:2])  # type: ignore[union-attr]
            sources = (one, other)
        shape = _shape(node, name_of(node))
        if isinstance(kind, Flat) and self._shapes[sources[0]] == shape:
            self._values[node.name] = sources[0]
            return
        self._layers.append(Layer(name_of(node), kind, tuple(sources), shape))
        self._shapes.append(shape)
        self._values[node.name] = len(self._layers)

    def weight(self, node: Any) -> Real | None:
        """The value of a weight's node in float64; None for anything else."""
        if not isinstance(node, fx.Node) or node.name not in self._weights:
            return None
        found: Real = self._weights[node.name].detach().double().numpy()
        return found

    def is_value(self, node: Any) -> bool:
        """Whether a node carries activations."""
        return isinstance(node, fx.Node) and node.name in self._values

    def shape_of(self, node: fx.Node) -> tuple[int, int, int]:
        """The shape of a value that was read."""
        return self._shapes[self._values[node.name]]


def _linear(reader: _Reader, node: fx.Node) -> Kind | None:
    weight = reader.weight(node.args[1])
    if weight is None or weight.ndim != 2 or reader.shape_of(node.args[0])[1:] != (1, 1):  # type: ignore[arg-type]
        return None
    return Affine(weight[:, :, None, None], _bias(reader, node, len(weight)))


def _addmm(reader: _Reader, node: fx.Node) -> Kind | None:
    bias, weight = reader.weight(node.args[0]), reader.weight(node.args[2])
    if bias is None or weight is None or not reader.is_value(node.args[1]):
        return None
    return Affine(weight.T[:, :, None, None].copy(), np.broadcast_to(bias, (weight.shape[1],)).copy())


def _matmul(reader: _Reader, node: fx.Node) -> Kind | None:
    weight = reader.weight(node.args[1])
    if weight is None or weight.ndim != 2 or reader.shape_of(node.args[0])[1:] != (1, 1):  # type: ignore[arg-type]
        return None
    return Affine(weight.T[:, :, None, None].copy(), np.zeros(weight.shape[1]))


def _any_convolution(reader: _Reader, node: fx.Node) -> Kind | None:
    """convolution, which PyTorch takes others apart into: (input, weight, bias, stride, padding, dilation, transposed,
    output padding, groups)."""
    stride, padding, dilation, transposed, _, groups = node.args[3:]
    return None if transposed else _convolved(reader, node, stride, padding, dilation, groups)


def _convolution(reader: _Reader, node: fx.Node) -> Kind | None:
    how = (_argument(node, place, default) for place, default in ((3, 1), (4, 0), (5, 1), (6, 1)))
    return _convolved(reader, node, *how)


def _convolved(reader: _Reader, node: fx.Node, stride: Any, padding: Any, dilation: Any, groups: Any) -> Kind | None:
    weight = reader.weight(node.args[1])
    if weight is None or weight.ndim != 4 or _pair(dilation) != (1, 1):
        return None
    kernel = (weight.shape[2], weight.shape[3])
    if isinstance(padding, str):
        padding = {"valid": (0, 0), "same": (kernel[0] // 2, kernel[1] // 2)}[padding]
        if kernel[0] % 2 == 0 or kernel[1] % 2 == 0:
            return None
    window = Window(kernel, _pair(stride), _pair(padding))
    return Affine(weight, _bias(reader, node, len(weight)), window, int(groups))


def _bias(reader: _Reader, node: fx.Node, outputs: int) -> Real:
    bias = reader.weight(_argument(node, 2, None))
    return np.zeros(outputs) if bias is None else bias


def _batch_norm(reader: _Reader, node: fx.Node) -> Kind | None:
    return None if node.args[5] is True else _normalized(reader, node, float(node.args[7]))  # type: ignore[arg-type]


def _core_batch_norm(reader: _Reader, node: fx.Node) -> Kind | None:
    return _normalized(reader, node, float(node.args[6]))  # type: ignore[arg-type]


def _normalized(reader: _Reader, node: fx.Node, eps: float) -> Kind | None:
    mean, variance = reader.weight(node.args[3]), reader.weight(node.args[4])
    if mean is None or variance is None:
        return None
    gamma, beta = reader.weight(node.args[1]), reader.weight(node.args[2])
    scale = 1 / np.sqrt(variance + eps)
    scale = scale if gamma is None else scale * gamma
    shift = -mean * scale if beta is None else beta - mean * scale
    return Normalization(tuple(scale.tolist()), tuple(shift.tolist()))


def _pool(reader: _Reader, node: fx.Node) -> Kind | None:
    average = str(node.target._opname).startswith("avg")  # type: ignore[union-attr]
    kernel = _pair(node.args[1])
    stride = _argument(node, 2, None) or kernel
    padding = _pair(_argument(node, 3, 0))
    rest = {"ceil_mode": _argument(node, 4 if average else 5, False)}
    if average:
        counted = _argument(node, 5, True) or padding == (0, 0)
        rest["others"] = not counted or _argument(node, 6, None) is not None
    else:
        rest["others"] = _pair(_argument(node, 4, 1)) != (1, 1)
    window = Window(kernel, _pair(stride), padding)
    fits = _shape(node, "")[1:] == window.output(*reader.shape_of(node.args[0])[1:])  # type: ignore[arg-type]
    return Pool(window, average) if fits and not rest["others"] else None


def _adaptive(reader: _Reader, node: fx.Node) -> Kind | None:
    height, width = reader.shape_of(node.args[0])[1:]  # type: ignore[arg-type]
    rows, columns = _shape(node, "")[1:]
    if height % rows or width % columns:
        return None
    kernel = (height // rows, width // columns)
    return Pool(Window(kernel, kernel), "avg" in str(node.target._opname))  # type: ignore[union-attr]


def _mean(reader: _Reader, node: fx.Node) -> Kind | None:
    axes: Any = _argument(node, 1, ())
    if sorted(axis % 4 for axis in axes) != [2, 3] or len(node.args[0].meta["val"].shape) != 4:  # type: ignore[union-attr]
        return None
    kernel = reader.shape_of(node.args[0])[1:]  # type: ignore[arg-type]
    return Pool(Window(kernel, kernel), average=True)


def _add(reader: _Reader, node: fx.Node) -> Kind | None:
    both = reader.is_value(node.args[0]) and reader.is_value(node.args[1])
    if reader.is_value(node.args[0]) and (shift := reader.weight(node.args[1])) is not None:
        return _shifted(reader, node, shift)
    if not both or _argument(node, 2, 1) != 1 or node.kwargs.get("alpha", 1) != 1:
        return None
    same = reader.shape_of(node.args[0]) == reader.shape_of(node.args[1])  # type: ignore[arg-type]
    return Add() if same else None


def _shifted(reader: _Reader, node: fx.Node, shift: Real) -> Kind | None:
    """A bias that is added by itself: one number a channel."""
    channels = reader.shape_of(node.args[0])[0]  # type: ignore[arg-type]
    own = (channels, *(1,) * (len(node.meta["val"].shape) - 2))
    if shift.shape not in (own, (1, *own)) or _argument(node, 2, 1) != 1 or node.kwargs.get("alpha", 1) != 1:
        return None
    return Normalization((1.0,) * channels, tuple(shift.reshape(-1).tolist()))


def _relu(reader: _Reader, node: fx.Node) -> Kind | None:
    return Clamp(low=0.0)


def _clamp(reader: _Reader, node: fx.Node) -> Kind | None:
    operator = str(node.target._opname).rstrip("_")  # type: ignore[union-attr]
    first, second = _argument(node, 1, None), _argument(node, 2, None)
    if operator == "relu6":
        first, second = 0.0, 6.0
    elif operator == "hardtanh":
        first, second = -1.0 if first is None else first, 1.0 if second is None else second
    elif operator == "clamp_max":
        first, second = None, first
    if not all(bound is None or isinstance(bound, int | float) for bound in (first, second)):
        return None
    return Clamp(-math.inf if first is None else float(first), math.inf if second is None else float(second))


def _flatten(reader: _Reader, node: fx.Node) -> Kind | None:
    shape = node.meta["val"].shape
    elements = math.prod(reader.shape_of(node.args[0]))  # type: ignore[arg-type]
    return Flat() if len(shape) == 2 and shape[1] == elements else None


_READERS: dict[str, Callable[[_Reader, fx.Node], Kind | None]] = {
    "linear": _linear,
    "addmm": _addmm,
    "matmul": _matmul,
    "mm": _matmul,
    "conv2d": _convolution,
    "convolution": _any_convolution,
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _core_batch_norm,
    "max_pool2d": _pool,
    "max_pool2d_with_indices": _pool,
    "avg_pool2d": _pool,
    "adaptive_avg_pool2d": _adaptive,
    "_adaptive_avg_pool2d": _adaptive,
    "adaptive_max_pool2d": _adaptive,
    "mean": _mean,
    "add": _add,
    "add_": _add,
    "flatten": _flatten,
    "view": _flatten,
    "reshape": _flatten,
    "_unsafe_view": _flatten,
    "squeeze": _flatten,
    **dict.fromkeys(_RELUS, _relu),
    **dict.fromkeys(_CLAMPS, _clamp),
}


def _needed(graph: fx.Graph) -> set[fx.Node]:
    """What the answer depends on: a layer of which nothing but its size is read would have no stream to feed."""
    needed, waiting = set(), [graph.output_node()]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting.extend(node.all_input_nodes)
    return needed


def _first_refusal(program: ExportedProgram) -> UnsupportedModel | None:
    """Why the first operator that has no engine has none; None where each has one."""
    for node in program.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload) and node.all_input_nodes:
            operator = str(node.target._opname)
            if operator not in _READERS and operator in ADVICE:
                return refusal(node, operator)
    return None


def _shape(node: fx.Node, name: str) -> tuple[int, int, int]:
    """(channels, height, width) of one sample; a vector of features is (features, 1, 1)."""
    value = node.meta.get("val")
    value = value[0] if isinstance(value, tuple) else value
    if not isinstance(value, Tensor) or value.dtype not in (torch.float32, torch.float64):
        raise UnsupportedModel(f"{name or node.name} is no float tensor; hardware here takes real numbers as integers")
    sizes = [size if isinstance(size, int) else None for size in value.shape[1:]]
    if len(sizes) not in (1, 3) or None in sizes:
        raise UnsupportedModel(
            f"{name or node.name} has the shape {list(value.shape)}; allowed are [samples, features] and "
            "[samples, channels, height, width] with fixed sizes"
        )
    whole = [int(size) for size in sizes if size is not None]
    return (whole[0], 1, 1) if len(whole) == 1 else (whole[0], whole[1], whole[2])


def _argument(node: fx.Node, position: int, default: Any) -> Any:
    if len(node.args) > position:
        return node.args[position]
    schema: Any = node.target._schema.arguments  # type: ignore[union-attr]
    return node.kwargs.get(schema[position].name, default) if len(schema) > position else default


def _pair(value: Any) -> tuple[int, int]:
    numbers = [int(number) for number in (value if isinstance(value, list | tuple) else (value,))]
    return (numbers[0], numbers[-1])


def _value(program: ExportedProgram, name: str) -> Any:
    return program.state_dict[name] if name in program.state_dict else program.constants[name]
