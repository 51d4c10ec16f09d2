"""Linear layers in 8-bit integers inside the PyTorch graph, activations scaled as they come."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from vivace.core.cost import Cost
from vivace.core.errors import MissingExtra, NotApplicable
from vivace.core.facts import Fact
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.techniques.graph import GraphEdit, torch_program

aten = torch.ops.aten
SMALLEST_SCALE = float(torch.finfo(torch.float32).eps)
STEPS = 127.5
"""Half of the 255 steps between -128 and 127, as torchao divides the largest value."""
OFFSET = 128
"""Activations go unsigned (u8 x s8), which is what the dot-product instructions multiply; its share is taken off."""


@dataclasses.dataclass(frozen=True)
class TorchaoDynamicInt8(Technique):
    """Linear layers with int8 weights, one scale an output channel, and int8 activations, one scale a row.

    Weights are quantized by torchao. Its tensor subclass cannot be stored without pickle, so the product is written
    into the graph as the plain operators that torchao's CPU kernel is made of; the stored program needs no torchao.
    These are about ten operators a layer, which `inductor` fuses; layers too small to earn that back get slower.
    Layers with fewer than `smallest` inputs or outputs are left alone. Raises NotApplicable when no layer is left, and
    MissingExtra without torchao.

    Source: torchao, Int8DynamicActivationInt8WeightConfig (https://docs.pytorch.org/ao, version 0.18) and
    torchao/kernel/intmm.py; Dettmers et al., LLM.int8(), NeurIPS 2022 (arXiv:2208.07339), section 2, row-wise scales.

    >>> TorchaoDynamicInt8().rewrite(Cost(1e9, 4e6, 4e6, 100)).precision
    'int8'
    """

    smallest: int = 16

    stage = Stage.PRECISION
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = frozenset(
        {Fact.TORCH_GRAPH, Fact.HAS_LINEAR, Fact.FLOAT32, Fact.UNQUANTIZED, Fact.ON_CPU, Fact.INT8_INSTRUCTIONS}
    )
    breaks = frozenset({Fact.FLOAT32, Fact.UNQUANTIZED, Fact.ONNX_READY, Fact.OPENVINO_READY})
    source = "torchao 0.18, Int8DynamicActivationInt8WeightConfig; Dettmers et al., NeurIPS 2022, arXiv:2208.07339"
    packages = ("torchao",)
    extra = "ao"

    def rewrite(self, cost: Cost) -> Cost:
        """A quarter of the weights, int8 products, and several small operators around each."""
        return cost.replace(
            precision="int8",
            weight_bytes=cost.weight_bytes / 4,
            operators=cost.operators * 2,
            efficiency=cost.efficiency * 0.6,
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model with its linear layers in int8."""
        quantize = _weight_quantizer()
        edit = GraphEdit(torch_program(model))
        layers = [node for node in edit.calls(aten.linear.default) if self._fits(edit, node)]
        if not layers:
            raise NotApplicable(f"no linear layer has float32 weights of at least {self.smallest} x {self.smallest}")
        for node in layers:
            _Product(edit, node).replace(quantize)
        return model.replace(program=edit.close(), lineage=(*model.lineage, str(self)))

    def _fits(self, edit: GraphEdit, node: Node) -> bool:
        weight = edit.weight(node.args[1])
        return weight is not None and weight.dtype is torch.float32 and min(weight.shape) >= self.smallest


def _weight_quantizer() -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """A function from weights to (int8 values, float32 scales), both by torchao."""
    try:
        from torchao.quantization import Int8Tensor, PerRow
    except ImportError:
        raise MissingExtra("torchao", "ao", "torchao-dynamic-int8") from None

    def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        quantized = Int8Tensor.from_hp(weight, granularity=PerRow())
        return quantized.qdata, quantized.scale.reshape(-1)

    return quantize


class _Product:
    """One linear layer, rewritten: y = (u8(x) @ w8 - 128 * sum(w8)) * scale(x) * scale(w) + bias."""

    def __init__(self, edit: GraphEdit, node: Node) -> None:
        self.edit = edit
        self.node = node

    def replace(self, quantize: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]) -> None:
        weight = self.edit.weight(self.node.args[1])
        assert weight is not None
        values, scales = quantize(weight)
        offset = values.sum(dim=1, dtype=torch.int32) * OFFSET
        stored = [
            self.edit.add_weight(f"{self.node.name}_{name}", value)
            for name, value in (("int8", values.t().contiguous()), ("scales", scales.float()), ("offset", offset))
        ]
        with self.edit.graph.inserting_before(self.node):
            result = self._product(self.node.args[0], *stored)
        self.node.replace_all_uses_with(result)
        self.edit.graph.erase_node(self.node)

    def _product(self, x: Any, weight: Node, scales: Node, offset: Node) -> Node:
        rows = self._call(aten.reshape.default, x, [-1, x.meta["val"].shape[-1]])
        largest = self._call(aten.amax.default, self._call(aten.abs.default, rows), [1], True)
        scale = self._call(aten.clamp_min.default, self._call(aten.div.Tensor, largest, STEPS), SMALLEST_SCALE)
        rounded = self._call(aten.round.default, self._call(aten.div.Tensor, rows, scale))
        rounded = self._call(aten.clamp.default, rounded, -OFFSET, OFFSET - 1)
        unsigned = self._call(aten.to.dtype, self._call(aten.add.Tensor, rounded, float(OFFSET)), torch.uint8)
        summed = self._call(aten.sub.Tensor, self._call(aten._int_mm.default, unsigned, weight), offset)
        y = self._call(
            aten.mul.Tensor,
            self._call(aten.mul.Tensor, self._call(aten.to.dtype, summed, torch.float32), scale),
            scales,
        )
        if len(self.node.args) > 2 and self.node.args[2] is not None:
            y = self._call(aten.add.Tensor, y, self.node.args[2])
        return self._call(aten.reshape.default, y, self._sizes(x))

    def _sizes(self, x: Node) -> list[Any]:
        """The result's shape: sizes that may vary are read from the input as it comes."""
        sizes: list[Any] = [
            n if isinstance(n, int) else self._call(aten.sym_size.int, x, axis)
            for axis, n in enumerate(x.meta["val"].shape[:-1])
        ]
        return [*sizes, self.node.meta["val"].shape[-1]]

    def _call(self, target: Any, *args: Any) -> Node:
        node = self.edit.graph.call_function(target, args)
        self.edit.infer(node)
        return node
