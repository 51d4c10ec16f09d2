"""Which weights of a graph are split over chips, and along which dimension: one stated rule, applied in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx
from torch.export import ExportedProgram

from vivace.runtimes import eager

RULE = (
    "linear layers and convolutions are split along their outputs, and along their inputs where those come from such a "
    "layer with only element-wise operations, reshapes, pools and attention between (Megatron-LM); embeddings along "
    "their width; all else, and what the number of parts does not divide, is whole on every chip"
)
"""After Shoeybi et al., Megatron-LM, 2019 (arXiv:1909.08053), section 3."""
_PRODUCTS = ("linear", "conv1d", "conv2d", "conv3d")
_PASSING = frozenset(
    {
        *("add", "sub", "mul", "div", "relu", "relu6", "gelu", "silu", "sigmoid", "tanh", "leaky_relu", "elu", "mish"),
        *("hardtanh", "hardswish", "hardsigmoid", "softplus", "clamp", "clamp_min", "neg", "pow", "exp", "where"),
        *("view", "reshape", "flatten", "unflatten", "transpose", "permute", "contiguous", "clone", "dropout", "to"),
        *("_to_copy", "unsqueeze", "squeeze", "split", "split_with_sizes", "chunk", "unbind", "select", "expand"),
        *("scaled_dot_product_attention", "batch_norm", "max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d"),
        *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "getitem", "pad", "feature_dropout", "detach", "alias"),
    }
)
"""Operators after which features that lie on several chips still do."""


@dataclasses.dataclass(frozen=True)
class Split:
    """One weight of a graph and the dimension along which it is split; None where every chip has all of it."""

    name: str
    shape: tuple[int, ...]
    dimension: int | None


def splits_of(program: ExportedProgram, parts: int) -> list[Split]:
    """How each weight is split into so many parts, in the order of `eager.lifted_values`, by `RULE`."""
    names = [name.removeprefix("module.") for name in eager.lifted_names(program)]
    values = eager.lifted_values(program)
    chosen: dict[fx.Node, int | None] = {}
    if parts > 1:
        _Walk(parts, chosen).over(program.graph_module.graph)
    places = [node for node in program.graph_module.graph.nodes if node.op == "placeholder"]
    return [
        Split(name, tuple(value.shape), chosen.get(place))
        for name, value, place in zip(names, values, places, strict=False)
        if isinstance(value, Tensor)
    ]


class _Walk:
    """Goes through a graph once and remembers whose features are split. The first use of a weight decides."""

    def __init__(self, parts: int, chosen: dict[fx.Node, int | None]) -> None:
        self._parts = parts
        self._chosen = chosen
        self._split: set[fx.Node] = set()

    def over(self, graph: fx.Graph) -> None:
        """Choose for every weight that a product takes."""
        for node in graph.nodes:
            name = _name(node)
            if name in _PRODUCTS:
                self._product(node)
            elif name == "embedding":
                self._choose(node.args[0], 1, node)
            elif name in _PASSING and any(source in self._split for source in node.all_input_nodes):
                self._split.add(node)

    def _product(self, node: fx.Node) -> None:
        given, weight = node.args[0], node.args[1]
        bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
        if _groups(node) > 1:
            return
        if given in self._split and self._choose(weight, 1, None):
            return  # each chip has a part of every sum: the answer is whole once they are added up
        if self._choose(weight, 0, node) and bias is not None:
            self._choose(bias, 0, None)

    def _choose(self, weight: Any, dimension: int, gives: fx.Node | None) -> bool:
        """Split a weight along a dimension, unless that is decided or cannot be; `gives` is split then."""
        if not isinstance(weight, fx.Node) or weight.op != "placeholder" or weight in self._chosen:
            return False
        shape: Sequence[int] = weight.meta["val"].shape
        if len(shape) <= dimension or shape[dimension] % self._parts or shape[dimension] < self._parts:
            return False
        self._chosen[weight] = dimension
        if gives is not None:
            self._split.add(gives)
        return True


def _groups(node: fx.Node) -> int:
    if _name(node) == "linear":
        return 1
    found = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
    return int(found)  # type: ignore[arg-type]


def _name(node: fx.Node) -> str:
    if node.op != "call_function":
        return ""
    return str(getattr(node.target, "_opname", getattr(node.target, "__name__", "")))
