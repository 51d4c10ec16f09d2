"""Runs products in bfloat16 on a CUDA device, beside a processor that has no instructions for it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import torch

from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.program import Model
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.training.job import Training
from vivace.core.training.rig import Rig
from vivace.core.work import Work
from vivace.techniques.precision.narrow import device_of, narrowed, narrowed_cost


@dataclasses.dataclass(frozen=True)
class CudaBfloat16(Technique):
    """Convolutions, linear layers, matrix products, attention and LSTMs in bfloat16, for a CUDA device.

    The same program as `bfloat16` gives. That one needs a processor with bfloat16 instructions, and where there is one
    it serves CUDA as well, so that this technique then offers nothing to the search. Raises NotApplicable when the
    graph has no float32 product.

    Source: NVIDIA A100 Tensor Core GPU Architecture, 2020, "Third-generation Tensor Cores" (bfloat16 from compute
    capability 8.0 on); Kalamkar et al., 2019 (arXiv:1905.12322).

    >>> CudaBfloat16().rewrite(Cost(1e9, 4e6, 4e6, 100)).precision
    'bf16'
    """

    stage = Stage.PRECISION
    family = Family.HARDWARE
    effect = Effect.CHANGED
    needs = frozenset({Fact.TORCH_GRAPH, Fact.FLOAT32, Fact.UNQUANTIZED, Fact.CUDA_BF16})
    unit_roundoff = 2.0**-8
    breaks = frozenset({Fact.FLOAT32, Fact.ONNX_READY, Fact.OPENVINO_READY, Fact.RUNNABLE, Fact.ON_CPU})
    source = "NVIDIA A100 Tensor Core GPU Architecture whitepaper, 2020; Kalamkar et al., 2019, arXiv:1905.12322"

    @classmethod
    def variants(cls, work: Work, machine: Machine) -> Iterator[Technique]:
        """None where `bfloat16` says the same."""
        if Fact.BF16_INSTRUCTIONS not in machine.facts():
            yield cls()

    def rewrite(self, cost: Cost) -> Cost:
        """Half the bytes, products at the ceiling of bfloat16, a few conversions."""
        return narrowed_cost(cost, "bf16")

    def apply(self, model: Model, work: Work) -> Model:
        """The model with its products in bfloat16."""
        return narrowed(model, torch.bfloat16, str(self))

    def equip(self, rig: Rig, job: Training) -> Rig:
        """A training on a CUDA device whose forward passes are cast by autocast; weights stay in float32."""
        if device_of(rig.model) != "cuda":
            raise NotApplicable("the job's model is not on a CUDA device; put it there in the job's `model`")
        return rig.replace(around=(*rig.around, functools.partial(torch.autocast, "cuda", torch.bfloat16)))
