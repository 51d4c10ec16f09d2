"""Runs products in float16 on a CUDA device; in a training, with a loss that is scaled."""

from __future__ import annotations

import dataclasses
import functools

import torch

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work
from vivace.techniques.precision.narrow import check_castable, device_of, narrowed, narrowed_cost
from vivace.training.scaling import DynamicScaling


@dataclasses.dataclass(frozen=True)
class Float16(Technique):
    """Convolutions, linear layers, matrix products, attention and LSTMs in float16, for a CUDA device.

    Weights are converted once and held within float16's range (65504). Activations beyond it become infinite, which the
    gate then sees. Raises NotApplicable when the graph has no float32 product. Not for processors: they have float16
    arithmetic rarely, and bfloat16 instead.

    Training steps are cast by PyTorch's autocast; weights and updates stay in float32. The loss is scaled so that small
    gradients do not vanish below float16's 6e-8; where one overflows, the step is left out and the scale halved. Steps
    that were left out are counted in the run, and the scale is kept in its checkpoints.

    Source: Micikevicius et al., Mixed Precision Training, ICLR 2018 (arXiv:1710.03740); which operators stay wide
    follows https://docs.pytorch.org/docs/stable/amp.html (CUDA op reference), read in November 2026.

    >>> Float16().rewrite(Cost(1e9, 4e6, 4e6, 100)).precision
    'f16'
    """

    stage = Stage.PRECISION
    family = Family.HARDWARE
    effect = Effect.CHANGED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.FLOAT32, Fact.UNQUANTIZED, Fact.CUDA_DEVICE})
    breaks = frozenset(
        {Fact.FLOAT32, Fact.ONNX_READY, Fact.OPENVINO_READY, Fact.RUNNABLE, Fact.ON_CPU, Fact.UNSCALED_LOSS}
    )
    unit_roundoff = 2.0**-11
    source = "Micikevicius et al., ICLR 2018, arXiv:1710.03740; https://docs.pytorch.org/docs/stable/amp.html"

    def rewrite(self, cost: Cost) -> Cost:
        """Half the bytes, products at the ceiling of float16, a few conversions."""
        return narrowed_cost(cost, "f16")

    def apply(self, model: Model, work: Work) -> Model:
        """The model with its products in float16."""
        return narrowed(model, torch.float16, str(self))

    def equip(self, rig: Rig, job: Training) -> Rig:
        """A training whose forward passes are cast and whose loss is scaled."""
        check_castable(rig.model)
        mixed = next((name for name, one in rig.model.named_parameters() if one.dtype is not torch.float32), None)
        if mixed is not None:
            raise NotApplicable(f"{mixed} is no float32, and the scale can be taken from gradients in float32 only")
        kind = device_of(rig.model)
        cast = functools.partial(torch.autocast, kind, torch.float16)
        return rig.replace(around=(*rig.around, cast), scaling=DynamicScaling(kind))
