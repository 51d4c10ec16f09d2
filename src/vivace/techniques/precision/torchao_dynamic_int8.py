"""Linear layers in 8-bit integers inside the PyTorch graph, activations scaled as they come."""

from __future__ import annotations

import dataclasses

import torch
from torch.fx import Node

from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.techniques.graph import GraphEdit, torch_program
from vivace.techniques.precision.torchao_rows import Quantize, RowProduct, large_layers, weight_quantizer
from vivace.techniques.sensitivity import kept_layers, with_quantized

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
    Layers with fewer than `smallest` inputs or outputs are left alone, as are those that the user named. Raises
    NotApplicable when no layer is left, and MissingExtra without torchao.

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
        """A quarter of the weights, int8 products, and several small operators around each; nothing where most of the
        work is in convolutions or recurrent cells, which stay as they are."""
        if cost.mostly_convolutions or cost.mostly_recurrent:
            return cost
        return cost.replace(
            precision="int8",
            weight_bytes=cost.weight_bytes / 4,
            operators=cost.operators * 2,
            efficiency=cost.efficiency * 0.6,
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model with its linear layers in int8."""
        quantize = weight_quantizer(self.name())
        edit = GraphEdit(torch_program(model))
        kept = kept_layers(model, work)
        layers = large_layers(edit, self.smallest, kept)
        names = [node.name for node in layers]
        for node in layers:
            _Product(edit, node).replace(quantize)
        made = model.replace(program=edit.close(), lineage=(*model.lineage, str(self)))
        return with_quantized(made, names, kept)


class _Product(RowProduct):
    """One linear layer, rewritten: y = (u8(x) @ w8 - 128 * sum(w8)) * scale(x) * scale(w) + bias."""

    def rows(self, quantize: Quantize) -> Node:
        """The layer's output as rows, before its bias."""
        values, scales = quantize(self.weight)
        offset = values.sum(dim=1, dtype=torch.int32) * OFFSET
        weight = self.store("int8", values.t().contiguous())
        return self._product(weight, self.store("scales", scales.float()), self.store("offset", offset))

    def _product(self, weight: Node, scales: Node, offset: Node) -> Node:
        rows = self.input_rows()
        largest = self.call(aten.amax.default, self.call(aten.abs.default, rows), [1], True)
        scale = self.call(aten.clamp_min.default, self.call(aten.div.Tensor, largest, STEPS), SMALLEST_SCALE)
        rounded = self.call(aten.round.default, self.call(aten.div.Tensor, rows, scale))
        rounded = self.call(aten.clamp.default, rounded, -OFFSET, OFFSET - 1)
        unsigned = self.call(aten.to.dtype, self.call(aten.add.Tensor, rounded, float(OFFSET)), torch.uint8)
        summed = self.call(aten.sub.Tensor, self.call(aten._int_mm.default, unsigned, weight), offset)
        scaled = self.call(aten.mul.Tensor, self.call(aten.to.dtype, summed, torch.float32), scale)
        return self.call(aten.mul.Tensor, scaled, scales)
