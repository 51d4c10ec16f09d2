"""Runs products in bfloat16 on processors that have instructions for it."""

from __future__ import annotations

import dataclasses
import functools

import torch

from vivace.core.cost import Cost
from vivace.core.facts import Fact
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work
from vivace.techniques.precision.narrow import check_castable, device_of, narrowed, narrowed_cost


@dataclasses.dataclass(frozen=True)
class Bfloat16(Technique):
    """Convolutions, linear layers, matrix products, attention and LSTMs in bfloat16; inputs and outputs as before.

    Weights are converted once, in the stored program. What loses too much with 8 bits of mantissa (exponentials,
    powers, long sums) stays in float32, and every kernel accumulates in float32. Raises NotApplicable when the graph
    has no float32 product.

    Source: Kalamkar et al., A Study of BFLOAT16 for Deep Learning Training, 2019 (arXiv:1905.12322); which operators
    stay wide follows https://docs.pytorch.org/docs/stable/amp.html (CPU op reference), read in November 2026.

    >>> Bfloat16().rewrite(Cost(1e9, 4e6, 4e6, 100)).precision
    'bf16'
    """

    stage = Stage.PRECISION
    family = Family.ALGORITHM
    effect = Effect.CHANGED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.FLOAT32, Fact.UNQUANTIZED, Fact.BF16_INSTRUCTIONS})
    breaks = frozenset({Fact.FLOAT32, Fact.ONNX_READY, Fact.OPENVINO_READY})
    unit_roundoff = 2.0**-8
    source = "Kalamkar et al., 2019, arXiv:1905.12322; https://docs.pytorch.org/docs/stable/amp.html"

    def rewrite(self, cost: Cost) -> Cost:
        """Half the bytes, products at the ceiling of bfloat16, a few conversions."""
        return narrowed_cost(cost, "bf16")

    def apply(self, model: Model, work: Work) -> Model:
        """The model with its products in bfloat16."""
        return narrowed(model, torch.bfloat16, str(self))

    def equip(self, rig: Rig, job: Training) -> Rig:
        """A training whose forward passes are cast by PyTorch's autocast; weights and updates stay in float32.

        Gradients keep float32's range in bfloat16, so no loss is scaled. Raises NotApplicable for a model without
        float32 weights, and for one with an nn.Bilinear on a CPU.
        """
        check_castable(rig.model)
        cast = functools.partial(torch.autocast, device_of(rig.model), torch.bfloat16)
        return rig.replace(around=(*rig.around, cast))
