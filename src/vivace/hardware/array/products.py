"""Reads any exported program as the matrix products that an array would compute, by shapes alone."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from vivace.core.errors import UnsupportedModel
from vivace.hardware.array.cycles import Gemm
from vivace.hardware.array.layers import ArrayLayer
from vivace.hardware.array.sparse import is_two_of_four
from vivace.hardware.graph.refusal import name_of

Weight = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Products:
    """The products of a network in order, and how often each other operation occurs, which is not the array's."""

    layers: tuple[ArrayLayer, ...]
    beside: Mapping[str, int]


def products_of(program: ExportedProgram, views: frozenset[str] = frozenset()) -> Products:
    """The products of a program that was exported with its shapes fixed: linear layers, convolutions, matrix products,
    attention (two products a head), and recurrent layers, step by step.

    `views` names operations that take no work. Raises UnsupportedModel where there is no product at all.
    """
    if any(_operator(node) == "einsum" for node in program.graph.nodes):
        program = _spelt_out(program)
    names = {spec.arg.name: str(spec.target) for spec in program.graph_signature.input_specs if spec.target}
    weights = {node: program.state_dict[target] for node, target in names.items() if target in program.state_dict}
    layers: list[ArrayLayer] = []
    beside: Counter[str] = Counter()
    for node in program.graph.nodes:
        operator = _operator(node)
        beside.update(_WITHIN.get(operator, ()))
        if operator in _READERS:
            layers += [ArrayLayer(name_of(node), gemm) for gemm in _READERS[operator](node, weights)]
        elif operator and operator not in views and not operator.startswith(("sym_", "_assert")):
            beside[operator] += 1
    if not layers:
        raise UnsupportedModel(
            "the network has no matrix product, so an array has nothing to compute; allowed are networks with linear "
            f"layers, convolutions, attention or recurrent layers ({', '.join(sorted(_READERS))})"
        )
    return Products(tuple(layers), dict(beside))


def _spelt_out(program: ExportedProgram) -> ExportedProgram:
    """The program with what is not read here in smaller operations, einsum as products of matrices among them."""
    table: Any = torch.export.default_decompositions()
    read: list[Any] = [one for one in table if one._opname in _READERS]
    for operator in read:
        table.pop(operator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, of what it is about to change inside
        found: ExportedProgram = program.run_decompositions(table)
    return found


def _operator(node: fx.Node) -> str:
    is_call = node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)
    return str(node.target._opname) if is_call else ""  # type: ignore[union-attr]


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in node.meta["val"].shape)


Reader = Callable[[fx.Node, Mapping[str, Tensor]], Iterator[Gemm]]


def _linear(node: fx.Node, weights: Mapping[str, Tensor]) -> Iterator[Gemm]:
    inputs, weight = _shape(node.args[0]), node.args[1]
    yield Gemm(math.prod(inputs[:-1]), _shape(weight)[0], inputs[-1], 1, _is_sparse(weight, weights))


def _addmm(node: fx.Node, weights: Mapping[str, Tensor]) -> Iterator[Gemm]:
    yield from _product(node.args[1], node.args[2])


def _matmul(node: fx.Node, weights: Mapping[str, Tensor]) -> Iterator[Gemm]:
    yield from _product(node.args[0], node.args[1])


def _baddbmm(node: fx.Node, weights: Mapping[str, Tensor]) -> Iterator[Gemm]:
    yield from _product(node.args[1], node.args[2])


def _product(one: Any, other: Any) -> Iterator[Gemm]:
    """Of two tensors as torch.matmul takes them: a matrix on the right serves all rows, others come by pairs."""
    left, right = _shape(one), _shape(other)
    left, right = (1, *left) if len(left) == 1 else left, (*right, 1) if len(right) == 1 else right
    if len(right) == 2:
        yield Gemm(math.prod(left[:-1]), right[-1], left[-1])
        return
    pairs = math.prod(np.broadcast_shapes(left[:-2], right[:-2]))
    yield Gemm(left[-2], right[-1], left[-1], pairs)


def _convolution(node: fx.Node, weights: Mapping[str, Tensor]) -> Iterator[Gemm]:
    weight = _shape(node.args[1])
    result = _shape(node)
    inputs = _shape(node.args[0])
    channels = inputs[-len(weight) + 1]
    groups = channels // weight[1]
    places = math.prod(result) // result[-len(weight) + 1]
    sparse = _is_sparse(node.args[1], weights, groups)
    yield Gemm(places, weight[0] // groups, math.prod(weight[1:]), groups, sparse)


def _transposed(node: fx.Node, weights: Mapping[str, Tensor]) -> Iterator[Gemm]:
    """Each place of the input gives a window of the output: inputs and outputs change places."""
    weight, inputs = _shape(node.args[1]), _shape(node.args[0])
    channels = inputs[-len(weight) + 1]
    groups = int(node.args[6]) if len(node.args) > 6 else 1  # type: ignore[arg-type]
    yield Gemm(math.prod(inputs) // channels, math.prod(weight[1:]), channels // groups, groups)


def _general(node: fx.Node, weights: Mapping[str, Tensor]) -> Iterator[Gemm]:
    """aten.convolution says whether it is transposed, and its groups, in other places than its relatives."""
    if not node.args[6]:
        yield from _convolution(node, weights)
        return
    weight, inputs = _shape(node.args[1]), _shape(node.args[0])
    channels, groups = inputs[-len(weight) + 1], int(node.args[8])  # type: ignore[arg-type]
    yield Gemm(math.prod(inputs) // channels, math.prod(weight[1:]), channels // groups, groups)


def _attention(node: fx.Node, weights: Mapping[str, Tensor]) -> Iterator[Gemm]:
    query, key, value = (_shape(one) for one in node.args[:3])
    heads = math.prod(query[:-2])
    yield Gemm(query[-2], key[-2], query[-1], heads)
    yield Gemm(query[-2], value[-1], key[-2], heads)


def _recurrent(node: fx.Node, weights: Mapping[str, Tensor]) -> Iterator[Gemm]:
    """Inputs of all steps at once, then a product with the state for each step."""
    inputs = _shape(node.args[0])
    parameters = [arg for arg in node.args if isinstance(arg, (list, tuple))][-1]
    steps = inputs[1] if node.args[-1] is True else inputs[0]
    batch = math.prod(inputs[:-1]) // steps
    for number, weight in enumerate(one for one in parameters if len(_shape(one)) == 2):
        outputs, depth = _shape(weight)
        yield Gemm(batch, outputs, depth, steps) if number % 2 else Gemm(batch * steps, outputs, depth)


def _is_sparse(node: Any, weights: Mapping[str, Tensor], groups: int = 1) -> bool:
    """Whether a weight is there, and of every four along the depth of each group at most two are not zero."""
    weight = weights.get(getattr(node, "name", ""))
    if weight is None:
        return False
    flat: Weight = weight.detach().float().numpy().reshape(groups, weight.shape[0] // groups, -1)
    return all(is_two_of_four(group.T) for group in flat)


_GATED = ("sigmoid", "tanh")
_WITHIN: Mapping[str, tuple[str, ...]] = {
    "scaled_dot_product_attention": ("softmax",), "lstm": _GATED, "gru": _GATED, "rnn_tanh": ("tanh",),
    "rnn_relu": ("relu",),
}  # fmt: skip
"""What else an operator with products does, by its name."""
_READERS: dict[str, Reader] = {
    "linear": _linear, "addmm": _addmm, "mm": _matmul, "matmul": _matmul, "bmm": _matmul, "baddbmm": _baddbmm,
    "conv1d": _convolution, "conv2d": _convolution, "conv3d": _convolution, "convolution": _general,
    "conv_transpose1d": _transposed, "conv_transpose2d": _transposed, "conv_transpose3d": _transposed,
    "scaled_dot_product_attention": _attention, "lstm": _recurrent, "gru": _recurrent, "rnn_tanh": _recurrent,
    "rnn_relu": _recurrent,
}  # fmt: skip
