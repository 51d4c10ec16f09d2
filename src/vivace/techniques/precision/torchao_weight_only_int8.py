"""Linear layers whose weights are kept in 8-bit integers inside the PyTorch graph, for calls of a few rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch.fx import Node

from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.techniques.graph import GraphEdit, torch_program
from vivace.techniques.precision.torchao_rows import Quantize, RowProduct, large_layers, weight_quantizer
from vivace.techniques.sensitivity import kept_layers, with_quantized

aten = torch.ops.aten
MOST_ROWS = 4


@dataclasses.dataclass(frozen=True)
class TorchaoWeightOnlyInt8(Technique):
    """Linear layers with int8 weights, one scale an output channel, multiplied by bfloat16 activations.

    y = (bf16(x) @ w8.T) * scale + bias in one kernel that widens weights as it reads them: a quarter of the weights'
    memory traffic. It pays for very few rows and costs much for many (PyTorch's kernel for float32 activations is
    slower than the dense product even for one row, hence bfloat16), so it offers itself only where a call takes each
    weight at most 4 times. Weights are quantized by torchao; the stored program needs PyTorch only. Layers with fewer
    than `smallest` inputs or outputs are left alone, as are those that the user named. Raises NotApplicable when no
    layer is left, and MissingExtra without torchao.

    Source: torchao, Int8WeightOnlyConfig (https://docs.pytorch.org/ao, version 0.18), and PyTorch's
    aten/src/ATen/native/cpu/int8mm_kernel.cpp.

    >>> TorchaoWeightOnlyInt8().rewrite(Cost(1e9, 4e6, 4e6, 100)).weight_bytes
    1000000.0
    """

    smallest: int = 16

    stage = Stage.PRECISION
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.HAS_LINEAR, Fact.FLOAT32, Fact.UNQUANTIZED, Fact.ON_CPU})
    breaks = frozenset({Fact.FLOAT32, Fact.UNQUANTIZED, Fact.ONNX_READY, Fact.OPENVINO_READY})
    source = "torchao 0.18, Int8WeightOnlyConfig; PyTorch, aten/src/ATen/native/cpu/int8mm_kernel.cpp"
    packages = ("torchao",)
    extra = "ao"

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """Itself where weights are used a few times a call; nothing elsewhere."""
        if work.cost.flops <= MOST_ROWS * 2 * work.cost.weight_bytes / 4:
            yield cls()

    def rewrite(self, cost: Cost) -> Cost:
        """A quarter of the weights, products in bfloat16, and a few small operators around each."""
        return cost.replace(
            precision="bf16",
            weight_bytes=cost.weight_bytes / 4,
            operators=cost.operators * 3 // 2,
            efficiency=cost.efficiency * 0.2,
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model with the weights of its linear layers in int8."""
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
    """One linear layer, rewritten: y = (bf16(x) @ w8.T) * scale + bias."""

    def rows(self, quantize: Quantize) -> Node:
        """The layer's output as rows, before its bias."""
        values, scales = quantize(self.weight)
        weight, scale = self.store("int8", values.contiguous()), self.store("scales", scales.bfloat16())
        rows = self.call(aten.to.dtype, self.input_rows(), torch.bfloat16)
        product = self.call(aten._weight_int8pack_mm.default, self.call(aten.contiguous.default, rows), weight, scale)
        return self.call(aten.to.dtype, product, torch.float32)
