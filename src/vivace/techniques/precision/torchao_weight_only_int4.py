"""Linear layers with weights of 4 bits inside the PyTorch graph, in groups, for calls of a few rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Node

from vivace.core.cost import Cost
from vivace.core.errors import MissingExtra, NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.techniques.graph import GraphEdit, torch_program
from vivace.techniques.precision.torchao_rows import Quantize, RowProduct, large_layers
from vivace.techniques.sensitivity import kept_layers, with_quantized

aten = torch.ops.aten
GROUPS = (32, 64, 128, 256)
"""Those of PyTorch's kernel."""
OUTPUTS_TOGETHER = 16
"""The kernel takes so many outputs at a time, and no rest."""
MOST_ROWS = 8
"""On 2048 x 2048 weights 8 rows took 0.8 ms beside 1.9 in float32, 1 row 0.22 beside 0.33, and 32 rows as long as in
float32 (one core with AVX-512 BF16, measured for this project in November 2026)."""
MIDDLE = 8
"""Stored values are from 0 to 15; the kernel takes this off them."""
SCALE_BITS = 32
"""Of a scale and a zero point in bfloat16, for each group."""


@dataclasses.dataclass(frozen=True)
class TorchaoWeightOnlyInt4(Technique):
    """Linear layers with int4 weights, a scale and a zero point for each `group_size` inputs of an output, multiplied
    by bfloat16 activations.

    y = bf16(x) @ ((w4 - 8) * scale + zero).T + bias in one kernel of PyTorch's that widens weights as it reads them: an
    eighth of the weights' memory traffic. It pays for few rows, so it offers itself only where a call takes each weight
    at most 8 times. How the kernel wants weights to lie depends on the processor, so the stored program has two values
    a byte, and lays them out when it is loaded (`inductor` without frozen weights does so in each call). Weights are
    quantized by torchao; the stored program needs PyTorch only. Layers whose inputs the group does not divide, whose
    outputs 16 does not divide, and those that the user named are left alone. Raises NotApplicable when no layer is
    left, MissingExtra without torchao, UsageError for another group.

    Source: torchao, IntxWeightOnlyConfig (https://docs.pytorch.org/ao, version 0.18), and PyTorch's
    aten/src/ATen/native/cpu/int4mm_kernel.cpp; Dettmers and Zettlemoyer, The case for 4-bit precision, ICML 2023
    (arXiv:2212.09720), section 2, on groups.

    >>> str(TorchaoWeightOnlyInt4(group_size=32))
    'torchao-weight-only-int4(group_size=32)'
    """

    group_size: int = 64

    stage = Stage.PRECISION
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.HAS_LINEAR, Fact.FLOAT32, Fact.UNQUANTIZED, Fact.ON_CPU})
    breaks = frozenset({Fact.FLOAT32, Fact.UNQUANTIZED, Fact.ONNX_READY, Fact.OPENVINO_READY})
    source = "torchao 0.18, IntxWeightOnlyConfig; PyTorch, aten/src/ATen/native/cpu/int4mm_kernel.cpp"
    packages = ("torchao",)
    extra = "ao"

    def __post_init__(self) -> None:
        if self.group_size not in GROUPS:
            allowed = ", ".join(map(str, GROUPS))
            raise UsageError(f"torchao-weight-only-int4 received group_size={self.group_size!r}; allowed are {allowed}")

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """Itself where weights are used a few times a call; nothing elsewhere."""
        if work.cost.flops <= MOST_ROWS * 2 * work.cost.weight_bytes / 4:
            yield cls()

    def gentler(self, work: Work) -> Iterator[Technique]:
        """Smaller groups."""
        return (dataclasses.replace(self, group_size=size) for size in reversed(GROUPS) if size < self.group_size)

    def rewrite(self, cost: Cost) -> Cost:
        """An eighth of the weights and their scales, products in bfloat16, and a few small operators around each."""
        return cost.replace(
            precision="bf16",
            weight_bytes=cost.weight_bytes * (4 + SCALE_BITS / self.group_size) / 32,
            operators=cost.operators * 3 // 2,
            efficiency=cost.efficiency * 0.2,
        )

    def apply(self, model: Model, work: Work) -> Model:
        """The model with the weights of its linear layers in int4."""
        quantize = group_quantizer(self.group_size, self.name())
        edit = GraphEdit(torch_program(model))
        kept = kept_layers(model, work)
        layers = [node for node in large_layers(edit, OUTPUTS_TOGETHER, kept) if self._fits(edit.weight(node.args[1]))]
        if not layers:
            raise NotApplicable(
                f"no linear layer has inputs that groups of {self.group_size} divide, and outputs that "
                f"{OUTPUTS_TOGETHER} divides"
            )
        names = [node.name for node in layers]
        for node in layers:
            _Product(edit, node).replace(quantize)
        made = model.replace(program=edit.close(), lineage=(*model.lineage, str(self)))
        return with_quantized(made, names, kept)

    def _fits(self, weight: torch.Tensor | None) -> bool:
        return weight is not None and weight.shape[0] % OUTPUTS_TOGETHER == 0 and weight.shape[1] % self.group_size == 0


def group_quantizer(group_size: int, purpose: str) -> Quantize:
    """A function from weights [outputs, inputs] to (values from 0 to 15, bfloat16 [groups, outputs, 2]): each group's
    scale and the number that its middle stands for, both by torchao. Raises MissingExtra, which names the purpose."""
    try:
        from torchao.quantization import IntxUnpackedToInt8Tensor
        from torchao.quantization.quant_primitives import MappingType
    except ImportError:
        raise MissingExtra("torchao", "ao", purpose) from None

    def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        int4: Any = getattr(torch, "int4")  # noqa: B009  it has no type
        found = IntxUnpackedToInt8Tensor.from_hp(weight, (1, group_size), int4, mapping_type=MappingType.ASYMMETRIC)
        scales = found.scale.reshape(weight.shape[0], -1).float()
        middles = -found.zero_point.reshape(scales.shape).float() * scales
        return (found.qdata + MIDDLE).to(torch.uint8), torch.stack([scales.t(), middles.t()], dim=-1).bfloat16()

    return quantize


class _Product(RowProduct):
    """One linear layer, rewritten: y = bf16(x) @ ((w4 - 8) * scale + zero).T + bias."""

    def rows(self, quantize: Quantize) -> Node:
        """The layer's output as rows, before its bias."""
        values, scales = quantize(self.weight)
        pairs = self.store("int4", values[:, 0::2] | (values[:, 1::2] << 4))
        rows = self.call(aten.contiguous.default, self.call(aten.to.dtype, self.input_rows(), torch.bfloat16))
        group = values.shape[1] // scales.shape[0]
        stored = self.store("scales", scales.contiguous())
        product = self.call(aten._weight_int4pack_mm_for_cpu.default, rows, self._laid_out(pairs), group, stored)
        return self.call(aten.to.dtype, product, torch.float32)

    def _laid_out(self, pairs: Node) -> Node:
        """The weights as the kernel wants them on this processor, from bytes of two values each."""
        low = self.call(aten.bitwise_and.Scalar, pairs, 15)
        high = self.call(aten.bitwise_right_shift.Tensor_Scalar, pairs, 4)
        values = self.call(
            aten.reshape.default, self.call(aten.stack.default, [low, high], -1), list(self.weight.shape)
        )
        return self.call(
            aten._convert_weight_to_int4pack_for_cpu.default, self.call(aten.to.dtype, values, torch.int32), 1
        )
