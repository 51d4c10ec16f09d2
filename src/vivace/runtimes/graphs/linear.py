"""The linear layers of a captured graph with the numbers that they met in one call: which row meets which inputs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from vivace.core.layer import Layer
from vivace.core.program import Model
from vivace.runtimes import eager
from vivace.runtimes.graphs.layers import each_name, is_product, path_of

Numbers = NDArray[np.float64]
CONVOLUTIONS = {"conv1d": 1, "conv2d": 2}
_PLACES = {"linear": (0, 1), "addmm": (1, 2), "mm": (0, 1), "matmul": (0, 1), "conv1d": (0, 1), "conv2d": (0, 1)}
"""Of each operator, where its inputs and its weights stand among its arguments."""


@dataclasses.dataclass(frozen=True)
class LinearLayer:
    """A product of inputs with weights, as one call had it. `operator` is its name in torch.ops with the arguments of
    the call, so that it can be run again; `label` is the layer as reports name it. Weights are `outputs` rows of
    `elements` numbers, which meet the inputs at `positions` places: samples, and for a convolution the places of its
    window.
    """

    layer: Layer
    label: str
    operator: str
    arguments: tuple[Any, ...]
    inputs: Tensor
    weights: Tensor
    bias: Tensor | None
    outputs: int
    elements: int
    positions: int
    result_shape: tuple[int, ...]

    @property
    def products(self) -> int:
        """How many inner products one call takes."""
        return self.outputs * self.positions

    @property
    def result_elements(self) -> int:
        """How many numbers the layer gives in one call."""
        return math.prod(self.result_shape)

    def row(self, output: int, position: int) -> tuple[Numbers, Numbers, float]:
        """The weights of one output, the inputs that they meet at one position, and the bias, in double precision."""
        bias = 0.0 if self.bias is None else float(self.bias.detach().double().expand(self.outputs)[output])
        if self.layer.operator in CONVOLUTIONS:
            return (*self._window(output, position), bias)
        weights = self.weights[output] if self.layer.operator == "linear" else self.weights[:, output]
        return _numbers(weights), _numbers(self.inputs.reshape(-1, self.elements)[position]), bias

    def _window(self, output: int, position: int) -> tuple[Numbers, Numbers]:
        """A convolution's kernel, and the window of the inputs that it meets."""
        stride, padding, dilation, groups = _convolution(self.arguments)
        weights, inputs = self.weights, self.inputs
        if CONVOLUTIONS[self.layer.operator] == 1:
            weights, inputs = weights.unsqueeze(2), inputs.unsqueeze(2)
            stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
        places = self.positions // len(inputs)
        group, channels = output // (self.outputs // groups), weights.shape[1]
        part = inputs[position // places : position // places + 1, group * channels : (group + 1) * channels]
        size = tuple(weights.shape[2:])
        windows = torch.nn.functional.unfold(part.double(), size, dilation, padding, stride)
        return _numbers(weights[output].reshape(-1)), _numbers(windows[0, :, position % places])


def linear_layers(model: Model, leaves: Sequence[Tensor]) -> tuple[tuple[LinearLayer, ...], tuple[str, ...]]:
    """The linear layers of an exported graph with what they met in this call, in the graph's order; and a sentence for
    each product that is none or cannot be read so, such as one of two activations. The graph runs once."""
    lifted = eager.lifted_values(model.program)
    signature = model.program.graph_signature
    weights = frozenset(str(spec.arg.name) for spec in signature.input_specs if spec.target is not None)
    watcher = _Watcher(model.program.graph_module, weights)
    with torch.no_grad():
        watcher.run(*lifted, *leaves)
    names = _unlike(each_name([node for node, *_ in watcher.seen]), [node.name for node, *_ in watcher.seen])
    found, left_out = [], []
    for label, (node, arguments, result) in zip(names, watcher.seen, strict=True):
        reason = watcher.why_not(node, arguments)
        if reason:
            left_out.append(f"{label} is left out: {reason}")
        else:
            found.append(_layer(label, node, arguments, result))
    return tuple(found), tuple(left_out)


def _unlike(labels: list[str], nodes: list[str]) -> list[str]:
    """The labels, with the node's name where a module is called more than once.

    >>> _unlike(["a", "b", "a"], ["linear", "linear_1", "linear_2"])
    ['a/linear', 'b', 'a/linear_2']
    """
    pairs = zip(labels, nodes, strict=True)
    return [label if labels.count(label) == 1 else f"{label}/{node}" for label, node in pairs]


class _Watcher(fx.Interpreter):
    """Runs a graph and keeps the arguments and the result of each product."""

    def __init__(self, graph: fx.GraphModule, weights: frozenset[str]) -> None:
        super().__init__(graph)
        self.seen: list[tuple[fx.Node, tuple[Any, ...], Tensor]] = []
        self._weights = weights

    def run_node(self, n: fx.Node) -> Any:
        """Run one node."""
        if not is_product(n):
            return super().run_node(n)
        arguments, _ = self.fetch_args_kwargs_from_env(n)
        result = super().run_node(n)
        self.seen.append((n, arguments, result))
        return result

    def why_not(self, node: fx.Node, arguments: tuple[Any, ...]) -> str:
        """Why a product is no linear layer that can be read; empty where it is one."""
        name = node.target._opname  # type: ignore[union-attr]
        if name not in _PLACES or node.kwargs:
            return f"{name} is not read yet"
        inputs, weights = _PLACES[name]
        if not self._is_weight(node.args[weights]):
            return "it multiplies two activations"
        if name == "matmul" and (arguments[weights].dim() != 2 or arguments[inputs].dim() < 2):
            return f"its weights have {arguments[weights].dim()} dimensions"
        if name in CONVOLUTIONS and len(arguments) > 4 and isinstance(arguments[4], str):
            return f"its padding is {arguments[4]!r}, and only numbers are read"
        return ""

    def _is_weight(self, value: Any) -> bool:
        """Whether a value comes from one weight alone, through views of it."""
        while isinstance(value, fx.Node) and value.op == "call_function" and len(value.all_input_nodes) == 1:
            value = value.all_input_nodes[0]
        return isinstance(value, fx.Node) and value.name in self._weights


def _layer(label: str, node: fx.Node, arguments: tuple[Any, ...], result: Tensor) -> LinearLayer:
    name = node.target._opname  # type: ignore[union-attr]
    place, at = _PLACES[name]
    inputs, weights = arguments[place], arguments[at]
    bias = (
        arguments[0]
        if name == "addmm"
        else arguments[2]
        if name not in ("mm", "matmul") and len(arguments) > 2
        else None
    )
    if name in CONVOLUTIONS:
        if inputs.dim() == CONVOLUTIONS[name] + 1:
            inputs = inputs.unsqueeze(0)
        outputs, elements = weights.shape[0], math.prod(weights.shape[1:])
    else:
        outputs, elements = weights.shape if name == "linear" else reversed(weights.shape)
    return LinearLayer(
        Layer(node.name, path_of(node), name), label, str(node.target), tuple(arguments), inputs, weights, bias,
        outputs, elements, result.numel() // outputs, tuple(result.shape),
    )  # fmt: skip


def _convolution(arguments: tuple[Any, ...]) -> tuple[Any, Any, Any, int]:
    """Stride, padding, dilation and groups of a convolution's call, with what is left out."""
    count = arguments[1].dim() - 2
    given = list(arguments[3:])
    filled = given + [1, 0, 1, 1][len(given) :]
    stride, padding, dilation = (
        (one,) * count if isinstance(one, int) else tuple(one) * (count if len(one) == 1 else 1) for one in filled[:3]
    )
    return stride, padding, dilation, int(filled[3])


def _numbers(values: Tensor) -> Numbers:
    found: Numbers = values.detach().cpu().double().numpy()
    return found
