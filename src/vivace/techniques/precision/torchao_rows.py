"""What linear layers in int8 share: weights quantized by torchao, inputs taken as rows, the result shaped back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Set
from typing import Any

import torch
from torch.fx import Node

from vivace.core.errors import MissingExtra, NotApplicable
from vivace.techniques.graph import GraphEdit

aten = torch.ops.aten
Quantize = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def weight_quantizer(purpose: str) -> Quantize:
    """A function from weights [outputs, inputs] to (int8 values, one float32 scale an output), both by torchao.

    Raises MissingExtra, which names the purpose.
    """
    try:
        from torchao.quantization import Int8Tensor, PerRow
    except ImportError:
        raise MissingExtra("torchao", "ao", purpose) from None

    def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        quantized = Int8Tensor.from_hp(weight, granularity=PerRow())
        return quantized.qdata, quantized.scale.reshape(-1)

    return quantize


def large_layers(edit: GraphEdit, smallest: int, kept: Set[str]) -> list[Node]:
    """Linear layers whose float32 weights have at least `smallest` inputs and outputs, without those whose names are
    `kept` in float. NotApplicable without one."""
    layers = [node for node in edit.calls(aten.linear.default) if _fits(edit.weight(node.args[1]), smallest)]
    left = [node for node in layers if node.name not in kept]
    if not left:
        but = " but those that stay in float" if layers else ""
        raise NotApplicable(f"no linear layer{but} has float32 weights of at least {smallest} x {smallest}")
    return left


def _fits(weight: torch.Tensor | None, smallest: int) -> bool:
    return weight is not None and weight.dtype is torch.float32 and min(weight.shape) >= smallest


class RowProduct(ABC):
    """One linear layer on its way to other operators: subclasses write the product of rows and weights."""

    def __init__(self, edit: GraphEdit, node: Node) -> None:
        weight = edit.weight(node.args[1])
        assert weight is not None
        self.edit = edit
        self.node = node
        self.weight = weight

    @abstractmethod
    def rows(self, quantize: Quantize) -> Node:
        """The layer's output as rows [rows, outputs], before its bias."""

    def replace(self, quantize: Quantize) -> None:
        """Put the new product in the layer's place, with its bias and in the shape of its output."""
        with self.edit.graph.inserting_before(self.node):
            y = self.rows(quantize)
            if len(self.node.args) > 2 and self.node.args[2] is not None:
                y = self.call(aten.add.Tensor, y, self.node.args[2])
            y = self.call(aten.reshape.default, y, self._sizes())
        self.node.replace_all_uses_with(y)
        self.edit.graph.erase_node(self.node)

    def input_rows(self) -> Node:
        """The layer's input [..., inputs] as rows."""
        x: Any = self.node.args[0]
        return self.call(aten.reshape.default, x, [-1, x.meta["val"].shape[-1]])

    def store(self, name: str, value: torch.Tensor) -> Node:
        """A new weight of the layer."""
        return self.edit.add_weight(f"{self.node.name}_{name}", value)

    def call(self, target: Any, *args: Any) -> Node:
        """A call of an operator, with what it is known to give."""
        node = self.edit.graph.call_function(target, args)
        self.edit.infer(node)
        return node

    def _sizes(self) -> list[Any]:
        """The result's shape: sizes that may vary are read from the input as it comes."""
        x: Any = self.node.args[0]
        sizes: list[Any] = [
            n if isinstance(n, int) else self.call(aten.sym_size.int, x, axis)
            for axis, n in enumerate(x.meta["val"].shape[:-1])
        ]
        return [*sizes, self.node.meta["val"].shape[-1]]
